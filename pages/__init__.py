"""What is looked at: the pages' renderer."""

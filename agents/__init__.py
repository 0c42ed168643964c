"""What talks to language models: the CRV agents, their client and journal."""

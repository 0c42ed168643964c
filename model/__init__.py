"""What computes: loading, attention, log-probs, sharding, reference, checkpoints, the optimizer, generation."""

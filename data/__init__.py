"""What is trained on: records, sources, decontamination, rendering, pairs, packing."""

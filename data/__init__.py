"""What is read and fed: records, sources, final answers, rendering, pairs, packing; and running programs."""

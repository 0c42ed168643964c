"""What is measured: benchmarks, generation, grading, statistics, the paper's tables."""

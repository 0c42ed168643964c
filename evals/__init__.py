"""What is measured: benchmarks, generation, grades, statistics, the paper's tables."""

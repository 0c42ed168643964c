"""Benchmarks, one readable module a family: what the problems are, how they are asked, how an answer is graded."""

"""Benchmarks of speed on this machine, compared with the alternatives."""

"""The benchmark for other programs: tasks of lm-evaluation-harness and of inspect_ai."""

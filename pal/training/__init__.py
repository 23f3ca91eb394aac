"""Training, for every task: what it begins with, the loop, resuming."""

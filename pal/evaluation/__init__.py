"""Evaluation: predictions and models in, scores out."""

"""Resampling, permutation, Holm's adjustment, estimates, agreement."""

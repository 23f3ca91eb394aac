"""Statistics: resampling, permutation tests, Holm's adjustment, estimates and agreement."""

"""The benchmark: systems, stages, results, analyses, and its sections of the page."""

"""The trait report."""

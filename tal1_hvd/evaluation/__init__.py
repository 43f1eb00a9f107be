"""Exact metrics of a whole split, and their confidence intervals."""

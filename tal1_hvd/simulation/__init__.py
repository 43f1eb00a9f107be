"""Simulated DNA with planted motif sites, built on simdna."""

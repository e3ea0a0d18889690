"""Measurements of the three packages against their peers: `python -m benchmarks`."""

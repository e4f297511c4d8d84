"""Datasets: one set, one file."""

"""Datasets: one file, one class each."""

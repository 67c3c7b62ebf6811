"""Suites: named grids of experiments, as data."""

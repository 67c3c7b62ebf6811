"""Kinds of teachers and their pretraining: one per file."""

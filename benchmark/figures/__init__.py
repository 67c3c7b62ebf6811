"""Figures: one file each; they only read rows and stored distilled sets."""

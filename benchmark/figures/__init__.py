"""Figures: one file each; they read rows and stored distilled sets, and never train."""

"""Kernel plug-ins: hot code paths with their plain twins, one file each."""

"""Kernel plug-ins: hot pieces of code beside their plain twins, one file each."""

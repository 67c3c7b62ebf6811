"""Commands of the command line: one file each, imported only when it is asked for."""

"""Tables: one file each; they only read rows."""

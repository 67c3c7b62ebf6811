"""Tables: one file each; they read rows and never train."""

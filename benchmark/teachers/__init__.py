"""How a teacher is pretrained: one kind per file."""

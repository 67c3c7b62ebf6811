"""A benchmark of dataset distillation: one harness, six systems, every number with its cost."""

"""A benchmark of dataset distillation: one harness, six systems, and the cost of every number."""

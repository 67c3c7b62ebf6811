"""Linear probes: what can be fitted to frozen features."""

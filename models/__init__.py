"""Backbones: one public factory per file; models that timm has as needed have none."""

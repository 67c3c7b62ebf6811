"""Backbones: one public factory per file; what timm has as it should be needs none."""

"""Ablation variants of `ours`, each with some of its components switched off."""

from benchmark.grid import Variant

NONE = Variant(
    label="ours: none of the three",
    method="ours",
    settings={"bases": False, "augmentations": (), "approximation": False},
)
BASES = Variant(
    label="ours: bases only",
    method="ours",
    settings={"augmentations": (), "approximation": False},
)
VIEWS = Variant(
    label="ours: views without approximation",
    method="ours",
    settings={"approximation": False},
)

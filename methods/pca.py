"""The control `pca`: the storage of `ours` filled without a single outer step.

PCA bases, the coefficients of randomly drawn images, and approximation networks fitted to the
teacher's representations of their views. It separates what the outer optimisation adds from what
compression adds.
"""

from dataclasses import dataclass

from .ours import Ours

__all__ = ["Pca"]


@dataclass(frozen=True, kw_only=True)
class Pca(Ours):
    """`ours`, standing still; every field as there."""

    outer_steps: int = 0

"""The control `pca`: the storage format of `ours`, filled without a single outer step.

PCA bases, the coefficients of randomly drawn images, and approximation networks fitted to the
teacher's representations of their views. It separates the effect of outer optimisation from that of
compression.
"""

from dataclasses import dataclass

from .ours import Ours

__all__ = ["Pca"]


@dataclass(frozen=True, kw_only=True)
class Pca(Ours):
    """`ours` without outer steps; the fields are the same."""

    outer_steps: int = 0

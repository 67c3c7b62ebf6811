"""Learned image bases, and the distilled images that they make."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib import figure
from torch import Tensor

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import MissingSetError, StoredSets
from benchmark.reporting.style import short, strips
from benchmark.rows import Row

from ._choice import drawable, keys, listed, sets_of
from ._tiles import tiles

__all__ = ["image_bases"]

_COLUMNS, _LINES = 12, 2


def image_bases(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure for the first seed at the main budget; none if no method stores bases."""
    shown = {label: seeds[0] for label, seeds in sets_of(rows).items() if _has_bases(seeds[0])}
    if not shown:
        return []
    first = next(iter(shown.values()))

    def draw() -> figure.Figure:
        parts = {}
        for label, row in shown.items():
            stored = sets.read(row.distilled)
            if (bases := stored.tensors.get("image_bases")) is None:
                raise MissingSetError(f"distilled set {row.distilled}: has no image bases")
            most = _COLUMNS * _LINES
            for title, images in {
                f"{short(label)}: image bases, {min(most, len(bases))} of {len(bases)}": contrast(
                    drawable(bases[:most], row.distilled)
                ),
                f"{short(label)}: distilled images made of them": drawable(
                    stored.images(most), row.distilled
                ),
            }.items():
                parts[title] = tiles(images, columns=_COLUMNS)
        return strips(parts)

    return [
        Figure(
            name="image-bases",
            title=f"Image bases and what they make, N = {first.N}",
            notes=(
                "Each basis is scaled by its own largest entry, with zero as mid-grey; an image is "
                f"a weighted sum of all bases plus a mean, upsampled (seed {first.seed}). `pca` "
                "shows the bases before the first outer step."
            ),
            alt=(
                f"Small images in rows, first image bases, then distilled images, for "
                f"{listed(list(shown))}. Bases are grey patterns, the first of them coarse and "
                f"later ones finer; the images made of them are blurred images of {first.source}."
            ),
            draw=draw,
            sets=keys(shown.values()),
        )
    ]


def _has_bases(row: Row) -> bool:
    return "bases" in row.storage and bool(row.num_images)


def contrast(bases: Float[Tensor, "u c h w"]) -> Float[Tensor, "u c h w"]:
    """Return bases as images in [0, 1]: x / (2 max |x|) + 1/2, each with its own maximum."""
    largest = bases.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return bases / (2 * largest) + 0.5

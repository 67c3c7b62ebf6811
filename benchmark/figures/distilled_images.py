"""Distilled images of every method, side by side."""

from collections.abc import Sequence

from matplotlib import figure

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import StoredSets
from benchmark.reporting.style import short, strips
from benchmark.rows import Row

from ._choice import drawable, keys, listed, sets_of
from ._tiles import tiles

__all__ = ["distilled_images"]

_EACH = 10  # images of each method: one row in which each is still recognisable


def distilled_images(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure for the first seed at the main budget; none if no method made images.

    Real images are left out: a report may be redistributed where the data may not.
    """
    shown = {
        label: seeds[0]
        for label, seeds in sets_of(rows).items()
        if seeds[0].num_images and not _are_real(seeds[0])
    }
    if not shown:
        return []
    first = next(iter(shown.values()))
    titles = [f"{short(label)}: {row.num_images:,} images" for label, row in shown.items()]

    def draw() -> figure.Figure:
        pictures = [
            drawable(sets.read(row.distilled).images(_EACH), row.distilled)
            for row in shown.values()
        ]
        return strips(
            {
                title: tiles(images, columns=_EACH)
                for title, images in zip(titles, pictures, strict=True)
            }
        )

    return [
        Figure(
            name="distilled-images",
            title=f"Distilled images, N = {first.N}",
            notes=(
                f"Up to {_EACH} images of each method, evenly spread over its distilled set (seed "
                f"{first.seed}), as a student sees them. Real images are not shown."
            ),
            alt=(
                f"Rows of small images, a row for each method: {listed(titles)}. "
                f"All were distilled from {first.source} within the same budget."
            ),
            draw=draw,
            sets=keys(shown.values()),
        )
    ]


def _are_real(row: Row) -> bool:
    """Say whether a set holds unchanged real images: only those are stored as bytes."""
    if "pixels" not in row.storage:
        return False
    numbers, num_bytes = row.storage["pixels"]
    return numbers == num_bytes

"""How well the approximation networks predict the shift of each view."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from matplotlib import figure

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import MissingSetError, StoredSets
from benchmark.reporting.style import INK, Look, legend, panels, short
from benchmark.rows import Row

from ._choice import keys, listed, looks_of, sets_of

__all__ = ["approximation"]

_LOOP, _PREFIX = "approximation networks", "relative_error_"
_AVERAGED = 20  # last logged points, as each is of one batch where there are many images


def approximation(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure for the main budget; none if no method fits such networks."""
    shown = {
        label: seeds
        for label, seeds in sets_of(rows).items()
        if all(_views(row.losses) for row in seeds)
    }
    if not shown:
        return []
    every, looks = [row for seeds in shown.values() for row in seeds], looks_of(rows)

    def draw() -> figure.Figure:
        errors = {label: [_errors(sets, row) for row in seeds] for label, seeds in shown.items()}
        return _draw(errors, looks)

    return [
        Figure(
            name="approximation",
            title=f"Error of the approximation networks, N = {every[0].N}",
            notes=(
                "Mean squared error of the predicted shift of the target coefficients, relative to "
                "predicting no shift at all (1), at the end of the fit: means over seeds, and "
                "every seed as a dot."
            ),
            alt=(
                "Relative error for each view. Over the last quarter of the fit: "
                f"{listed([_words(label, seeds) for label, seeds in shown.items()])}."
            ),
            draw=draw,
            sets=keys(every),
        )
    ]


def _views(names: Iterable[str]) -> list[str]:
    views = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return sorted(views, key=lambda view: (len(view), view))  # rot90 before rot180


def _words(label: str, rows: Sequence[Row]) -> str:
    views = [
        f"{view} {fmean(row.losses[_PREFIX + view][-1] for row in rows):.2f}"
        for view in _views(rows[0].losses)
        if all(_PREFIX + view in row.losses for row in rows)
    ]
    return f"{label} {', '.join(views)}"


def _errors(sets: StoredSets, row: Row) -> dict[str, float]:
    """Return the mean of the last logged errors, by view."""
    points = sets.history(row.distilled).get(_LOOP, [])[-_AVERAGED:]
    views = _views(set.intersection(*map(set, points))) if points else []
    if not views:
        raise MissingSetError(f"distilled set {row.distilled}: logged no error for every view")
    return {view: fmean(point[_PREFIX + view] for point in points) for view in views}


def _draw(
    errors: Mapping[str, Sequence[Mapping[str, float]]], looks: Mapping[str, Look]
) -> figure.Figure:
    drawn, (frame,) = panels(1, height=1.5)
    views = list(
        dict.fromkeys(view for seeds in errors.values() for seed in seeds for view in seed)
    )
    width = 0.7 / len(errors)
    for place, (label, seeds) in enumerate(errors.items()):
        look, shift = looks[label], width * (place - (len(errors) - 1) / 2)
        values = [[seed[view] for seed in seeds if view in seed] for view in views]
        means = [fmean(of_view) if of_view else math.nan for of_view in values]
        middles = [at + shift for at in range(len(views))]
        frame.plot(middles, means, look.marker, ms=1.2 * look.size, color=look.colour, label=label)
        for middle, of_view in zip(middles, values, strict=True):
            frame.plot([middle + 0.35 * width] * len(of_view), of_view, "o", color=INK, ms=1.5)
    frame.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    frame.set_xticks(range(len(views)), [short(view) for view in views])
    frame.set_xlim(-0.5, len(views) - 0.5)
    frame.set_ylim(bottom=0)
    frame.set_ylabel("relative error")
    frame.grid(visible=False, axis="x")
    legend(drawn, dict(zip(*reversed(frame.get_legend_handles_labels()), strict=True)))
    return drawn

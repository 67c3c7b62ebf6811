"""Convergence of the outer loss, of every method that has one."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib import figure
from matplotlib.axes import Axes

from benchmark.rows import Row
from benchmark.stored_sets import MissingSetError, StoredSets

from ._choice import keys, listed, sets_of
from ._figure import Figure
from ._style import FAINT, logarithmic, looks, panels

__all__ = ["convergence"]

_LOOP = "outer steps"
# What the outer loop of a method lowers, or the part of it that means the same in every step, by
# the name under which it is logged
_LOSSES = ("outer_loss", "feature_distance", "matching_loss", "distance")
_WIDE = 20.0  # from this ratio of largest to smallest on, a loss is shown on a logarithmic axis


def convergence(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure, a panel for each method at the main budget; none if none logged a loss."""
    shown = {
        label: (seeds, name) for label, seeds in sets_of(rows).items() if (name := _loss(seeds))
    }
    if not shown:
        return []
    every = [row for seeds, _ in shown.values() for row in seeds]

    def draw() -> figure.Figure:
        curves = {
            label: [_curve(sets, row, name) for row in seeds]
            for label, (seeds, name) in shown.items()
        }
        drawn, axes = panels(len(shown), height=1.8, columns=3)
        for frame, (label, look) in zip(axes, looks(shown).items(), strict=True):
            _draw_curves(frame, curves[label], look.colour)
            frame.set_title(label)
            frame.set_xlabel("outer step")
            frame.set_ylabel(shown[label][1].replace("_", " "))
        return drawn

    falls = [f"{label} {_fall(seeds, name)}" for label, (seeds, name) in shown.items()]
    return [
        Figure(
            name="convergence",
            title=f"Convergence of the outer loss, N = {every[0].N}",
            notes=(
                "Thin lines are seeds, the bold one is their mean. Losses of different methods are "
                "different quantities."
            ),
            alt=(
                "Outer loss against outer step, a panel for each method. Means over the first and "
                f"the last quarter of the steps: {listed(falls)}."
            ),
            draw=draw,
            sets=keys(every),
        )
    ]


def _loss(rows: Sequence[Row]) -> str | None:
    """Return the name of the loss that every one of the rows' sets logged."""
    return next((name for name in _LOSSES if all(name in row.losses for row in rows)), None)


def _fall(rows: Sequence[Row], name: str) -> str:
    first, last = (fmean(row.losses[name][end] for row in rows) for end in (0, -1))
    return f"from {first:.3g} to {last:.3g}"


def _curve(sets: StoredSets, row: Row, name: str) -> Mapping[int, float]:
    """Return the loss by its step."""
    points = sets.history(row.distilled).get(_LOOP, [])
    curve = {int(point["step"]): point[name] for point in points if name in point}
    if not curve:
        raise MissingSetError(f"distilled set {row.distilled}: logged no {name} in its {_LOOP}")
    return curve


def _draw_curves(frame: Axes, curves: Sequence[Mapping[int, float]], colour: str) -> None:
    for curve in curves:
        frame.plot(list(curve), list(curve.values()), color=FAINT, linewidth=0.5, alpha=0.7)
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    mean = [fmean(curve[step] for curve in curves) for step in steps]
    frame.plot(steps, mean, color=colour)
    values = [value for curve in curves for value in curve.values()]
    if 0 < min(values) < max(values) / _WIDE:
        logarithmic(frame, "y", values)
    frame.margins(x=0.02)

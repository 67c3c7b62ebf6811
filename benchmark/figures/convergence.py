"""Convergence of the outer loss, for every method that has one."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import MissingSetError, StoredSets
from benchmark.reporting.style import FAINT, logarithmic, panels, short
from benchmark.rows import Row

from ._choice import keys, listed, looks_of, sets_of

__all__ = ["convergence"]

_LOOP = "outer steps"
# What a method's outer loop minimises, or the part of it that is comparable between steps, by the
# name under which it is logged
_LOSSES = ("outer_loss", "feature_distance", "matching_loss", "distance")
_WIDE = 20.0  # above this ratio of largest to smallest, a loss has a logarithmic axis
_POINTS = 100  # per curve: more are illegible in a panel an inch wide
_MARGIN = 1.2  # factor beyond the data
_STEPS = (1, 2, 5, 10)  # between ticks, times a power of ten


def convergence(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure, a panel per method at the main budget; none if no loss was logged."""
    shown = {
        label: (seeds, name) for label, seeds in sets_of(rows).items() if (name := _loss(seeds))
    }
    if not shown:
        return []
    every, looks = [row for seeds, _ in shown.values() for row in seeds], looks_of(rows)

    def draw() -> figure.Figure:
        curves = {
            label: [_thinned(_curve(sets, row, name)) for row in seeds]
            for label, (seeds, name) in shown.items()
        }
        columns = min(2, len(shown))
        drawn, axes = panels(len(shown), height=1.3, columns=columns)
        for frame, (label, (_, name)) in zip(axes, shown.items(), strict=True):
            _draw_curves(frame, curves[label], looks[label].colour)
            frame.set_title(short(label))
            frame.set_ylabel(name.replace("_", " "))
        for lowest in axes[-columns:]:
            lowest.set_xlabel("outer step")
        return drawn

    falls = [f"{label} {_fall(seeds, name)}" for label, (seeds, name) in shown.items()]
    return [
        Figure(
            name="convergence",
            title=f"Convergence of the outer loss, N = {every[0].N}",
            notes=(
                "Thin lines are seeds, the bold line is their mean. The losses of different "
                "methods are different quantities. Long curves are averaged over neighbouring "
                "steps."
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
    """Return the name of the loss that all of the rows' sets logged."""
    return next((name for name in _LOSSES if all(name in row.losses for row in rows)), None)


def _fall(rows: Sequence[Row], name: str) -> str:
    first, last = (fmean(row.losses[name][end] for row in rows) for end in (0, -1))
    return f"from {first:.3g} to {last:.3g}"


def _curve(sets: StoredSets, row: Row, name: str) -> Mapping[int, float]:
    """Return the loss by its step."""
    points = sets.history(row.distilled).get(_LOOP, [])
    curve = {int(point["step"]): point[name] for point in points if {"step", name} <= point.keys()}
    if not curve:
        raise MissingSetError(f"distilled set {row.distilled}: logged no {name} in its {_LOOP}")
    return curve


def _thinned(curve: Mapping[int, float]) -> dict[float, float]:
    """Return at most `_POINTS` points of a curve, each the mean of equally many neighbours."""
    each = -(-len(curve) // _POINTS)
    return {
        fmean(steps): fmean(curve[step] for step in steps)
        for start in range(0, len(curve), each)
        if (steps := list(curve)[start : start + each])
    }


def _draw_curves(frame: Axes, curves: Sequence[Mapping[float, float]], colour: str) -> None:
    for curve in curves:
        frame.plot(list(curve), list(curve.values()), color=FAINT, linewidth=0.5, alpha=0.7)
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    mean = [fmean(curve[step] for curve in curves) for step in steps]
    frame.plot(steps, mean, color=colour, marker="o" if len(steps) == 1 else "")
    low, high = (end(value for curve in curves for value in curve.values()) for end in (min, max))
    if 0 < low < high / _WIDE:
        logarithmic(frame, "y", (low / _MARGIN, high * _MARGIN))
    else:
        frame.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    frame.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS, integer=True))
    frame.margins(x=0.02)

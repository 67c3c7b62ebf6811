"""Accuracy against what it costs: a mark for each method, a line for what costs nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes

from benchmark.rows import Row
from benchmark.tables._grid import (
    describe,
    first_student,
    is_variant,
    labels,
    main_budget,
    main_downstream,
    protocols,
)
from benchmark.tables._statistics import Estimate

from ._choice import over_students
from ._style import Look, logarithmic, looks, panels

Cost = Callable[[Row], float | None]

_GAP = 0.018  # of the axis, between marks of nearly the same cost
_NAMES = 8  # in a line of the legend


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """The accuracy of a method at one budget, and its mean cost (None: it has none)."""

    label: str
    cost: float | None
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Points that can be compared with each other."""

    title: str
    points: Sequence[Point]


def compared(rows: Sequence[Row], cost: Cost) -> list[Panel]:
    """Return a panel for each amount of labels, of the first student and, if more, of all.

    They are of the probe that reports lead with and of the main dataset. Means over students are
    taken at the main budget, of the methods that have them all. Panels where nothing has a cost are
    left out.
    """
    dataset, student = main_downstream(rows), first_student(rows)
    rows = [row for row in rows if row.downstream == dataset and not is_variant(row)]
    if student is None:
        return []
    students = {row.student for row in rows} - {"teacher"}
    budget = main_budget(rows)
    lead, _ = protocols(rows)[0]
    panels_of_one, panels_of_all = [], []
    for protocol in protocols(rows):
        if protocol[0] != lead:
            continue
        mine = [row for row in rows if (row.probe, row.labels_per_class) == protocol]
        one = [row for row in mine if row.student in (student, "teacher")]
        all_students = [row for row in _complete(mine, students) if row.N in (None, budget)]
        words = describe(*protocol)
        panels_of_one.append(Panel(title=f"{student}: {words}", points=_points(one, cost)))
        title = f"mean of {len(students)} students: {words}"
        panels_of_all.append(Panel(title=title, points=_points(all_students, cost)))
    found = [*panels_of_one, *(panels_of_all if len(students) > 1 else [])]
    return [panel for panel in found if any(point.cost for point in panel.points)]


def in_words(panel: Panel, unit: Callable[[float], str]) -> str:
    """Return the best point of each method of a panel as text, from high to low."""
    best: dict[str, Point] = {}
    for point in sorted(panel.points, key=lambda point: -point.accuracy.mean):
        best.setdefault(point.label, point)
    words = [
        f"{label} {point.accuracy.mean:.1f} %"
        + ("" if point.cost is None else f" at {unit(point.cost)}")
        for label, point in best.items()
    ]
    return f"{panel.title}: {', '.join(words)}."


def draw(compared: Sequence[Panel], *, axis: str, unit: str) -> figure.Figure:
    """Draw panels side by side, the cost in `unit` on a logarithmic axis called `axis`."""
    drawn, axes = panels(len(compared), height=2.1)
    every = looks(dict.fromkeys(point.label for panel in compared for point in panel.points))
    for frame, panel in zip(axes, compared, strict=True):
        _draw_points(frame, panel.points, every)
        frame.set_title(panel.title)
        costs = [point.cost for point in panel.points if point.cost]
        logarithmic(frame, "x", costs, unit=unit)
        frame.set_xlim(min(costs) / _margin(costs), max(costs) * _margin(costs))
        frame.set_xlabel(axis)
        frame.set_ylabel("top-1 accuracy, %")
        frame.margins(y=0.1)
    handles = {label: handle for frame in axes for label, handle in _handles(frame).items()}
    shown = [label for label in every if label in handles]
    drawn.legend(
        [handles[label] for label in shown],
        shown,
        loc="outside lower center",
        ncols=min(len(shown), _NAMES),
    )
    return drawn


def _margin(costs: Sequence[float]) -> float:
    """Return the factor of an axis beyond its costs: a third of them, or a tenth of the axis."""
    return float(max(1.3, (max(costs) / min(costs)) ** 0.1))


def _draw_points(frame: Axes, points: Sequence[Point], every: Mapping[str, Look]) -> None:
    shown_at = _apart(points)
    for label in dict.fromkeys(point.label for point in points):
        mine, look = [point for point in points if point.label == label], every[label]
        for point in mine:
            if point.cost is None:
                level = point.accuracy.mean
                frame.axhline(level, color=look.colour, linestyle=look.line, label=label)
        placed = sorted((point for point in mine if point.cost), key=lambda point: shown_at[point])
        if placed:
            frame.errorbar(
                [shown_at[point] for point in placed],
                [point.accuracy.mean for point in placed],
                yerr=[point.accuracy.half_width or 0.0 for point in placed],
                color=look.colour,
                marker=look.marker,
                markersize=8 if look.marker == "*" else 5,
                elinewidth=0.8,
                capsize=1.5,
                label=label,
            )


def _apart(points: Sequence[Point]) -> dict[Point, float]:
    """Return where points are shown: those of nearly the same cost a little apart."""
    costs = {point: point.cost for point in points if point.cost}
    if not costs:
        return {}
    seen = max(costs.values()) / min(costs.values()) * _margin(list(costs.values())) ** 2
    gap = seen**_GAP
    shown_at = {}
    for point, cost in costs.items():
        near = [other for other, its in costs.items() if cost / gap < its < cost * gap]
        shown_at[point] = cost * gap ** (near.index(point) - (len(near) - 1) / 2)
    return shown_at


def _handles(frame: Axes) -> dict[str, Any]:
    handles, names = frame.get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


def _complete(rows: Sequence[Row], students: set[str]) -> list[Row]:
    """Return the rows of the methods that have a number for every student, and the teacher's."""
    have: dict[str, set[str]] = {}
    for row in rows:
        have.setdefault(row.label, set()).add(row.student)
    return [row for row in rows if have[row.label] >= students or have[row.label] == {"teacher"}]


def _points(rows: Sequence[Row], cost: Cost) -> list[Point]:
    points = []
    for label in labels(rows):
        for budget in dict.fromkeys(row.N for row in rows if row.label == label):
            mine = [row for row in rows if row.label == label and budget == row.N]
            costs = [value for row in mine if (value := cost(row)) is not None]
            if (accuracy := over_students(mine)) is not None:
                mean_cost = fmean(costs) if costs else None
                points.append(Point(label=label, cost=mean_cost, accuracy=accuracy))
    return points

"""Accuracy against cost: a marker for each method, a horizontal line for those without cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from statistics import fmean
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from benchmark.grid import TEACHER, Protocol
from benchmark.reporting.figure import Figure
from benchmark.reporting.order import (
    at,
    describe,
    first_student,
    is_variant,
    labels,
    main_budget,
    main_downstream,
    of_student,
    protocol_of,
    protocols,
    slug,
)
from benchmark.reporting.statistics import Estimate
from benchmark.reporting.style import Look, legend, logarithmic, panels, short
from benchmark.rows import Row

from ._choice import looks_of, over_students


@dataclass(frozen=True, kw_only=True)
class CostAxis:
    """The cost that accuracy is plotted against.

    Attributes:
        name: of the axis.
        unit: of its ticks.
        of: the cost of a row; None where it has none.
        words: formats a cost for a sentence.
    """

    name: str
    unit: str
    of: Callable[[Row], float | None]
    words: Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
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


def tradeoffs(rows: Sequence[Row], cost: CostAxis, *, name: str, notes: str) -> list[Figure]:
    """Return a figure for each number of labels; none if no row has a cost."""
    looks = looks_of(rows)
    return [
        Figure(
            name=f"{name}-{slug(protocol)}",
            title=f"Accuracy against {cost.name}: {describe(protocol)}",
            notes=notes,
            alt=f"Accuracy against {cost.name}. "
            + " ".join(_in_words(panel, cost.words) for panel in found),
            draw=partial(_draw, found, cost, looks),
        )
        for protocol, found in compared(rows, cost.of).items()
    ]


def compared(
    rows: Sequence[Row], cost: Callable[[Row], float | None]
) -> dict[Protocol, list[Panel]]:
    """Return panels for each number of labels: of the first student and, if any, the mean of all.

    They are for the headline probe and the main dataset. Means over students are taken at the main
    budget, for methods with numbers of all students. Panels without any cost are left out.
    """
    dataset = main_downstream(rows)
    rows = [row for row in rows if row.downstream == dataset and not is_variant(row)]
    student = first_student(rows)
    if student is None:
        return {}
    students = {row.student for row in rows} - {TEACHER}
    budget = main_budget(rows)
    lead, _ = protocols(rows)[0]
    found = {}
    for protocol in protocols(rows):
        mine = [row for row in rows if protocol_of(row) == protocol and row.probe == lead]
        parts = {short(student): of_student(mine, student)}
        if len(students) > 1:
            title = f"mean of {len(students)} students{at(budget)}"
            parts[title] = _complete([row for row in mine if row.N in (None, budget)], students)
        both = [Panel(title=title, points=_points(part, cost)) for title, part in parts.items()]
        if kept := [panel for panel in both if any(point.cost for point in panel.points)]:
            found[protocol] = kept
    return found


def _in_words(panel: Panel, words: Callable[[float], str]) -> str:
    """Return the best point of each method of a panel as text, in descending order."""
    best: dict[str, Point] = {}
    for point in sorted(panel.points, key=lambda point: -point.accuracy.mean):
        best.setdefault(point.label, point)
    parts = [
        f"{label} {point.accuracy.mean:.1f} %"
        + ("" if point.cost is None else f" at {words(point.cost)}")
        for label, point in best.items()
    ]
    return f"{panel.title}: {', '.join(parts)}."


def _draw(compared: Sequence[Panel], cost: CostAxis, looks: Mapping[str, Look]) -> figure.Figure:
    """Draw stacked panels with a shared logarithmic cost axis."""
    drawn, axes = panels(len(compared), height=1.6, sharex=True)
    costs = [point.cost for panel in compared for point in panel.points if point.cost]
    margin = max(1.3, (max(costs) / min(costs)) ** 0.1)  # a third, or a tenth of the axis
    for frame, panel in zip(axes, compared, strict=True):
        _draw_points(frame, panel.points, looks)
        frame.set_title(panel.title)
        logarithmic(frame, "x", (min(costs) / margin, max(costs) * margin), unit=cost.unit)
        frame.set_ylabel("top-1 accuracy, %")
        frame.margins(y=0.1)
    axes[-1].set_xlabel(cost.name)
    handles = {label: handle for frame in axes for label, handle in _handles(frame).items()}
    legend(drawn, {label: handles[label] for label in looks if label in handles})
    return drawn


def _draw_points(frame: Axes, points: Sequence[Point], looks: Mapping[str, Look]) -> None:
    """Draw every point at its cost, with open markers so that overlapping ones stay visible."""
    for label in dict.fromkeys(point.label for point in points):
        mine, look = [point for point in points if point.label == label], looks[label]
        for point in mine:
            if point.cost is None:
                level = point.accuracy.mean
                frame.axhline(level, color=look.colour, ls=look.line, zorder=1.5, label=label)
        costly = [(point.cost, point.accuracy) for point in mine if point.cost]
        placed = sorted(costly, key=itemgetter(0))
        if placed:
            _draw_line(frame, placed, look, label)


def _draw_line(
    frame: Axes, placed: Sequence[tuple[float, Estimate]], look: Look, label: str
) -> None:
    """Draw accuracies at their costs: open markers, thin error bars and a thin line."""
    _, caps, bars = frame.errorbar(
        [cost for cost, _ in placed],
        [accuracy.mean for _, accuracy in placed],
        yerr=[accuracy.half_width or 0.0 for _, accuracy in placed],
        color=look.colour,
        linestyle=look.line,
        linewidth=0.7,
        marker=look.marker,
        markersize=look.size,
        markerfacecolor="none",
        markeredgewidth=0.9,
        elinewidth=0.5,
        capsize=1.2,
        capthick=0.5,
        label=label,
    )
    for thin in (*caps, *bars):
        thin.set_alpha(0.6)


def _handles(frame: Axes) -> dict[str, Any]:
    """Return legend handles by name: markers without error bars."""
    handles, names = frame.get_legend_handles_labels()
    marks = (handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles)
    return dict(zip(names, marks, strict=True))


def _complete(rows: Sequence[Row], students: set[str]) -> list[Row]:
    """Return the rows of methods with a number for every student, and the teacher's."""
    have: dict[str, set[str]] = {}
    for row in rows:
        have.setdefault(row.label, set()).add(row.student)
    return [row for row in rows if have[row.label] >= students or have[row.label] == {TEACHER}]


def _points(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Point]:
    """Return a point for each method and budget; a cost of 0 counts as none (logarithmic axes)."""
    points = []
    for label in labels(rows):
        for budget in dict.fromkeys(row.N for row in rows if row.label == label):
            mine = [row for row in rows if row.label == label and budget == row.N]
            costs = [value for row in mine if (value := cost(row))]
            if (accuracy := over_students(mine)) is not None:
                mean_cost = fmean(costs) if costs else None
                points.append(Point(label=label, cost=mean_cost, accuracy=accuracy))
    return points

"""Rows of numbers to rows of a table: which belong together, in which order, and as what text."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmark.rows import Row

from ._published import published
from ._statistics import summarise
from ._table import MISSING, Cell, Table

_ORDER = (
    *("untrained", "random", "random-labels", "random-bytes"),
    *("dsa", "idm", "datm", "krr-st", "pca", "ours", "full", "teacher"),
)

Protocol = tuple[str, int | None]  # a probe and its labels per class


def is_variant(row: Row) -> bool:
    """Say whether a row's method has changed fields and a label of its own (an ablation)."""
    return row.label != row.method


def labels(rows: Iterable[Row]) -> list[str]:
    """Return the labels of rows in the order of the published tables, others after them."""
    seen = dict.fromkeys(row.label for row in rows)
    rank = {label: position for position, label in enumerate(_ORDER)}
    return sorted(seen, key=lambda label: rank.get(label, len(rank)))


def protocols(rows: Iterable[Row]) -> list[Protocol]:
    """Return the pairs of probe and labels per class, the headline (fair, all labels) first."""
    pairs = {(row.probe, row.labels_per_class) for row in rows}
    return sorted(pairs, key=lambda pair: (pair[1] or 0, pair[0] != "fair", pair[0]))


def slug(probe: str, labels_per_class: int | None) -> str:
    """Return a protocol as part of a file's name."""
    return f"{probe}-{labels_per_class or 'all'}"


def describe(probe: str, labels_per_class: int | None) -> str:
    """Return a protocol in words."""
    if probe == "head":
        return "the student's own classifier"
    amount = "all labels" if labels_per_class is None else f"{labels_per_class} labels a class"
    return f"{probe} probe, {amount}"


def conditions(rows: Iterable[Row]) -> str:
    """Return in words what the numbers of a table rest on."""
    bases = sorted({(row.source, row.teacher, row.recipe) for row in rows})
    return "; ".join(
        f"Distilled from {source}, teacher {teacher}, recipe {recipe}"
        for source, teacher, recipe in bases
    )


def at(budget: int | None) -> str:
    """Return a budget as part of a title."""
    return "" if budget is None else f", N = {budget}"


def main_downstream(rows: Sequence[Row]) -> str | None:
    """Return the dataset that tables of one dataset are about: the source, if it was probed on."""
    probed = dict.fromkeys(row.downstream for row in rows)
    return next((row.source for row in rows if row.source in probed), next(iter(probed), None))


def cell(rows: Sequence[Row]) -> Cell:
    """Return mean and interval over seeds, and the published number where there is one."""
    if not rows:
        return MISSING
    summary = summarise([row.value for row in rows])
    text, reference = str(summary), published(rows[0])
    if reference is not None:
        text += f" (paper {reference:.2f}, {summary.mean - reference:+.2f})"
    keys = tuple(row.key for row in rows)
    return Cell(text, value=summary.mean, half_width=summary.half_width, keys=keys)


def grid(
    rows: Sequence[Row],
    columns: Sequence[str],
    column_of: Callable[[Row], str | None],
    *,
    name: str,
    title: str,
    notes: str = "",
) -> list[Table]:
    """Return a table per protocol, one line per label; `name` and `title` are completed by it.

    Args:
        rows: what the tables are made of.
        columns: their headings.
        column_of: says where a row belongs; None is every column.
        name: of all tables, the protocol follows.
        title: likewise.
        notes: of all tables, the conditions precede.
    """
    by_protocol: dict[Protocol, list[Row]] = {protocol: [] for protocol in protocols(rows)}
    for row in rows:
        by_protocol[row.probe, row.labels_per_class].append(row)
    return [
        Table(
            name=f"{name}-{slug(*protocol)}",
            title=f"{title}: {describe(*protocol)}",
            notes=f"{conditions(chosen)}. {notes}".strip(),
            columns=["", *columns],
            body=_body(chosen, columns, column_of),
            headline=protocol == next(iter(by_protocol)),
        )
        for protocol, chosen in by_protocol.items()
    ]


def _body(
    rows: Sequence[Row], columns: Sequence[str], column_of: Callable[[Row], str | None]
) -> list[list[Cell]]:
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        own = column_of(row)
        for column in columns if own is None else (own,):
            cells[row.label, column].append(row)
    return [
        [Cell(label), *(cell(cells[label, column]) for column in columns)] for label in labels(rows)
    ]


def first_student(rows: Iterable[Row]) -> str | None:
    """Return the student of budgets and ablation: the one with the most rows."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.student] += 1
    counts.pop("teacher", None)
    return max(counts, key=lambda student: counts[student]) if counts else None


def main_budget(rows: Iterable[Row]) -> int | None:
    """Return the budget of the cross-architecture table: the one with the most students."""
    students: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if row.N is not None:
            students[row.N].add(row.student)
    return max(students, key=lambda N: len(students[N])) if students else None

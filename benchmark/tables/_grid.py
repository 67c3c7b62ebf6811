"""Rows of numbers to rows of a table: which belong together, in which order, and as what text."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmark.rows import Row

from ._published import published
from ._statistics import summarise
from ._table import Table

_ORDER = (
    *("untrained", "random", "random-labels", "random-bytes"),
    *("dsa", "idm", "datm", "krr-st", "pca", "ours", "full", "teacher"),
)
MISSING = "–"


def is_variant(row: Row) -> bool:
    """Say whether a row's method has changed fields and a label of its own (an ablation)."""
    return row.label != row.method


def labels(rows: Iterable[Row]) -> list[str]:
    """Return the labels of rows in the order of the published tables, others after them."""
    seen = dict.fromkeys(row.label for row in rows)
    rank = {label: position for position, label in enumerate(_ORDER)}
    return sorted(seen, key=lambda label: rank.get(label, len(rank)))


def protocols(rows: Iterable[Row]) -> list[tuple[str, int | None]]:
    """Return the pairs of probe and labels per class, the headline (fair, all labels) first."""
    pairs = {(row.probe, row.labels_per_class) for row in rows}
    return sorted(pairs, key=lambda pair: (pair[1] is not None, pair[0] != "fair", pair[0]))


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


def cell(rows: Sequence[Row]) -> str:
    """Return mean and interval over seeds, and the published number where there is one."""
    if not rows:
        return MISSING
    text = str(summarise([row.value for row in rows]))
    reference = published(rows[0])
    return text if reference is None else f"{text} (paper {reference:.2f})"


def grid(
    rows: Sequence[Row],
    columns: Sequence[str],
    column_of: Callable[[Row], str | None],
    *,
    title: str,
    notes: str = "",
) -> Table:
    """Return a table with one row per label; a row whose column is None stands in every column."""
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        own = column_of(row)
        for column in columns if own is None else (own,):
            cells[row.label, column].append(row)
    body = [[label, *(cell(cells[label, column]) for column in columns)] for label in labels(rows)]
    notes = f"{conditions(rows)}. {notes}".strip()
    return Table(title=title, notes=notes, columns=["", *columns], body=body)


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

"""Rows of numbers to rows of a table: which belong together, in which order, and as what text."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from benchmark.rows import Row

from ._marks import Column, average_ranks, baseline, legend, marks
from ._published import published
from ._statistics import samples_of, summarise
from ._table import MISSING, Cell, Mark, Table, estimated, number

_ORDER = (
    *("untrained", "random", "random-labels", "random-bytes"),
    *("dsa", "idm", "datm", "krr-st", "pca", "ours", "full", "teacher"),
)

Protocol = tuple[str, int | None]  # a probe and its labels per class
_RANKS = "Average rank: of lines with a budget, over the columns that all of these fill."
_C = TypeVar("_C", bound=Hashable)


def is_variant(row: Row) -> bool:
    """Say whether a row's method has changed fields and a label of its own (an ablation)."""
    return row.label != row.method


def labels(rows: Iterable[Row]) -> list[str]:
    """Return the labels of rows in the order of the published tables, others after them."""
    seen = dict.fromkeys(row.label for row in rows)
    rank = {label: position for position, label in enumerate(_ORDER)}
    return sorted(seen, key=lambda label: rank.get(label, len(rank)))


def protocol_of(row: Row) -> Protocol:
    """Return a row's probe and labels per class."""
    return row.probe, row.labels_per_class


def protocols(rows: Iterable[Row]) -> list[Protocol]:
    """Return the pairs of probe and labels per class, the headline (fair, all labels) first."""
    pairs = set(map(protocol_of, rows))
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


def joined(*sentences: str) -> str:
    """Return sentences as one text, empty ones left out."""
    return " ".join(filter(None, sentences))


def at(budget: int | None) -> str:
    """Return a budget as part of a title."""
    return "" if budget is None else f", N = {budget}"


def main_downstream(rows: Sequence[Row]) -> str | None:
    """Return the dataset that tables of one dataset are about: the source, if it was probed on."""
    probed = dict.fromkeys(row.downstream for row in rows)
    return next((row.source for row in rows if row.source in probed), next(iter(probed), None))


def cell(rows: Sequence[Row], mark: Mark = "") -> Cell:
    """Return mean and interval over seeds, and the published number where there is one."""
    estimate = summarise(samples_of(rows))
    if estimate is None:
        return MISSING
    (reference, *others) = {published(row) for row in rows}
    note = ""
    if reference is not None and not others:
        note = f" (paper {reference:.2f}, {estimate.mean - reference:+.2f})"
    return estimated(estimate, [row.key for row in rows], note=note, mark=mark)


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
    tables: list[Table] = []
    for protocol in protocols(rows):
        chosen = [row for row in rows if protocol_of(row) == protocol]
        placed = sort_into(columns, chosen, column_of)
        ranks = average_ranks(list(placed.values()))
        reference = baseline(labels(chosen))
        body = fill(placed, labels(chosen), reference=reference, ranks=ranks)
        marked = legend(body, reference=reference)
        tables.append(
            Table(
                name=f"{name}-{slug(*protocol)}",
                title=f"{title}: {describe(*protocol)}",
                notes=joined(f"{conditions(chosen)}.", notes, marked, _RANKS if ranks else ""),
                columns=["", *columns, *(["average rank"] if ranks else [])],
                body=body,
                headline=not tables,
            )
        )
    return tables


def sort_into(
    columns: Sequence[_C], rows: Sequence[Row], column_of: Callable[[Row], _C | None]
) -> dict[_C, Column]:
    """Return the rows of each column by their labels; those whose column is None are in all."""
    found: dict[_C, dict[str, list[Row]]] = {
        column: {label: [] for label in labels(rows)} for column in columns
    }
    for row in rows:
        own = column_of(row)
        for column in columns if own is None else (own,):
            found[column][row.label].append(row)
    return dict(found)


def fill(
    columns: Mapping[_C, Column],
    names: Sequence[str],
    *,
    reference: str,
    ranks: Mapping[str, float] = MappingProxyType({}),
) -> list[list[Cell]]:
    """Return the lines of labels: a marked number for each column, then the rank if there is any.

    Args:
        columns: rows by label.
        names: labels in the order of the lines.
        reference: whose numbers are the noise that others are, or are not, inside of.
        ranks: of the labels.
    """
    marked = [(column, marks(column, reference=reference)) for column in columns.values()]
    return [
        [
            Cell(label),
            *(cell(column.get(label, ()), found.get(label, "")) for column, found in marked),
            *([number(ranks.get(label), "{:.2f}")] if ranks else []),
        ]
        for label in names
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

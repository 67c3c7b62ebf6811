"""Which rows belong together, in which order, and what they are called."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from benchmark.grid import TEACHER, Protocol
from benchmark.reporting.markdown import unquoted
from benchmark.reporting.published import BUDGET, DATASETS, STUDENTS
from benchmark.rows import Row

_K = TypeVar("_K", bound=Hashable)

_METHODS = (
    *("untrained", "random", "random-labels", "random-bytes"),
    *("dsa", "idm", "datm", "krr-st", "pca", "ours", "full", "teacher"),
)

_HEAD = Protocol("head", None)
# Settings that say how long an outer loop is.
_LENGTHS = {"outer_steps": "outer steps", "num_inner_models": "inner models"}


def is_variant(row: Row) -> bool:
    """Say whether a row is an ablation: its method has changed fields and its own label."""
    return row.label != row.method


def labels(rows: Iterable[Row]) -> list[str]:
    """Return labels: as in published tables, then variants (most changes first), then others."""
    changes: dict[str, int] = defaultdict(int)
    for row in rows:
        changed = len(row.changes.get(row.method, ())) if is_variant(row) else 0
        changes[row.label] = max(changes[row.label], changed)
    return sorted(changes, key=lambda label: (rank(label, _METHODS), -changes[label], label))


def grouped(rows: Iterable[Row], key: Callable[[Row], _K]) -> dict[_K, list[Row]]:
    """Return rows by a key, groups and their rows in the order of the rows."""
    found: dict[_K, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def students(rows: Iterable[Row]) -> list[str]:
    """Return the students of rows, those of the published tables first, without the teacher."""
    found = {row.student for row in rows} - {TEACHER}
    return sorted(found, key=lambda name: (rank(name, STUDENTS), name))


def own_student(row: Row) -> str | None:
    """Return the student of a row; None for the teacher, which every column shows."""
    return None if row.student == TEACHER else row.student


def of_student(rows: Iterable[Row], student: str | None) -> list[Row]:
    """Return the rows of a student, and the teacher's."""
    return [row for row in rows if own_student(row) in (None, student)]


def datasets(rows: Sequence[Row]) -> list[str]:
    """Return what rows were probed on: the source, then datasets as in the published tables."""
    sources = {row.source for row in rows}
    return sorted(
        {row.downstream for row in rows},
        key=lambda name: (name not in sources, rank(name, DATASETS), name),
    )


def rank(name: str, order: Sequence[str]) -> int:
    """Return the place of a name in an order; names that are not in it share the last."""
    return order.index(name) if name in order else len(order)


def identity(row: Row) -> tuple[object, ...]:
    """Return what identifies a number in a table."""
    return row.label, row.N, row.student, row.seed, row.downstream, *protocol_of(row)


def in_order(rows: Sequence[Row], *, every_device: bool = False) -> list[Row]:
    """Return rows in canonical order, whatever the order of their file.

    Of rows with the same identity, the last one counts.

    Args:
        rows: of one report.
        every_device: keep the last row of each device.
    """
    last = {(*identity(row), row.device if every_device else ""): row for row in rows}
    known = labels(rows), students(rows), datasets(rows), protocols(rows)
    label, student, dataset, protocol = ({x: i for i, x in enumerate(part)} for part in known)

    def order(row: Row) -> tuple[int | str, ...]:
        who = label[row.label], row.N or 0, student.get(row.student, -1)
        return *who, dataset[row.downstream], protocol[protocol_of(row)], row.seed, row.device

    return sorted(last.values(), key=order)


def protocol_of(row: Row) -> Protocol:
    """Return a row's probe and labels per class."""
    return Protocol(row.probe, row.labels_per_class)


def protocols(rows: Iterable[Row]) -> list[Protocol]:
    """Return the pairs of probe and labels per class, the headline protocol first.

    That is the students' own classifier if every label with a budget was scored by it, as where
    methods distil labels; else the fair probe on all labels.
    """
    rows = list(rows)
    everyone = {row.label for row in rows if row.N is not None}
    classified = {row.label for row in rows if protocol_of(row) == _HEAD}
    lead = _HEAD if everyone and everyone <= classified else Protocol("fair", None)

    def order(pair: Protocol) -> tuple[object, ...]:
        return pair != lead, pair.labels_per_class or 0, pair.probe != "fair", pair.probe

    return sorted(set(map(protocol_of, rows)), key=order)


def slug(protocol: Protocol) -> str:
    """Return a protocol as part of a file's name."""
    name = re.sub("[^a-z0-9]+", "-", protocol.probe.lower()).strip("-")
    return f"{name or 'probe'}-{protocol.labels_per_class or 'all'}"


def describe(protocol: Protocol) -> str:
    """Return a protocol in words."""
    if protocol == _HEAD:
        return "the student's own classifier"
    return f"{protocol.probe} probe, {labels_seen(protocol.labels_per_class)}"


def labels_seen(labels_per_class: int | None) -> str:
    """Return in words how many labels a probe sees."""
    return "all labels" if labels_per_class is None else f"{labels_per_class} labels a class"


def conditions(rows: Iterable[Row]) -> str:
    """Return the conditions of a table's numbers, and how its scale departs from the published."""
    rows = list(rows)
    bases = sorted({(row.source, row.teacher, row.recipe) for row in rows})
    parts = [
        f"Distilled from {source}, teacher {teacher}, recipe {recipe}"
        for source, teacher, recipe in bases
    ]
    if scale := list(_scale(rows)):
        parts.append(f"not at the published scale: {', '.join(scale)}")
    return unquoted("; ".join(parts))


def _scale(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lengths of outer loops, students and teacher that are not the published ones."""
    for name, words in _LENGTHS.items():
        loops: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            own = row.changes.get(row.method, {})
            if name in own and not is_variant(row):
                loops[str(own[name])].add(row.method)
        for length, methods in sorted(loops.items()):
            yield f"{length} {words} ({', '.join(sorted(methods))})"
    equal = {row.student_steps for row in rows if row.recipe == "equal-steps"}
    yield from (f"{steps} student steps" for steps in sorted(equal - {0}))
    teachers = [row.changes.get("teacher", {}) for row in rows]
    for epochs in sorted({str(own["epochs"]) for own in teachers if "epochs" in own}):
        yield f"{epochs} teacher epochs"


def probed_on(dataset: str | None) -> str:
    """Return in words what the rows of a table were probed on."""
    return f"Probed on {unquoted(dataset or 'nothing')}."


def joined(*sentences: str) -> str:
    """Join sentences, leaving out empty ones."""
    return " ".join(filter(None, sentences))


def at(budget: int | None) -> str:
    """Return a budget as part of a title."""
    return "" if budget is None else f", N = {budget}"


def main_downstream(rows: Sequence[Row]) -> str | None:
    """Return the dataset of single-dataset tables: the source, if it was probed on."""
    return next(iter(datasets(rows)), None)


def first_student(rows: Iterable[Row]) -> str | None:
    """Return the student of the budget and ablation tables: the one with the most rows."""
    rows = list(rows)
    return max(
        students(rows), key=lambda name: sum(row.student == name for row in rows), default=None
    )


def main_budget(rows: Iterable[Row]) -> int | None:
    """Return the budget of the cross-architecture table: the one with the most students.

    Ties go to the most variants (some may not have been run yet), then to the published table's
    budget, then to the smallest.
    """
    students_at, labels_at = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
    for row in rows:
        if row.N is not None:
            students_at[row.N].add(row.student)
            labels_at[row.N].add(row.label)
    return max(
        students_at,
        key=lambda N: (len(students_at[N]), len(labels_at[N]), N == BUDGET, -N),
        default=None,
    )

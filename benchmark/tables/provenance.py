"""Every published number: reproduced, missed, attempted with other settings, or not attempted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.reporting.order import conditions, grouped, in_order
from benchmark.reporting.published import PUBLISHED, TABLES, Place, departures, place_of
from benchmark.reporting.statistics import Estimate, samples_of, summarise
from benchmark.reporting.table import MISSING, Cell, Table, estimated, number
from benchmark.rows import Row

__all__ = ["provenance"]

_TOLERANCE = 1.0  # points of accuracy; the published tables give no variance over seeds
_STATUSES = ("reproduced", "above", "missed", "other settings", "not attempted")


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """The status of one published number; `why` says what prevents a comparison."""

    status: str
    why: str = ""
    ours: Estimate | None = None
    keys: tuple[str, ...] = ()


def provenance(rows: Sequence[Row]) -> list[Table]:
    """Return the counts of statuses in each published table, and then every number."""
    if not rows:
        return []
    by_place = grouped(in_order(rows), place_of)
    attempts = {place: _attempt(place, by_place) for place in PUBLISHED}
    return [_counts(attempts, conditions(rows)), _each(attempts)]


def _attempt(place: Place, by_place: Mapping[Place, Sequence[Row]]) -> _Attempt:
    if place not in by_place:
        return _Attempt(status="not attempted", why=_absence(place, by_place))
    groups = grouped(by_place[place], lambda row: tuple(departures(row)))
    reasons = min(groups, key=lambda reasons: (len(reasons), reasons))
    ours = summarise(samples_of(groups[reasons]))
    keys = tuple(row.key for row in groups[reasons])
    if reasons or ours is None:
        return _Attempt(status="other settings", why="; ".join(reasons), ours=ours, keys=keys)
    gap = ours.mean - PUBLISHED[place]
    status = "reproduced" if abs(gap) <= _TOLERANCE else "above" if gap > 0 else "missed"
    return _Attempt(status=status, ours=ours, keys=keys)


def _absence(place: Place, others: Iterable[Place]) -> str:
    """Return the first part of a place that no row matches."""
    label, N, student, dataset = place
    words = (f"{label} was not run", f"not at N = {N}", f"not with {student}")
    for depth, word in enumerate(words, 1):
        if not any(other[:depth] == place[:depth] for other in others):
            return word
    return f"not probed on {dataset}"


def _counts(attempts: Mapping[Place, _Attempt], conditions: str) -> Table:
    body = []
    for name, places in TABLES.items():
        found = [attempts[place].status for place in places]
        counts = [number(found.count(status), "{}") for status in _STATUSES]
        body.append([Cell(name), number(len(places), "{}"), *counts])
    return Table(
        name="provenance",
        title="Published numbers",
        notes=(
            f"{conditions}. Reproduced: every setting is the published one, and our mean is within "
            f"{_TOLERANCE:g} point of the published number; above and missed: it is further above "
            "or below. Tables of the ICLR 2025 paper; a number may appear in several of them."
        ),
        columns=["", "published", *_STATUSES],
        body=body,
    )


def _each(attempts: Mapping[Place, _Attempt]) -> Table:
    columns = ["", "N", "student", "probed on", "published", "ours", "gap", "status", "why"]
    return Table(
        name="provenance-each",
        title="Published numbers, each",
        notes=(
            "Gaps are in points of accuracy; where settings differ, they compare two different "
            "experiments."
        ),
        columns=columns,
        body=[_line(place, attempt) for place, attempt in attempts.items()],
    )


def _line(place: Place, attempt: _Attempt) -> list[Cell]:
    label, N, student, dataset = place
    gap = None if attempt.ours is None else attempt.ours.mean - PUBLISHED[place]
    return [
        Cell(label),
        number(N, "{}"),
        Cell(student),
        Cell(dataset),
        number(PUBLISHED[place], "{:.2f}"),
        estimated(attempt.ours, attempt.keys),
        number(gap, "{:+.2f}", attempt.keys),
        Cell(attempt.status),
        Cell(attempt.why or MISSING.text),
    ]

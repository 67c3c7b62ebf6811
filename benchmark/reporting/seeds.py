"""Which seeds the numbers of a table are averaged over, and which numbers are exceptions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from benchmark.rows import Row

Seeds = frozenset[int]


def seeds_of(rows: Iterable[Row]) -> Seeds:
    """Return the seeds of rows."""
    return frozenset(row.seed for row in rows)


def usual_seeds(columns: Iterable[Mapping[str, Sequence[Row]]]) -> Seeds:
    """Return the most common set of seeds in a table; of several, the largest.

    Args:
        columns: of the table, each with rows by label.
    """
    counts = Counter(seeds_of(rows) for column in columns for rows in column.values() if rows)
    return max(
        counts, key=lambda seeds: (counts[seeds], len(seeds), sorted(seeds)), default=Seeds()
    )


def exceptions(columns: Iterable[Mapping[str, Sequence[Row]]]) -> str:
    """Return which labels have numbers over other seeds than the usual ones; empty if none has.

    Args:
        columns: of the table, each with rows by label.
    """
    columns = list(columns)
    usual = usual_seeds(columns)
    found: dict[str, dict[Seeds, None]] = defaultdict(dict)
    for column in columns:
        for label, rows in column.items():
            if rows and seeds_of(rows) != usual:
                found[label][seeds_of(rows)] = None
    others = (f"{name} ({'; '.join(map(listed, seeds))})" for name, seeds in found.items())
    if not found:
        return ""
    return f"Means over seeds {listed(usual)}, except where n is given: {', '.join(others)}."


def listed(seeds: Seeds) -> str:
    """Return seeds in words."""
    return ", ".join(map(str, sorted(seeds)))

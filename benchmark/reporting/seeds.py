"""Which seeds the numbers of a table are means over, and which of them are over others."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from benchmark.rows import Row

Seeds = frozenset[int]


def seeds_of(rows: Iterable[Row]) -> Seeds:
    """Return the seeds of rows."""
    return frozenset(row.seed for row in rows)


def usual_seeds(columns: Iterable[Mapping[str, Sequence[Row]]]) -> Seeds:
    """Return the seeds that most numbers of a table share; of several such sets, the largest.

    Args:
        columns: of the table, each the rows of its lines.
    """
    counts = Counter(seeds_of(rows) for column in columns for rows in column.values() if rows)
    return max(
        counts, key=lambda seeds: (counts[seeds], len(seeds), sorted(seeds)), default=Seeds()
    )


def exceptions(columns: Iterable[Mapping[str, Sequence[Row]]]) -> str:
    """Return which lines have numbers over other seeds than the usual ones; nothing if none has.

    Args:
        columns: of the table, each the rows of its lines.
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
    return f"Means over seeds {listed(usual)}; where n is given, over others: {', '.join(others)}."


def listed(seeds: Seeds) -> str:
    """Return seeds in words."""
    return ", ".join(map(str, sorted(seeds)))

"""What every method stores: numbers and bytes, by component, and their compressed size."""

from collections.abc import Sequence

from benchmark.reporting.order import conditions, in_order
from benchmark.reporting.table import MISSING, Cell, Table
from benchmark.rows import Row
from benchmark.spec import COMPONENTS, FLOAT_BYTES

from ._sets import by_set, images, mean, names, one_per_seed

__all__ = ["storage"]

_COMPONENTS = (*COMPONENTS, "other")


def storage(rows: Sequence[Row]) -> list[Table]:
    """Return the size of distilled sets in total and by component; none if nothing was stored."""
    stored = [row for row in in_order(rows) if row.num_numbers is not None]
    if not stored:
        return []
    sets = {key: one_per_seed(mine) for key, mine in by_set(stored).items()}
    tables = [_totals(sets, conditions(stored))]
    if any(row.storage for row in stored):
        tables.append(_parts(sets, conditions(stored)))
    return tables


_Sets = dict[tuple[str, int | None], list[Row]]


def _totals(sets: _Sets, conditions: str) -> Table:
    return Table(
        name="storage",
        title="Storage",
        notes=(
            f"{conditions}. Means over seeds. The file has the tensors and a header that says how "
            "they were made; compressed: size of the tensors after DEFLATE."
        ),
        columns=[
            *("", "N", "images x views", "numbers", "bytes in fp32"),
            *("bytes of tensors", "bytes of file", "bytes compressed"),
        ],
        body=[
            [
                *names(*key),
                images(mine[0]),
                mean(mine, lambda row: row.num_numbers, "{:,.0f}"),
                mean(mine, lambda row: FLOAT_BYTES * (row.num_numbers or 0), "{:,.0f}"),
                mean(mine, lambda row: row.num_bytes, "{:,.0f}"),
                mean(mine, lambda row: row.file_bytes, "{:,.0f}"),
                mean(mine, lambda row: row.compressed_bytes, "{:,.0f}"),
            ]
            for key, mine in sets.items()
        ],
    )


def _parts(sets: _Sets, conditions: str) -> Table:
    present = {name for mine in sets.values() for row in mine for name in row.storage}
    columns = [name for name in _COMPONENTS if name in present]
    columns += sorted(present.difference(_COMPONENTS))
    return Table(
        name="storage-components",
        title="Storage by component",
        notes=f"{conditions}. Numbers and, in parentheses, bytes; means over seeds.",
        columns=["", "N", *columns],
        body=[
            [*names(*key), *(_part(mine, column) for column in columns)]
            for key, mine in sets.items()
        ],
    )


def _part(rows: Sequence[Row], component: str) -> Cell:
    mine = [row for row in rows if component in row.storage]
    if not mine:
        return MISSING
    numbers = mean(mine, lambda row: row.storage[component][0], "{:,.0f}")
    taken = mean(mine, lambda row: row.storage[component][1], "{:,.0f}")
    return Cell(
        f"{numbers.text} ({taken.text})",
        value=numbers.value,
        parts={"bytes": taken.value},
        keys=numbers.keys,
    )

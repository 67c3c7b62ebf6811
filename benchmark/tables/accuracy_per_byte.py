"""What a byte buys: accuracy of the first student beside what its distilled set takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmark.rows import Row

from ._grid import (
    conditions,
    describe,
    first_student,
    is_variant,
    joined,
    main_downstream,
    protocol_of,
    protocols,
    slug,
)
from ._sets import by_set, mean, names
from ._statistics import Estimate, less, samples_of, summarise
from ._table import Cell, Table, estimated, number

__all__ = ["accuracy_per_byte"]

_COLUMNS = (
    *("", "N", "bytes", "compressed", "accuracy", "points per KiB"),
    *("above untrained", "points above per KiB", "on the frontier"),
)
_NOTES = (
    "Bytes are those of the stored tensors; compressed, what DEFLATE leaves of them; per KiB, a "
    "1024th of the former. On the frontier: no line that takes as few bytes is as accurate."
)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One method at one budget."""

    label: str
    rows: Sequence[Row]
    num_bytes: float
    accuracy: Estimate


def accuracy_per_byte(rows: Sequence[Row]) -> list[Table]:
    """Return a table per protocol, a line for each method and budget that stores anything."""
    student, dataset = first_student(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.student == student and row.downstream == dataset and not is_variant(row)
    ]
    tables: list[Table] = []
    for protocol in protocols(chosen):
        mine = [row for row in chosen if protocol_of(row) == protocol]
        lines = _lines(mine)
        if lines:
            untrained = [row for row in mine if row.label == "untrained"]
            tables.append(
                Table(
                    name=f"accuracy-per-byte-{slug(*protocol)}",
                    title=f"Accuracy per byte, {student}: {describe(*protocol)}",
                    notes=joined(f"{conditions(mine)}.", f"Probed on {dataset}.", _NOTES),
                    columns=_COLUMNS,
                    body=[_cells(line, lines, untrained) for line in lines],
                    headline=not tables,
                )
            )
    return tables


def _lines(rows: Sequence[Row]) -> list[_Line]:
    lines = []
    for (label, _), mine in by_set(rows).items():
        sizes = [row.num_bytes for row in mine if row.num_bytes is not None]
        accuracy = summarise(samples_of(mine))
        if sizes and accuracy is not None:
            lines.append(_Line(label=label, rows=mine, num_bytes=fmean(sizes), accuracy=accuracy))
    return lines


def _cells(line: _Line, lines: Sequence[_Line], untrained: Sequence[Row]) -> list[Cell]:
    keys = [row.key for row in line.rows]
    gain = summarise(less(samples_of(line.rows), samples_of(untrained)))
    kib = line.num_bytes / 1024
    return [
        *names(line.label, line.rows[0].N),
        number(line.num_bytes, "{:,.0f}", keys),
        mean(line.rows, lambda row: row.compressed_bytes, "{:,.0f}"),
        estimated(line.accuracy, keys),
        number(line.accuracy.mean / kib, "{:.3g}", keys),
        estimated(gain, keys, sign="+"),
        number(gain.mean / kib if gain else None, "{:+.3g}", keys),
        Cell("yes" if _is_on_the_frontier(line, lines) else "no"),
    ]


def _is_on_the_frontier(line: _Line, lines: Sequence[_Line]) -> bool:
    return not any(
        other.num_bytes <= line.num_bytes
        and other.accuracy.mean >= line.accuracy.mean
        and (other.num_bytes, other.accuracy.mean) != (line.num_bytes, line.accuracy.mean)
        for other in lines
    )

"""Accuracy per byte: accuracy of the first student, and the size of its distilled set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmark.reporting.marks import Column, baseline, judged, legend
from benchmark.reporting.order import (
    conditions,
    describe,
    first_student,
    in_order,
    is_variant,
    joined,
    labels,
    main_downstream,
    probed_on,
    protocol_of,
    protocols,
    slug,
)
from benchmark.reporting.ranks import DECIMALS, Ranks, average_ranks
from benchmark.reporting.seeds import Seeds, seeds_of, usual_seeds
from benchmark.reporting.statistics import Estimate, less, samples_of, summarise
from benchmark.reporting.table import Cell, Mark, Table, estimated, number
from benchmark.rows import Row

from ._accuracy import sort_into
from ._sets import by_set, mean, names

__all__ = ["accuracy_per_byte"]

_COLUMNS = (
    *("", "N", "bytes", "compressed", "accuracy", "points per KiB"),
    *("above untrained", "points above per KiB", "on the frontier"),
)
_NOTES = (
    "Bytes: size of the stored tensors; compressed: their size after DEFLATE. Points per KiB refer "
    "to the former (1 KiB = 1024 bytes). On the frontier: Pareto-optimal, as no other row has "
    "at least its accuracy in at most as many bytes."
)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One method at one budget; `mark` and `p` compare its accuracy within that budget."""

    label: str
    N: int | None
    rows: Sequence[Row]
    num_bytes: float
    accuracy: Estimate
    mark: Mark
    p: float | None

    def per_kib(self, points: float) -> float | None:
        """Return points per stored KiB; None if nothing is stored."""
        return 1024 * points / self.num_bytes if self.num_bytes else None


def accuracy_per_byte(rows: Sequence[Row]) -> list[Table]:
    """Return a table per protocol, with a row for each method and budget that stores anything."""
    rows = in_order(rows)
    student, dataset = first_student(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.student == student and row.downstream == dataset and not is_variant(row)
    ]
    tables: list[Table] = []
    for protocol in protocols(chosen):
        mine = [row for row in chosen if protocol_of(row) == protocol]
        stored = [row for row in mine if row.num_bytes is not None]
        reference = baseline(labels(stored))
        budgets = _budgets(stored)
        lines = _lines(stored, budgets, reference=reference)
        if not lines:
            continue
        untrained = [row for row in mine if row.label == "untrained"]
        ranks, usual = _ranks(lines, budgets), usual_seeds(budgets.values())
        body = [
            [
                *_cells(line, lines, untrained, usual=usual),
                *ranks.cells(line.label if line.N else ""),
            ]
            for line in lines
        ]
        tested = {
            **{f"N = {N}": column for N, column in budgets.items()},
            **sort_into(["no budget"], [r for r in stored if r.N is None], lambda row: None),
        }
        marked = legend(body, tested, reference=reference, place="at the same budget")
        tables.append(
            Table(
                name=f"accuracy-per-byte-{slug(protocol)}",
                title=f"Accuracy per byte, {student}: {describe(protocol)}",
                notes=joined(
                    f"{conditions(mine)}.",
                    probed_on(dataset),
                    _NOTES,
                    marked,
                    ranks.note,
                    "Ranks are by points per KiB." if ranks.of else "",
                ),
                columns=[*_COLUMNS, *ranks.headings],
                body=body,
                headline=not tables,
            )
        )
    return tables


def _budgets(rows: Sequence[Row]) -> dict[int, Column]:
    """Return the rows of each budget by label."""
    limited = [row for row in rows if row.N is not None]
    sizes = sorted({row.N for row in rows if row.N is not None})
    return sort_into(sizes, limited, lambda row: row.N)


def _lines(rows: Sequence[Row], budgets: Mapping[int, Column], *, reference: str) -> list[_Line]:
    verdicts = {N: judged(column, reference=reference) for N, column in budgets.items()}
    lines = []
    for (label, N), mine in by_set(rows).items():
        mark, p = verdicts[N].get(label, ("", None)) if N is not None else ("", None)
        accuracy = summarise(samples_of(mine))
        if accuracy is not None:
            lines.append(
                _Line(
                    label=label,
                    N=N,
                    rows=mine,
                    num_bytes=fmean(row.num_bytes or 0 for row in mine),
                    accuracy=accuracy,
                    mark=mark,
                    p=p,
                )
            )
    return lines


def _ranks(lines: Sequence[_Line], budgets: Mapping[int, Column]) -> Ranks:
    """Return ranks by accuracy per KiB."""
    scores = [
        {
            line.label: {row.seed: line.per_kib(row.value) or 0.0 for row in line.rows}
            for line in lines
            if line.N == N and line.num_bytes
        }
        for N in budgets
    ]
    return average_ranks(scores, noun="budgets")


def _cells(
    line: _Line, lines: Sequence[_Line], untrained: Sequence[Row], *, usual: Seeds
) -> list[Cell]:
    others = seeds_of(line.rows) != usual
    keys = [row.key for row in line.rows]
    gain = summarise(less(samples_of(line.rows), samples_of(untrained)))
    short = gain is not None and (others or gain.n != line.accuracy.n)
    return [
        *names(line.label, line.N),
        number(line.num_bytes, "{:,.0f}", keys),
        mean(line.rows, lambda row: row.compressed_bytes, "{:,.0f}"),
        estimated(
            line.accuracy,
            keys,
            note=f", n = {line.accuracy.n}" if others else "",
            mark=line.mark,
            parts={"p": line.p},
        ),
        number(line.per_kib(line.accuracy.mean), "{:.3g}", keys),
        estimated(gain, keys, sign="+", note=f", n = {gain.n}" if gain and short else ""),
        number(line.per_kib(gain.mean) if gain else None, "{:+.3g}", keys),
        Cell("yes" if _is_on_the_frontier(line, lines) else "no"),
    ]


def _is_on_the_frontier(line: _Line, lines: Sequence[_Line]) -> bool:
    """Say whether every other row has more bytes, or a lower mean, or the same of both."""
    mean = line.accuracy.mean
    ahead = [
        (line.num_bytes - other.num_bytes, round(other.accuracy.mean - mean, DECIMALS))
        for other in lines
    ]
    return not any(min(gains) >= 0 and max(gains) > 0 for gains in ahead)

"""How much a number depends on the probe: `fair` beside `paper`, student by student."""

from collections.abc import Sequence

from scipy.stats import kendalltau

from benchmark.rows import Row

from ._grid import (
    at,
    conditions,
    is_variant,
    joined,
    labels,
    main_budget,
    main_downstream,
    sort_into,
)
from ._marks import Column, contestants, mean_value
from ._statistics import less, samples_of, summarise
from ._table import MISSING, Cell, Table, number

__all__ = ["probe_sensitivity"]

_NOTES = (
    "Accuracy by the fair probe, by the paper probe, and what the latter reads more or less (mean "
    "and 95 % interval over seeds). Rank agreement: Kendall's tau between the orders that the two "
    "probes give the methods that have a budget; 1 is the same order."
)


def probe_sensitivity(rows: Sequence[Row]) -> list[Table]:
    """Return a table for each number of labels that both probes have seen."""
    budget, dataset = main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.downstream == dataset and row.N in (None, budget) and not is_variant(row)
    ]
    amounts = {row.labels_per_class for row in chosen if row.probe == "fair"}
    amounts &= {row.labels_per_class for row in chosen if row.probe == "paper"}
    tables: list[Table] = []
    for amount in sorted(amounts, key=lambda amount: amount or 0):
        mine = [row for row in chosen if row.labels_per_class == amount]
        words = "all labels" if amount is None else f"{amount} labels a class"
        students = list(dict.fromkeys(row.student for row in mine if row.student != "teacher"))
        tables.append(
            Table(
                name=f"probe-sensitivity-{amount or 'all'}",
                title=f"Probe sensitivity{at(budget)}: {words}",
                notes=joined(f"{conditions(mine)}.", f"Probed on {dataset}.", _NOTES),
                columns=["", *(students or ["teacher"])],
                body=_body(mine, students or ["teacher"]),
                headline=not tables,
            )
        )
    return tables


def _body(rows: Sequence[Row], students: Sequence[str]) -> list[list[Cell]]:
    fair, paper = (
        sort_into(
            students,
            [row for row in rows if row.probe == probe],
            lambda row: None if row.student == "teacher" else row.student,
        )
        for probe in ("fair", "paper")
    )
    names = labels(row for row in rows if row.probe in ("fair", "paper"))
    body = [
        [
            Cell(name),
            *(
                _cell(fair[student].get(name, ()), paper[student].get(name, ()))
                for student in students
            ),
        ]
        for name in names
    ]
    agreement = [
        number(_agreement(fair[student], paper[student]), "{:.2f}") for student in students
    ]
    return [*body, [Cell("rank agreement"), *agreement]]


def _cell(fair: Sequence[Row], paper: Sequence[Row]) -> Cell:
    if not fair or not paper:
        return MISSING
    difference = summarise(less(samples_of(paper), samples_of(fair)))
    if difference is None:
        return MISSING
    return Cell(
        f"{mean_value(fair):.2f}, {mean_value(paper):.2f} ({difference:+})",
        value=difference.mean,
        half_width=difference.half_width,
        keys=tuple(row.key for row in (*fair, *paper)),
    )


def _agreement(fair: Column, paper: Column) -> float | None:
    """Return Kendall's tau-b of two orders of methods; None if there is no order to agree on."""
    names = [name for name in contestants(fair) if name in contestants(paper)]
    if len(names) < 2:
        return None
    orders = [[mean_value(column[name]) for name in names] for column in (fair, paper)]
    tau = float(kendalltau(*orders).statistic)
    return None if tau != tau else tau

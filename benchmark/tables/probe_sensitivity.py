"""Sensitivity to the probe: `fair` and `paper` side by side, for every student."""

from collections.abc import Mapping, Sequence

from scipy.stats import kendalltau

from benchmark.grid import TEACHER
from benchmark.reporting.marks import Column, mean_value, scores
from benchmark.reporting.order import (
    at,
    conditions,
    in_order,
    is_variant,
    joined,
    labels,
    labels_seen,
    main_budget,
    main_downstream,
    own_student,
    probed_on,
    students,
)
from benchmark.reporting.ranks import Ranks, Scores, average_ranks, common_means
from benchmark.reporting.seeds import Seeds, exceptions, seeds_of, usual_seeds
from benchmark.reporting.statistics import less, samples_of, summarise
from benchmark.reporting.table import MISSING, Cell, Table, number
from benchmark.rows import Row

from ._accuracy import sort_into

__all__ = ["probe_sensitivity"]

_PROBES = ("fair", "paper")
_NOTES = (
    "Accuracy with the fair probe, with the paper probe, and the latter minus the former (mean and "
    "95 % interval over seeds). Rank agreement: Kendall's tau between the two probes' rankings of "
    "the methods with a budget; 1 means the same ranking."
)


def probe_sensitivity(rows: Sequence[Row]) -> list[Table]:
    """Return a table for each number of labels that both probes were run with."""
    rows = in_order(rows)
    budget, dataset = main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.downstream == dataset
        and row.N in (None, budget)
        and row.probe in _PROBES
        and not is_variant(row)
    ]
    fair, paper = ({row.labels_per_class for row in chosen if row.probe == x} for x in _PROBES)
    tables: list[Table] = []
    for amount in sorted(fair & paper, key=lambda amount: amount or 0):
        mine = [row for row in chosen if row.labels_per_class == amount]
        names = students(mine) or [TEACHER]
        columns = {
            probe: sort_into(names, [row for row in mine if row.probe == probe], own_student)
            for probe in _PROBES
        }
        ranks = {
            probe: average_ranks(list(map(scores, of_probe.values())))
            for probe, of_probe in columns.items()
        }
        tables.append(
            Table(
                name=f"probe-sensitivity-{amount or 'all'}",
                title=f"Probe sensitivity{at(budget)}: {labels_seen(amount)}",
                notes=joined(
                    f"{conditions(mine)}.",
                    probed_on(dataset),
                    _NOTES,
                    exceptions(column for each in columns.values() for column in each.values()),
                    _rank_note({probe: of.note for probe, of in ranks.items()}),
                ),
                columns=["", *names, *_headings(ranks)],
                body=_body(columns, labels(mine), ranks),
                headline=not tables,
                num_summaries=1,
            )
        )
    return tables


def _rank_note(notes: Mapping[str, str]) -> str:
    """Return the note of both ranks, or each with its probe where they differ."""
    if len(set(notes.values())) == 1:
        return notes["fair"]
    return joined(*(f"{probe.capitalize()} probe: {note}" for probe, note in notes.items() if note))


def _headings(ranks: Mapping[str, Ranks]) -> list[str]:
    return [f"{heading}, {probe}" for probe, of in ranks.items() for heading in of.headings]


def _body(
    columns: Mapping[str, Mapping[str, Column]], names: Sequence[str], ranks: Mapping[str, Ranks]
) -> list[list[Cell]]:
    pairs = list(zip(*(columns[probe].values() for probe in _PROBES), strict=True))
    usual = usual_seeds(column for pair in pairs for column in pair)
    body = [
        [
            Cell(name),
            *(_cell(fair.get(name, ()), paper.get(name, ()), usual=usual) for fair, paper in pairs),
            *(cell for of in ranks.values() for cell in of.cells(name)),
        ]
        for name in names
    ]
    agreement = [number(_agreement(*map(scores, pair)), "{:.2f}") for pair in pairs]
    return [*body, [Cell("rank agreement"), *agreement, *(MISSING for _ in _headings(ranks))]]


def _cell(fair: Sequence[Row], paper: Sequence[Row], *, usual: Seeds) -> Cell:
    """Return both accuracies over the common seeds, with their number unless they are `usual`."""
    seeds = seeds_of(fair) & seeds_of(paper)
    fair, paper = ([row for row in rows if row.seed in seeds] for rows in (fair, paper))
    difference = summarise(less(samples_of(paper), samples_of(fair)))
    if difference is None:
        return MISSING
    parts = {
        "paper": mean_value(paper),
        "difference": difference.mean,
        "difference half-width": difference.half_width,
        "n": difference.n,
    }
    return Cell(
        f"{mean_value(fair):.2f}, {mean_value(paper):.2f} ({difference:+})"
        + ("" if seeds == usual else f", n = {difference.n}"),
        value=mean_value(fair),
        parts={name: part for name, part in parts.items() if part is not None},
        keys=tuple(row.key for row in (*fair, *paper)),
    )


def _agreement(fair: Scores, paper: Scores) -> float | None:
    """Return Kendall's tau-b of two rankings of methods; None if it is undefined.

    Both rank means over the seeds that all methods have with both probes.
    """
    names = sorted(fair.keys() & paper.keys())
    both = {(probe, name): of[name] for probe, of in enumerate((fair, paper)) for name in names}
    means = common_means(both)
    if len(names) < 2 or not means:
        return None
    tau = float(kendalltau(*([means[probe, name] for name in names] for probe in (0, 1)))[0])
    return None if tau != tau else tau

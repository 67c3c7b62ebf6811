"""Which rows a figure is about, and their means and intervals over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmark.rows import Row
from benchmark.tables._grid import is_variant, labels, main_budget
from benchmark.tables._statistics import Estimate, mean_of, samples_of, summarise


def sets_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return by label, in the order of tables, one row for each distilled set of the main budget.

    Seeds are in order; methods without a budget, and variants of one, are left out.
    """
    rows = [row for row in rows if row.distilled is not None and not is_variant(row)]
    budget = main_budget(rows)
    found: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row.N is not None and budget == row.N:
            found[row.label].setdefault(row.seed, row)
    return {
        label: [found[label][seed] for seed in sorted(found[label])]
        for label in labels(rows)
        if label in found
    }


def keys(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the keys of the rows' distilled sets, each once."""
    return tuple(dict.fromkeys(row.distilled for row in rows if row.distilled is not None))


def over_students(rows: Iterable[Row]) -> Estimate | None:
    """Return mean accuracy and interval over seeds of the mean over students; None if in no seed.

    Every other setting of the rows is alike.
    """
    of_student: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_student[row.student].append(row)
    return summarise(mean_of([samples_of(mine) for mine in of_student.values()]))


def listed(names: Sequence[str]) -> str:
    """Return names as words: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)

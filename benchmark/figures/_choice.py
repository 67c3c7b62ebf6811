"""Which rows a figure shows, their means and intervals over seeds, and their looks."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from benchmark.reporting.order import grouped, is_variant, labels, main_budget
from benchmark.reporting.statistics import Estimate, mean_of, samples_of, summarise
from benchmark.reporting.stored_sets import MissingSetError
from benchmark.reporting.style import Look, looks
from benchmark.rows import Row


def sets_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return one row for each distilled set of the main budget, by label, in table order.

    Seeds are in order; methods without a budget, and ablation variants, are left out.
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


def looks_of(rows: Iterable[Row]) -> dict[str, Look]:
    """Return the look of every method, the same in all figures of a report."""
    return looks(labels(row for row in rows if not is_variant(row)))


def keys(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the keys of the rows' distilled sets, each once."""
    return tuple(dict.fromkeys(row.distilled for row in rows if row.distilled is not None))


def over_students(rows: Iterable[Row]) -> Estimate | None:
    """Return the mean over students, with its interval over seeds; None without a common seed.

    The rows differ only in student and seed.
    """
    of_student = grouped(rows, lambda row: row.student).values()
    return summarise(mean_of(list(map(samples_of, of_student))))


def drawable(images: Tensor, key: str | None) -> Float[Tensor, "m c h w"]:
    """Return a set's tensor as images, if it has their shape.

    Raises:
        MissingSetError: it cannot be drawn.
    """
    if images.ndim != 4 or not images.numel() or images.shape[1] not in (1, 3):
        shape = "x".join(map(str, images.shape))
        raise MissingSetError(
            f"distilled set {key}: a tensor of {shape} is not grey or colour images"
        )
    return images.float()


def listed(names: Sequence[str]) -> str:
    """Return names as words: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)

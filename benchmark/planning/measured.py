"""Compare measured seconds, from rows, with expected ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmark.planning import keys
from benchmark.planning.prediction import Prediction, Task
from benchmark.rows import Row

LEAST_SECONDS = 1.0  # in total per table row: shorter times say more about clocks than plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The measured tasks of one table row, and their expected seconds.

    Attributes:
        num: number of tasks.
        measured, expected: their total seconds.
    """

    num: int
    measured: int | float
    expected: int | float

    @property
    def ratio(self) -> float | None:
        """Expected over measured seconds; None where either is too small."""
        if self.measured < LEAST_SECONDS or not self.expected:
            return None
        return self.expected / self.measured


def measured_seconds(rows: Iterable[Row]) -> dict[keys.Key, float]:
    """Return the seconds of every stage that rows record, once each, by the key of its task.

    Rows that share a distilled set, a student, or features have the same seconds for it.
    """
    found: dict[keys.Key, float] = {}
    for row in rows:
        cell = row.label, row.N, row.seed
        found[keys.distillation(*cell)] = row.distill_seconds
        found[keys.pretraining(*cell, row.student)] = row.pretrain_seconds
        features = keys.features(*cell, row.student, row.downstream)
        found[features] = row.features_seconds
        found[keys.probe(features, row.probe, row.labels_per_class)] = row.probe_seconds
    return found


def compare(prediction: Prediction, rows: Sequence[Row]) -> dict[tuple[str, str], Line]:
    """Return the measured tasks of each table row, by stage and row."""
    measured, found = measured_seconds(rows), dict[tuple[str, str], list[Task]]()
    for task in prediction.tasks:
        if task.key in measured and task.seconds is not None:
            found.setdefault((task.stage, task.line), []).append(task)
    return {
        place: Line(
            num=len(tasks),
            measured=sum(measured[task.key] for task in tasks),
            expected=sum((task.seconds or 0) + task.charged for task in tasks),
        )
        for place, tasks in found.items()
    }


def summary(lines: Mapping[tuple[str, str], Line]) -> str:
    """Return a sentence on how accurate a plan was."""
    off = {place: max(ratio, 1 / ratio) for place, line in lines.items() if (ratio := line.ratio)}
    if not off:
        return "No row of the plan was measured for a second or more."
    worst = max(off, key=lambda place: off[place])
    compared = [line for place, line in lines.items() if place in off]
    total = sum(line.expected for line in compared) / sum(line.measured for line in compared)
    return (
        f"Over the {len(off)} rows with at least {LEAST_SECONDS:g} measured seconds, expected and "
        f"measured times differ by a median factor of {median(off.values()):.2f}, and by at most "
        f"{off[worst]:.2f} ({worst[0]}, {worst[1]}); the expected total is {total:.2f} times the "
        "measured one."
    )

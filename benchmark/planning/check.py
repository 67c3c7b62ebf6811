"""What stages took, as rows tell, beside what was expected of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmark.planning import keys
from benchmark.planning.prediction import Prediction, Task
from benchmark.rows import Row

LEAST_SECONDS = 1.0  # that all of a line took together: less says more of clocks than of plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Tasks of one line that were measured, and what was expected of these.

    Attributes:
        num: how many.
        measured, expected: seconds of all of them.
    """

    num: int
    measured: int | float
    expected: int | float

    @property
    def ratio(self) -> float | None:
        """Expected for measured; None where there is too little of either."""
        if self.measured < LEAST_SECONDS or not self.expected:
            return None
        return self.expected / self.measured


def measured_seconds(rows: Iterable[Row]) -> dict[keys.Key, float]:
    """Return the seconds of every stage that rows tell of, each once, by the key of its task.

    Several rows share a distilled set, a student, or features; what is shared has the same seconds
    in each of them.
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
    """Return what was measured of each line, by stage and line."""
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


def errors(lines: Mapping[tuple[str, str], Line]) -> dict[tuple[str, str], float]:
    """Return how far each line is off: the larger of expected and measured, for the smaller."""
    ratios = {place: line.ratio for place, line in lines.items()}
    return {place: max(ratio, 1 / ratio) for place, ratio in ratios.items() if ratio}


def summary(lines: Mapping[tuple[str, str], Line]) -> str:
    """Return in words how good a plan was."""
    off = errors(lines)
    if not off:
        return "No line of the plan was measured for a second or more."
    worst = max(off, key=lambda place: off[place])
    compared = [line for place, line in lines.items() if place in off]
    total = sum(line.expected for line in compared) / sum(line.measured for line in compared)
    return (
        f"Of {len(off)} lines that were measured for {LEAST_SECONDS:g} s or more in all, expected "
        f"and measured seconds differ by a factor of {median(off.values()):.2f} in the median, and "
        f"of {off[worst]:.2f} at worst ({worst[0]}, {worst[1]}); together they were expected to "
        f"take {total:.2f} times what they took."
    )

"""What every method costs: seconds and peak memory of each stage, on each device."""

from collections.abc import Sequence
from math import fsum

from benchmark.reporting.markdown import unquoted
from benchmark.reporting.order import conditions, first_student, in_order, of_student
from benchmark.reporting.table import Cell, Table, number
from benchmark.rows import Row

from ._sets import by_set, mean, names, one_per_seed

__all__ = ["cost"]

_COLUMNS = (
    *("", "N", "device", "distil, s", "distil, MiB", "student steps"),
    *("pretrain, s", "pretrain, MiB", "features, s", "features, MiB", "probes, s"),
)


def cost(rows: Sequence[Row]) -> list[Table]:
    """Return one table with a row for each method, budget and device: means over seeds."""
    student = first_student(in_order(rows))
    chosen = of_student(in_order(rows, every_device=True), student)
    if not chosen:
        return []
    teacher = ", ".join(
        f"{seconds:,.0f} s" for seconds in sorted({r.teacher_seconds for r in chosen})
    )
    notes = (
        f"{conditions(chosen)}. Means over seeds. Pretraining the teacher, not counted here, took "
        f"{teacher} on a device that is not recorded. Pretraining, features and probes are for one "
        f"{unquoted(student or 'network')}: the features of all datasets, and all probes on them. "
        "Peak memory on a GPU is that of allocated tensors. On a CPU it is that of the whole "
        "process, which does not distinguish methods. A seed that ran on several devices is listed "
        "for each; a set or student that was made on one device and probed on another is counted "
        "for the latter."
    )
    body = [
        [*names(*key), *_line([row for row in mine if row.device == device])]
        for key, mine in by_set(chosen).items()
        for device in sorted({row.device for row in mine})
    ]
    return [Table(name="cost", title="Cost", notes=notes, columns=_COLUMNS, body=body)]


def _line(rows: Sequence[Row]) -> list[Cell]:
    once = one_per_seed(rows)
    one_per_dataset = list({(row.seed, row.downstream): row for row in rows}.values())
    return [
        Cell(rows[0].device),
        mean(once, lambda row: row.distill_seconds, "{:,.1f}"),
        mean(once, lambda row: row.distill_peak_mib, "{:,.0f}"),
        mean(once, lambda row: row.student_steps, "{:,.0f}"),
        mean(once, lambda row: row.pretrain_seconds, "{:,.1f}"),
        mean(once, lambda row: row.pretrain_peak_mib, "{:,.0f}"),
        _per_seed([row.features_seconds for row in one_per_dataset], rows),
        mean(one_per_dataset, lambda row: row.features_peak_mib, "{:,.0f}"),
        _per_seed([row.probe_seconds for row in rows], rows),
    ]


def _per_seed(seconds: Sequence[float], rows: Sequence[Row]) -> Cell:
    keys = [row.key for row in rows]
    return number(fsum(seconds) / len({row.seed for row in rows}), "{:,.1f}", keys)

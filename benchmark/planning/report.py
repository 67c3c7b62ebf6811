"""A plan for readers: its stages, its methods, its total, and how far it was off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from benchmark.planning.check import Line, compare, summary
from benchmark.planning.devices import Device, NamedDevice, ThisDevice, assumptions
from benchmark.planning.prediction import Prediction, Stage, Task, seconds_of
from benchmark.planning.probe_cost import assumed_steps
from benchmark.provenance import short_commit
from benchmark.reporting.table import MISSING, Cell, Table
from benchmark.rows import Row
from benchmark.timing import CLOCKS

_KIB = 1024
_ORDER = get_args(Stage)
_MULTIPLES = (2, 4, 8)  # of a device, that a plan for one device also tells of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was planned, and for what.

    Attributes:
        command: that made it.
        title: of the suite.
        prediction: what its stages take.
        device: of each worker.
        devices: how many there are; `jobs` run at once on each.
        measured: rows to check the plan against.
        provenance: commit and time, in words.
    """

    command: str
    title: str
    prediction: Prediction
    device: Device
    devices: int = 1
    jobs: int = 1
    measured: Sequence[Row] = ()
    provenance: str = ""

    @property
    def lines(self) -> Mapping[tuple[str, str], Line]:
        """What was measured of each line, on the same device."""
        return compare(self.prediction, self.own_rows)

    @property
    def own_rows(self) -> list[Row]:
        """What was measured on the same device."""
        return [row for row in self.measured if row.device == self.device.reported]


def stage_table(prediction: Prediction, lines: Mapping[tuple[str, str], Line]) -> Table:
    """Return one line for the tasks of a kind, with what was measured of them, if anything."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in prediction.tasks:
        groups.setdefault((task.stage, task.line), []).append(task)
    measured = ("measured each", "expected / measured") if lines else ()
    return Table(
        name="plan-stages",
        title="Stages",
        notes=(
            "Each stage as often as it is run: cells share what they have in common. Memory: of "
            "tensors at the peak; on a CPU that of the process itself comes on top. Disk: of the "
            "store, decoded images apart."
        ),
        columns=("stage", "of", "times", "each", "together", "memory", "disk", *measured),
        body=[
            _line(place, groups[place], lines)
            for place in sorted(groups, key=lambda place: _ORDER.index(place[0]))
        ],
    )


def _line(
    place: tuple[str, str], tasks: Sequence[Task], lines: Mapping[tuple[str, str], Line]
) -> list[Cell]:
    total = seconds_of(tasks)
    known = all(task.seconds is not None for task in tasks)
    cells = [
        Cell(place[0]),
        Cell(place[1]),
        Cell(f"{len(tasks)}", value=len(tasks)),
        _time(total / len(tasks)) if known else Cell("unknown"),
        _time(total) if known else Cell("unknown"),
        _amount(max(task.memory for task in tasks)),
        _amount(sum(task.disk for task in tasks)),
    ]
    if not lines:
        return cells
    line = lines.get(place)
    if line is None:
        return [*cells, MISSING, MISSING]
    ratio = MISSING if line.ratio is None else Cell(f"{line.ratio:.2f}", value=line.ratio)
    return [*cells, _time(line.measured / line.num), ratio]


def method_table(prediction: Prediction) -> Table:
    """Return what every method takes at every budget, all seeds, students and probes together."""
    tasks = [task for task in prediction.tasks if task.label]
    budgets = sorted({task.N for task in tasks if task.N is not None})
    columns: dict[str, list[Task]] = {
        "by-products": [task for task in tasks if task.stage == "by-products"],
        "without budget": [
            task for task in tasks if task.N is None and task.stage != "by-products"
        ],
        **{f"N = {N}": [task for task in tasks if task.N == N] for N in budgets},
    }
    columns = {name: column for name, column in columns.items() if column} | {"all": tasks}
    labels = list(dict.fromkeys(task.label for task in tasks))
    body = [
        [
            Cell(label),
            *(_sum([t for t in column if t.label == label]) for column in columns.values()),
        ]
        for label in labels
    ]
    return Table(
        name="plan-methods",
        title="Methods and budgets",
        notes=(
            "Distillation, students, features and probes of all seeds on one device, one after the "
            "other; by-products, such as experts, are made once. Teacher and representations apart."
        ),
        columns=("method", *columns),
        body=[*body, [Cell("all"), *map(_sum, columns.values())]],
        num_summaries=1,
    )


def _sum(tasks: Sequence[Task]) -> Cell:
    if not tasks:
        return MISSING
    unknown = any(task.seconds is None for task in tasks)
    found = _time(seconds_of(tasks))
    return Cell(f"{found.text} and unknown") if unknown else found


def calibration_table(device: ThisDevice) -> Table:
    """Return what was timed of each network, beside what rates would have said."""
    body, shares = [], []
    for timed in device.calibrations:
        cost = device.networks.cost(timed.architecture, timed.batch, training=timed.training)
        expected = device.roofline.seconds(cost)
        shares.append(expected / timed.seconds)
        layout = "default layout" if timed.architecture.default_layout else ""
        how = [f"{name} {value}" for name, value in timed.architecture.settings]
        settings = ", ".join(filter(None, [*how, timed.architecture.precision, layout]))
        body.append(
            [
                Cell(f"{timed.architecture.model} {settings}".strip()),
                Cell("training" if timed.training else "forward"),
                Cell(f"{timed.batch}", value=timed.batch),
                _time(timed.seconds),
                Cell(f"{shares[-1]:.2f}", value=shares[-1]),
            ]
        )
    return Table(
        name="plan-calibration",
        title="Networks, as timed",
        notes=(
            "The last column is what operators would take by the rates of this device alone, "
            "relative to what was timed; what is missing of 1 is what norms, depthwise "
            f"convolutions and small shapes add. Its median is {median(shares or [1.0]):.2f}."
        ),
        columns=("network", "pass", "images", "seconds", "by rates / timed"),
        body=body,
    )


def totals(plan: Plan) -> str:
    """Return in words what all of it takes."""
    found, workers = plan.prediction, plan.devices * plan.jobs
    made_once = [task for task in found.tasks if task.stage == "by-products"]
    cells = [task for task in found.tasks if task not in (*found.shared, *made_once)]
    longest = max(map(seconds_of, found.chains.values()), default=0.0)
    disk = sum(task.disk for task in found.tasks)
    parts = [
        f"Teacher and representations, which all wait for: {_words(seconds_of(found.shared))}.",
        f"By-products, made once: {_words(seconds_of(made_once))}." if made_once else "",
        f"{len(found.chains)} cells: {_words(seconds_of(cells))} one after the other, the longest "
        f"with its by-products {_words(longest)}.",
        f"In all on {_workers(plan)}: {_words(found.wall_seconds(workers))}{_more(plan)}; "
        f"disk {_amount(disk).text}.",
    ]
    parts.append(_too_large(plan.device.networks.max_memory, found))
    if found.unknown:
        parts.append(f"Unknown, and not counted: {', '.join(found.unknown)}.")
    if found.refused:
        parts.append(
            f"{len(found.refused)} cells are refused by their methods, the first: "
            f"{next(f'{cell}: {reason}' for cell, reason in found.refused.items())}."
        )
    return " ".join(filter(None, parts))


def _more(plan: Plan) -> str:
    """Return what more devices than one would take."""
    if plan.devices > 1:
        return ""
    walls = [_words(plan.prediction.wall_seconds(n * plan.jobs)) for n in _MULTIPLES]
    return f" (on {', '.join(map(str, _MULTIPLES))} of them {', '.join(walls)})"


def _too_large(max_memory: int | None, found: Prediction) -> str:
    """Return in words what takes more memory than a stage may, though all that can is split."""
    if max_memory is None:
        return ""
    large = [f"{task.stage} {task.line}" for task in found.tasks if task.memory > max_memory]
    if not large:
        return ""
    return (
        f"More than the {_amount(max_memory).text} that a stage may take, with batches and draws "
        "in chunks, but those of training with batch normalisation whole: "
        f"{'; '.join(dict.fromkeys(large))}."
    )


def _workers(plan: Plan) -> str:
    devices = "one device" if plan.devices == 1 else f"{plan.devices} devices"
    return devices if plan.jobs == 1 else f"{devices}, {plan.jobs} cells at once on each"


def basis(plan: Plan) -> str:
    """Return in words what the seconds rest on."""
    steps = assumed_steps(plan.device.networks.new_network.precision)
    if isinstance(plan.device, NamedDevice):
        return f"Expected for {plan.device.name}, not measured: {assumptions()}. {steps}"
    clock = ""
    if isinstance(plan.device, ThisDevice):
        clock = f" ({CLOCKS[plan.device.clock.name]})"
    return (
        f"Calibrated on {plan.device.name}: each network was timed on a batch{clock}, the rest "
        f"goes by measured rates. {steps}"
    )


def checked(plan: Plan) -> str:
    """Return in words how the plan compares with rows, or why it cannot be compared."""
    others = sorted({row.device for row in plan.measured} - {row.device for row in plan.own_rows})
    if not plan.measured:
        return ""
    if others and not plan.lines:
        return (
            f"The rows are of {', '.join(others)}, this plan is for {plan.device.name}: they are "
            "not compared."
        )
    left_out = f" Rows of {', '.join(others)} are left out." if others else ""
    commits = sorted({short_commit(row.provenance["commit"]) for row in plan.own_rows})
    return (
        f"{summary(plan.lines)} Rows tell the wall's time, with whatever ran beside, of the code "
        f"of commit {', '.join(commits)}.{left_out}"
    )


def text(plan: Plan) -> str:
    """Return what is printed: stages, totals, and what they rest on."""
    parts = [
        stage_table(plan.prediction, plan.lines).markdown(),
        totals(plan),
        basis(plan),
        checked(plan),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def document(plan: Plan) -> str:
    """Return the whole plan in Markdown."""
    parts = [
        f"# Plan: {plan.title}",
        f"Made by `{plan.command}`. {basis(plan)} {plan.provenance}".strip(),
        totals(plan),
        checked(plan),
        method_table(plan.prediction).markdown(),
        stage_table(plan.prediction, plan.lines).markdown(),
    ]
    if isinstance(plan.device, ThisDevice):
        parts.append(calibration_table(plan.device).markdown())
    return "\n\n".join(filter(None, parts)) + "\n"


def _time(seconds: int | float) -> Cell:
    return Cell(_words(seconds), value=seconds)


def _words(seconds: int | float) -> str:
    for unit, size, least in (("h", 3600.0, 7200.0), ("min", 60.0, 120.0), ("s", 1.0, 1.0)):
        if seconds >= least:
            return (
                f"{seconds / size:,.3g} {unit}"
                if seconds / size < 1000
                else f"{seconds / size:,.0f} {unit}"
            )
    return f"{1e3 * seconds:.3g} ms"


def _amount(num_bytes: int | float) -> Cell:
    for unit, power in (("GiB", 3), ("MiB", 2)):
        if num_bytes >= _KIB**power:
            return Cell(f"{num_bytes / _KIB**power:.3g} {unit}", value=num_bytes)
    return Cell(f"{num_bytes / _KIB:.3g} KiB", value=num_bytes)

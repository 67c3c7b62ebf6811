"""The report of a plan: stages, methods, totals, and its error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmark.planning.calibration import ThisDevice
from benchmark.planning.devices import Device, assumptions
from benchmark.planning.keys import STAGES
from benchmark.planning.measured import Line, compare, summary
from benchmark.planning.prediction import Prediction, Task, seconds_of
from benchmark.planning.probe_cost import assumed_steps
from benchmark.provenance import same_device, short_commit
from benchmark.reporting.table import MISSING, Cell, Table
from benchmark.rows import Row
from benchmark.timing import CLOCKS

_KIB = 1024
_MULTIPLES = (2, 4, 8)  # numbers of devices that a plan for one device also covers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan and its conditions.

    Attributes:
        prediction: the cost of its stages.
        device: of each worker.
        devices: their number; `jobs` cells run at once on each.
        measured: rows to compare the plan with.
    """

    prediction: Prediction
    device: Device
    devices: int = 1
    jobs: int = 1
    measured: Sequence[Row] = ()

    @property
    def lines(self) -> Mapping[tuple[str, str], Line]:
        """The measured tasks of each table row, on the same device."""
        return compare(self.prediction, self.own_rows)

    @property
    def own_rows(self) -> list[Row]:
        """Rows measured on the same device."""
        return [row for row in self.measured if same_device(row.device, self.device.reported)]


def stage_table(prediction: Prediction, lines: Mapping[tuple[str, str], Line]) -> Table:
    """Return a table with a row for each kind of task, and its measured time, if any."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in prediction.tasks:
        groups.setdefault((task.stage, task.line), []).append(task)
    captured = any(task.eager_seconds is not None for task in prediction.tasks)
    graphs = ("each without CUDA graphs",) if captured else ()
    measured = ("measured each", "expected / measured") if lines else ()
    return Table(
        name="plan-stages",
        title="Stages",
        notes=(
            "Every stage as often as it runs: cells share common stages. Memory: peak of tensors; "
            "on a CPU, that of the process itself comes on top. Disk: use of the store, without "
            "decoded images. Imports, decoding of images, and the report are not counted."
        ),
        columns=("stage", "of", "times", "each", "together", *graphs, "memory", "disk", *measured),
        body=[
            _line(place, groups[place], lines, captured=captured)
            for place in sorted(groups, key=lambda place: STAGES.index(place[0]))
        ],
    )


def _line(
    place: tuple[str, str],
    tasks: Sequence[Task],
    lines: Mapping[tuple[str, str], Line],
    *,
    captured: bool,
) -> list[Cell]:
    total = seconds_of(tasks)
    known = all(task.seconds is not None for task in tasks)
    cells = [
        Cell(place[0]),
        Cell(place[1]),
        Cell(f"{len(tasks)}", value=len(tasks)),
        _time(total / len(tasks)) if known else Cell("unknown"),
        _time(total) if known else Cell("unknown"),
        *([_eager(tasks)] if captured else []),
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


def _eager(tasks: Sequence[Task]) -> Cell:
    eager = [task.eager_seconds for task in tasks if task.eager_seconds is not None]
    return _time(sum(eager) / len(tasks)) if len(eager) == len(tasks) else MISSING


def method_table(prediction: Prediction) -> Table:
    """Return the cost of every method at every budget: all seeds, students and probes together."""
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
            "Distillation, students, features and probes of all seeds, run sequentially on one "
            "device; by-products, such as experts, are made once. Without the teacher and its "
            "representations."
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
    """Return the measured time of each network, and its ratio to the time expected by rates."""
    body, shares = [], []
    for timed in device.calibrations:
        cost = device.networks.cost(timed.architecture, timed.batch, training=timed.training)
        expected = device.roofline.seconds(cost, captured=timed.captured)
        shares.append(expected / timed.seconds)
        layout = "default layout" if timed.architecture.default_layout else ""
        kind = "training" if timed.training else "forward"
        how = [f"{name} {value}" for name, value in timed.architecture.settings]
        settings = ", ".join(filter(None, [*how, timed.architecture.precision, layout]))
        body.append(
            [
                Cell(f"{timed.architecture.model} {settings}".strip()),
                Cell(kind + ", replayed" * timed.captured),
                Cell(f"{timed.batch}", value=timed.batch),
                _time(timed.seconds),
                Cell(f"{shares[-1]:.2f}", value=shares[-1]),
            ]
        )
    return Table(
        name="plan-calibration",
        title="Networks, as timed",
        notes=(
            "The last column is the time that operators would take by the rates of this device "
            "alone, relative to the measured time; the remainder up to 1 is the overhead of norms, "
            f"depthwise convolutions and small shapes. Its median is {median(shares or [1.0]):.2f}."
        ),
        columns=("network", "pass", "images", "seconds", "by rates / timed"),
        body=body,
    )


def totals(plan: Plan) -> str:
    """Return the totals in words."""
    found, workers = plan.prediction, plan.devices * plan.jobs
    made_once = [task for task in found.tasks if task.stage == "by-products"]
    cells = [task for task in found.tasks if task not in (*found.shared, *made_once)]
    longest = max(map(seconds_of, found.chains.values()), default=0.0)
    disk = sum(task.disk for task in found.tasks)
    parts = [
        f"Teacher and representations, needed first: {_words(seconds_of(found.shared))}.",
        f"By-products, made once: {_words(seconds_of(made_once))}." if made_once else "",
        f"{len(found.chains)} cells: {_words(seconds_of(cells))} run sequentially; the longest, "
        f"with its by-products, {_words(longest)}.",
        f"Total on {_workers(plan)}: {_words(found.wall_seconds(workers))}{_more(plan)}; "
        f"disk {_amount(disk).text}.",
    ]
    parts.append(_too_large(plan.device.networks.max_memory, found))
    if found.unknown:
        parts.append(f"Unknown, and not counted: {', '.join(found.unknown)}.")
    if found.refused:
        parts.append(
            f"{len(found.refused)} cells are refused by their methods; the first: "
            f"{next(f'{cell}: {reason}' for cell, reason in found.refused.items())}."
        )
    return " ".join(filter(None, parts))


def _more(plan: Plan) -> str:
    """Return the total time on more than one device."""
    if plan.devices > 1:
        return ""
    walls = [_words(plan.prediction.wall_seconds(n * plan.jobs)) for n in _MULTIPLES]
    return f" (on {', '.join(map(str, _MULTIPLES))} devices: {', '.join(walls)})"


def _too_large(max_memory: int | None, found: Prediction) -> str:
    """Return in words which tasks exceed a stage's memory although everything possible is split."""
    if max_memory is None:
        return ""
    large = [f"{task.stage} {task.line}" for task in found.tasks if task.memory > max_memory]
    if not large:
        return ""
    return (
        f"These exceed the {_amount(max_memory).text} that a stage may take, although batches and "
        "draws are split (except batches that train batch normalisation): "
        f"{'; '.join(dict.fromkeys(large))}."
    )


def _workers(plan: Plan) -> str:
    devices = "one device" if plan.devices == 1 else f"{plan.devices} devices"
    return devices if plan.jobs == 1 else f"{devices}, {plan.jobs} cells at once on each"


def basis(plan: Plan) -> str:
    """Return in words what the seconds are based on."""
    steps = assumed_steps(plan.device.networks.new_network.precision)
    if not isinstance(plan.device, ThisDevice):
        return f"Expected for {plan.device.name}, not measured: {assumptions()}. {steps}"
    clock, shared = plan.device.clock, ""
    if clock.device.type == "cpu" and plan.jobs > 1:
        shared = " Teacher and representations will run on all threads, which is not counted."
    return (
        f"Calibrated on {plan.device.name}: each network was timed on a batch "
        f"({CLOCKS[clock.name]}), and the rest uses measured rates. {steps}{shared}"
    )


def checked(plan: Plan) -> str:
    """Return in words how the plan compares with rows, or why it cannot be compared."""
    others = sorted({row.device for row in plan.measured} - {row.device for row in plan.own_rows})
    if not plan.measured:
        return ""
    if others and not plan.lines:
        return (
            f"The rows are from {', '.join(others)}, this plan is for {plan.device.name}: they are "
            "not compared."
        )
    left_out = f" Rows from {', '.join(others)} are left out." if others else ""
    commits = sorted({short_commit(row.provenance["commit"]) for row in plan.own_rows})
    return (
        f"{summary(plan.lines)} Measured seconds are wall-clock times, including the effect of "
        f"other processes, with the code of commit {', '.join(commits)}.{left_out}"
    )


def text(plan: Plan) -> str:
    """Return the printed text: stages, totals, and their basis."""
    parts = [
        stage_table(plan.prediction, plan.lines).markdown(),
        totals(plan),
        basis(plan),
        checked(plan),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def document(plan: Plan, *, title: str, command: str, provenance: str) -> str:
    """Return the whole plan in Markdown, with the command that made it, commit and time."""
    parts = [
        f"# Plan: {title}",
        f"Made by `{command}`. {basis(plan)} {provenance}",
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

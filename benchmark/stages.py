"""The stages of a cell: each is looked up in the store before it is done, and kept there."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from benchmark import artifacts, rng, rows
from benchmark.changes import changes
from benchmark.cost import Cost, measure
from benchmark.experiment import Experiment
from benchmark.grid import (
    TEACHER,
    Cell,
    Protocol,
    evaluation_of,
    method_of,
    own_recipe,
    probe_of,
    protocols,
    views_of,
)
from benchmark.images import final_probe
from benchmark.loop import CheckpointedLoop, CheckpointError
from benchmark.network import Network
from benchmark.pretrain import pretrain
from benchmark.probing import HeadProbe, LabelledFeatures, ProbeScore, extract, probe
from benchmark.progress import bar
from benchmark.provenance import device_name, provenance
from benchmark.rows import Row
from benchmark.spec import FLOAT_BYTES, Method, Problem, UsageError
from benchmark.stage_keys import (
    by_products_key,
    distilled_settings,
    row_settings,
    student_settings,
)
from benchmark.store import key_of


class OverBudgetError(RuntimeError):
    """A method stored more than its budget allows."""


class RefusedError(UsageError):
    """A method cannot do what it is asked for, such as with so small a budget."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A stored distilled set; its file is all that later stages see of it."""

    key: str
    file: Path
    header: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A pretrained student (or the teacher in its place) and what its pretraining took."""

    network: Network
    header: Mapping[str, Any]


def distill(cell: Cell, experiment: Experiment) -> Distilled:
    """Return the distilled set of a cell.

    Raises:
        RefusedError: the method cannot do with this budget.
        OverBudgetError: it stored more than it may.
        NonFiniteError: its loss stopped being a number.
    """
    method = method_of(experiment.suite, cell.variant)
    settings = distilled_settings(cell, experiment)
    key = key_of(settings)
    folder = experiment.store.folder("distilled", key)
    file = folder / "distilled.safetensors"
    with experiment.store.lock(folder):
        if experiment.suite.recipe == "own":
            _expect_own(cell, method, experiment)
        if not file.exists():
            problem = _problem(cell, method, experiment)
            for view in views_of(method):
                experiment.representations(view)  # the teacher's cost, not the method's
            loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
            with measure(experiment.compute.device) as spent:
                tensors = _distilled_tensors(method, problem, cell.seed, loop)
            header = {
                **settings,
                "shape": astuple(experiment.new_network.shape),
                "storage": artifacts.count_by_component(tensors),
                "num_numbers": artifacts.count_numbers(tensors),
                "num_bytes": artifacts.count_bytes(tensors),
                "compressed_bytes": artifacts.compressed_bytes(tensors),
                "seconds": loop.seconds,
                "peak_memory_mib": spent.peak_memory_mib,
                "history": loop.history,
                "provenance": provenance(experiment.compute.device),
            }
            artifacts.write(file, tensors, header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return Distilled(key=key, file=file, header=artifacts.read_header(file))


def _problem(cell: Cell, method: Method, experiment: Experiment) -> Problem:
    """Return what the method of a cell may see, with a place for its by-products."""
    problem = experiment.problem(N=cell.N, labels=method.supervision == "labels")
    by_products = experiment.store.folder("by-products", by_products_key(cell, experiment))
    return replace(problem, cache=by_products)


def _expect_own(cell: Cell, method: Method, experiment: Experiment) -> None:
    """Ask a method whether its set can be evaluated as published, before it is made or used."""
    try:
        if (ask := getattr(method, "expect_own", None)) is not None:
            loop = CheckpointedLoop(None, description=str(cell))
            ask(_problem(cell, method, experiment), checkpoint=loop)
    except UsageError as error:
        raise RefusedError(f"--recipe own: {error}") from error


def _distilled_tensors(
    method: Method, problem: Problem, seed: int, loop: CheckpointedLoop
) -> dict[str, Tensor]:
    """Return what a method stores, within its budget.

    Raises:
        UsageError: that are no tensors.
    """
    generator = rng.generator("distill", seed, device=problem.device)
    try:
        made: Any = method.distill(problem, generator=generator, checkpoint=loop)
    except CheckpointError:
        raise
    except UsageError as error:
        raise RefusedError(str(error)) from error
    if not isinstance(made, dict) or not all(isinstance(t, Tensor) for t in made.values()):
        raise UsageError(f"{type(method).__name__}.distill: expected a dict of tensors by name")
    tensors: dict[str, Tensor] = made
    for name, tensor in tensors.items():
        if tensor.element_size() > FLOAT_BYTES:
            raise OverBudgetError(
                f"stores {name} as {tensor.dtype}: a number has {FLOAT_BYTES} bytes"
            )
    stored, allowed = {
        "numbers": (artifacts.count_numbers(tensors), problem.num_floats),
        "bytes": (artifacts.count_bytes(tensors), FLOAT_BYTES * problem.num_floats),
        "none": (0, 0),
    }[method.limit]
    if stored > allowed:
        raise OverBudgetError(f"stores {stored} {method.limit}, but {allowed} are allowed")
    return tensors


def pretrained_student(cell: Cell, distilled: Distilled, experiment: Experiment) -> Student:
    """Return the student of a cell, pretrained on what is decoded from the stored file alone.

    Raises:
        NonFiniteError: its loss stopped being a number.
    """
    suite, device = experiment.suite, experiment.compute.device
    settings = student_settings(cell, experiment)
    key = key_of(settings)
    folder = experiment.store.folder("students", key)
    file = folder / "student.safetensors"
    tensors, _ = artifacts.read(distilled.file, device=device)
    data = method_of(suite, cell.variant).decode(tensors, experiment.new_network.shape)
    network = experiment.new_network(
        cell.student,
        1 if data is None else data.targets.shape[2],
        rng.generator("student", cell.student, cell.seed),
        **experiment.student_settings(cell.student),
    )
    if data is not None:
        own = evaluation_of(suite, data)
        network.whitening = own.whitening
        data = replace(data, images=data.images if own.images is None else own.images)
    with experiment.store.lock(folder):
        if not file.exists():
            loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
            steps = 0
            with measure(device) as spent:
                if data is not None:
                    steps = pretrain(
                        network,
                        data,
                        suite.lengths[suite.recipe],
                        recipe=own_recipe(suite, data),
                        generator=rng.generator("pretrain", cell.seed, device=device),
                        checkpoint=loop,
                    )
            header = {
                **settings,
                "steps": steps,
                "objective": None if data is None else data.objective,
                "num_images": None if data is None else data.images.shape[0],
                "num_views": None if data is None else len(data.views),
                "seconds": loop.seconds,
                "peak_memory_mib": spent.peak_memory_mib,
            }
            artifacts.write(file, network.state_dict(), header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    weights, header = artifacts.read(file, device=device)
    network.load_state_dict(weights)
    return Student(network=network.eval(), header=header)


def teacher_as_student(experiment: Experiment) -> Student:
    """Return the teacher in a student's place: what pretraining could reach at best."""
    nothing = dict.fromkeys(("objective", "num_images", "num_views", "peak_memory_mib"))
    return Student(
        network=experiment.teacher.network, header={"steps": 0, "seconds": 0.0, **nothing}
    )


def probe_student(
    cell: Cell,
    distilled: Distilled | None,
    student: Student,
    downstream: str,
    experiment: Experiment,
) -> None:
    """Store a row for each probe and number of labels: here the test split is opened, and last.

    Args:
        cell: what is measured.
        distilled: None if the teacher itself is probed.
        student: its frozen features are probed.
        downstream: name of a dataset.
        experiment: what all cells share.
    """
    missing = [
        protocol
        for protocol in protocols(experiment.suite, cell.variant, downstream)
        if not _has_row(cell, downstream, protocol, experiment)
    ]
    if missing:
        splits, device = experiment.splits(downstream), experiment.compute.device
        with measure(device) as spent, final_probe():
            train, test = (
                LabelledFeatures(
                    features=extract(student.network, split.images),
                    labels=split.labels.to(device),
                    fingerprint=split.fingerprint,
                )
                for split in (splits.train, splits.open_test())
            )
        with bar(total=len(missing), description=f"{cell}: probes on {downstream}") as progress:
            for protocol in missing:
                kind = probe_of(experiment.suite, protocol.probe)
                if isinstance(kind, HeadProbe):
                    score = kind.score(student.network.head, test)
                else:
                    score = probe(
                        train,
                        test=test,
                        num_classes=splits.num_classes,
                        kind=kind,
                        labels_per_class=protocol.labels_per_class,
                        seed=cell.seed,
                        precision=experiment.compute.precision,
                        max_memory=experiment.compute.max_memory,
                    )
                objective = student.header["objective"]
                facts = _costs(distilled, student, spent)
                facts["changes"] = changes(cell, experiment, probe=score.probe, objective=objective)
                row = _row(cell, downstream, score, facts, experiment)
                rows.write(_row_file(cell, downstream, protocol, experiment), [row])
                progress.update()


def is_done(cell: Cell, experiment: Experiment) -> bool:
    """Say whether all rows of a cell are in the store."""
    return experiment.teacher_exists and all(
        _has_row(cell, downstream, protocol, experiment)
        for downstream in experiment.suite.downstream
        for protocol in protocols(experiment.suite, cell.variant, downstream)
    )


def stored_rows(cell: Cell, experiment: Experiment) -> list[Row]:
    """Return the rows of a cell that is done, under the names that this suite gives things."""
    suite = experiment.suite
    names: dict[str, Any] = {
        "context": key_of(experiment.context),
        "suite": suite.name,
        "label": cell.variant.label,
        "source": suite.source,
        "recipe": suite.recipe,
    }
    return [
        replace(
            row,
            **names,
            downstream=downstream,
            provenance={**row.provenance, "flags": suite.flags},
        )
        for downstream in suite.downstream
        for protocol in protocols(suite, cell.variant, downstream)
        for row in rows.read(_row_file(cell, downstream, protocol, experiment))
    ]


def _has_row(cell: Cell, downstream: str, protocol: Protocol, experiment: Experiment) -> bool:
    """Say whether a row is in the store; a test split that no row was made with stays unread."""
    if not _row_folder(cell, downstream, protocol, experiment).exists():
        return False
    file = _row_file(cell, downstream, protocol, experiment)
    return file.exists() and file.stat().st_size > 0


def _row_file(cell: Cell, downstream: str, protocol: Protocol, experiment: Experiment) -> Path:
    folder = _row_folder(cell, downstream, protocol, experiment)
    test = key_of({"test": experiment.splits(downstream).test_fingerprint()})
    return folder / f"{test}.jsonl"


def _row_folder(cell: Cell, downstream: str, protocol: Protocol, experiment: Experiment) -> Path:
    settings = row_settings(cell, downstream, protocol, experiment)
    return experiment.store.folder("rows", key_of({**settings, "fields": rows.FIELDS}))


def _costs(distilled: Distilled | None, student: Student, features: Cost) -> dict[str, Any]:
    """Return what was stored for a number, and what its stages took."""
    kept = distilled if distilled and distilled.header["num_numbers"] else None
    stored = kept.header if kept else {}
    return {
        "distilled": kept and kept.key,
        "storage": stored.get("storage", {}),
        "file_bytes": kept and kept.file.stat().st_size,
        "compressed_bytes": stored.get("compressed_bytes"),
        "num_numbers": stored.get("num_numbers"),
        "num_bytes": stored.get("num_bytes"),
        "num_images": student.header["num_images"],
        "num_views": student.header["num_views"],
        "losses": _falls(distilled.header["history"]) if distilled else {},
        "student_steps": student.header["steps"],
        "distill_seconds": distilled.header["seconds"] if distilled else 0.0,
        "pretrain_seconds": student.header["seconds"],
        "features_seconds": features.seconds,
        "distill_peak_mib": distilled.header["peak_memory_mib"] if distilled else None,
        "pretrain_peak_mib": student.header["peak_memory_mib"],
        "features_peak_mib": features.peak_memory_mib,
    }


def _falls(history: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, list[float]]:
    """Return the means of what each loop logged over its first and its last quarter."""
    falls = {}
    for points in history.values():
        for name in {name for point in points for name in point} - {"step"}:
            values = [point[name] for point in points if name in point]
            quarter = math.ceil(len(values) / 4)
            falls[name] = [fmean(values[:quarter]), fmean(values[-quarter:])]
    return dict(sorted(falls.items()))


def _row(
    cell: Cell, downstream: str, score: ProbeScore, facts: dict[str, Any], experiment: Experiment
) -> Row:
    suite = experiment.suite
    is_teacher = cell.variant.method == TEACHER
    protocol = Protocol(score.probe, score.labels_per_class)
    return Row(
        key=key_of(row_settings(cell, downstream, protocol, experiment)),
        context=key_of(experiment.context),
        suite=suite.name,
        label=cell.variant.label,
        method=cell.variant.method,
        settings={} if is_teacher else asdict(method_of(suite, cell.variant)),
        N=cell.N,
        source=suite.source,
        size=suite.size,
        teacher=experiment.teacher_name,
        teacher_held_out=experiment.teacher.header.held_out,
        teacher_seconds=experiment.teacher.header.seconds,
        student=cell.student,
        student_settings={} if is_teacher else experiment.student_settings(cell.student),
        downstream=downstream,
        recipe=suite.recipe,
        probe=score.probe,
        probe_settings=asdict(probe_of(suite, score.probe)),
        labels_per_class=score.labels_per_class,
        seed=cell.seed,
        value=score.top1,
        draws=list(score.draws),
        strength=score.strength,
        converged=score.converged,
        probe_seconds=score.seconds,
        device=device_name(experiment.compute.device),
        precision=experiment.compute.precision,
        provenance=provenance(experiment.compute.device),
        **facts,
    )

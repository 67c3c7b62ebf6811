"""The numbers of a cell: probes of its student's frozen features, one row per number."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark import rows
from benchmark.changes import changes
from benchmark.cost import Cost, measure
from benchmark.experiment import Experiment
from benchmark.files import lock
from benchmark.grid import TEACHER, Cell, Protocol, method_of, probe_of, protocols
from benchmark.images import final_probe
from benchmark.loop import CheckpointedLoop
from benchmark.probing import HeadProbe, LabelledFeatures, ProbeScore, extract, probe
from benchmark.progress import bar
from benchmark.provenance import device_name, provenance
from benchmark.rows import Row
from benchmark.settings import identity
from benchmark.spec import UsageError
from benchmark.stages.distillation import DistilledSet
from benchmark.stages.keys import codes, evaluation_code, features_inputs, row_inputs
from benchmark.stages.pretraining import Student
from benchmark.store import key_of


@dataclass(frozen=True)
class _Evaluation:
    """The numbers of a cell on one downstream dataset, and where the store keeps them.

    A row is found without reading the test split, unless there is one to be read.
    """

    cell: Cell
    downstream: str
    experiment: Experiment

    def missing(self) -> list[Protocol]:
        """Return the protocols that have no row yet."""
        wanted = protocols(self.experiment.suite, self.cell.variant, self.downstream)
        return [protocol for protocol in wanted if not self._has_row(protocol)]

    def _has_row(self, protocol: Protocol) -> bool:
        folder = self._folder(protocol)
        if not folder.exists():
            return False
        file = folder / self._file_name
        return file.exists() and file.stat().st_size > 0

    def file(self, protocol: Protocol) -> Path:
        """Return where the row of a protocol is kept."""
        return self._folder(protocol) / self._file_name

    def read(self, protocol: Protocol) -> list[Row]:
        """Return the row of a protocol, in a list.

        Raises:
            UsageError: its file is damaged.
        """
        file = self.file(protocol)
        try:
            return rows.read(file)
        except UsageError as error:
            raise UsageError(f"{file}: damaged: delete it to have it recreated") from error

    @property
    def _file_name(self) -> str:
        return f"{key_of({'test': self._test_fingerprint})}.jsonl"

    def key(self, protocol: Protocol) -> str:
        """Return the key of a row."""
        return key_of(self._inputs(protocol))

    def _folder(self, protocol: Protocol) -> Path:
        key = key_of({**self._inputs(protocol), "fields": rows.FIELDS})
        return self.experiment.store.folder("rows", key)

    def _inputs(self, protocol: Protocol) -> dict[str, Any]:
        return row_inputs(self._features_inputs, protocol, self.experiment)

    @cached_property
    def _features_inputs(self) -> dict[str, Any]:
        return features_inputs(self.cell, self.downstream, self.experiment)

    @property
    def features_folder(self) -> Path:
        """Where checkpoints are kept until all rows are there."""
        key = key_of({**self._features_inputs, "test": self._test_fingerprint})
        return self.experiment.store.folder("features", key)

    @property
    def _test_fingerprint(self) -> str:
        return self.experiment.splits(self.downstream).test_fingerprint()

    def row(self, score: ProbeScore, facts: Mapping[str, Any]) -> Row:
        """Return a score as a row, with facts that do not depend on the probe."""
        cell, experiment = self.cell, self.experiment
        suite = experiment.suite
        is_teacher = cell.variant.method == TEACHER
        protocol = Protocol(score.probe, score.labels_per_class)
        return Row(
            key=self.key(protocol),
            context=key_of(experiment.context),
            suite=suite.name,
            label=cell.variant.label,
            method=cell.variant.method,
            settings={} if is_teacher else identity(method_of(suite, cell.variant)),
            N=cell.N,
            source=suite.source,
            size=suite.size,
            teacher=experiment.teacher_name,
            teacher_held_out=experiment.teacher.header.held_out,
            teacher_seconds=experiment.teacher.header.seconds,
            student=cell.student,
            student_settings={} if is_teacher else experiment.student_settings(cell.student),
            downstream=self.downstream,
            recipe=suite.recipe,
            probe=score.probe,
            probe_settings=identity(probe_of(suite, score.probe)),
            labels_per_class=score.labels_per_class,
            seed=cell.seed,
            value=score.top1,
            draws=list(score.draws),
            strength=score.strength,
            converged=score.converged,
            probe_seconds=score.seconds,
            device=device_name(experiment.compute.device),
            precision=experiment.compute.precision,
            provenance={
                **provenance(experiment.compute.device),
                "layout": experiment.compute.layout,
                "code": evaluation_code(),
                **({} if is_teacher else codes(cell, experiment)),
            },
            **facts,
        )


def probe_student(
    cell: Cell,
    distilled: DistilledSet | None,
    student: Student,
    downstream: str,
    experiment: Experiment,
) -> None:
    """Store a row for each probe and number of labels; only here is the test split opened.

    Features and fits that take more than a minute resume after an interruption.

    Args:
        cell: what is measured.
        distilled: None if the teacher itself is probed.
        student: its frozen features are probed.
        downstream: name of a dataset.
        experiment: what all cells share.
    """
    evaluation = _Evaluation(cell, downstream, experiment)
    if not evaluation.missing():
        return
    folder = evaluation.features_folder
    with lock(folder):
        if missing := evaluation.missing():  # another process may have made them
            for row in _probed(evaluation, distilled, student, missing, folder):
                rows.write(evaluation.file(Protocol(row.probe, row.labels_per_class)), [row])
                shutil.rmtree(folder / row.key, ignore_errors=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _probed(
    evaluation: _Evaluation,
    distilled: DistilledSet | None,
    student: Student,
    missing: Sequence[Protocol],
    folder: Path,
) -> Iterator[Row]:
    """Yield a row for each protocol; the checkpoints of fits are kept below `folder`."""
    cell, downstream, experiment = evaluation.cell, evaluation.downstream, evaluation.experiment
    splits, device = experiment.splits(downstream), experiment.compute.device
    new_loop = partial(
        CheckpointedLoop, description=f"{cell}, probed on {downstream}", save_ends=False
    )
    with final_probe():
        test_split = splits.open_test()
    loop = new_loop(folder / "checkpoints")
    with measure(device) as spent:
        train, test = (
            LabelledFeatures(
                features=extract(student.network, split.images, checkpoint=loop, name=name),
                labels=split.labels.to(device),
                fingerprint=split.fingerprint,
            )
            for name, split in (("features", splits.train), ("test features", test_split))
        )
    facts = _costs(distilled, student, replace(spent, seconds=loop.seconds))
    with bar(total=len(missing), description=f"{cell}: probes on {downstream}") as progress:
        for protocol in missing:
            kind = probe_of(experiment.suite, protocol.probe)
            if isinstance(kind, HeadProbe):
                score = kind.score(student.network.head, test)
            else:
                key = evaluation.key(protocol)
                score = probe(
                    train,
                    test=test,
                    num_classes=splits.num_classes,
                    kind=kind,
                    labels_per_class=protocol.labels_per_class,
                    seed=cell.seed,
                    checkpoint=new_loop(folder / key / "checkpoints"),
                    precision=experiment.compute.precision,
                    max_memory=experiment.compute.max_memory,
                )
            objective = student.header["objective"]
            changed = changes(cell, experiment, probe=score.probe, objective=objective)
            yield evaluation.row(score, facts | {"changes": changed})
            progress.update()


def is_done(cell: Cell, experiment: Experiment) -> bool:
    """Say whether all rows of a cell are in the store."""
    return experiment.teacher_origin.exists and not any(
        missing(cell, downstream, experiment) for downstream in experiment.suite.downstream
    )


def missing(cell: Cell, downstream: str, experiment: Experiment) -> list[Protocol]:
    """Return the protocols of a cell on a dataset that have no row in the store."""
    return _Evaluation(cell, downstream, experiment).missing()


def stored_rows(cell: Cell, experiment: Experiment) -> list[Row]:
    """Return the rows of a finished cell, with the names that this suite uses."""
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
            downstream=evaluation.downstream,
            provenance={**row.provenance, "flags": suite.flags},
        )
        for evaluation in (_Evaluation(cell, name, experiment) for name in suite.downstream)
        for protocol in protocols(suite, cell.variant, evaluation.downstream)
        for row in evaluation.read(protocol)
    ]


def _costs(distilled: DistilledSet | None, student: Student, features: Cost) -> dict[str, Any]:
    """Return the storage behind a number, and the cost of its stages."""
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
    """Return means over the first and the last quarter of each loop's log."""
    falls = {}
    for points in history.values():
        for name in {name for point in points for name in point} - {"step"}:
            values = [point[name] for point in points if name in point]
            quarter = math.ceil(len(values) / 4)
            falls[name] = [fmean(values[:quarter]), fmean(values[-quarter:])]
    return dict(sorted(falls.items()))

"""Where a suite's teacher comes from: a file, a checkpoint of solo-learn, or pretraining here."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from benchmark import plugins, rng, solo_learn
from benchmark.compute import Compute
from benchmark.files import content_hash, lock, write_text
from benchmark.grid import TEACHER, TEACHER_MODEL, Suite, teacher_of
from benchmark.loop import CheckpointedLoop
from benchmark.network_factory import NetworkFactory, model_code, model_settings
from benchmark.pretrain_teacher import TeacherPlan, pretrain_teacher, probe_teacher
from benchmark.settings import identity
from benchmark.source_code import code_of
from benchmark.spec import LabelledImages, NonFiniteError, UsageError
from benchmark.store import Store, key_of
from benchmark.teacher import save_teacher, teacher_identity
from benchmark.teacher_file import is_checkpoint, teacher_file


@dataclass(frozen=True, kw_only=True)
class TeacherOrigin:
    """The file of a teacher, which is made when it is first asked for.

    Attributes:
        suite: names the teacher: a kind, a file that ships, or one of the user's.
        store: keeps what is made here.
        compute: where it is made.
        train: the training split of the source.
        images: returns its images on the device.
        new_network: makes the backbone.
        data_settings: what keys cover of the source.
    """

    suite: Suite
    store: Store
    compute: Compute
    train: LabelledImages
    images: Callable[[], UInt8[Tensor, "n c h w"]]
    new_network: NetworkFactory
    data_settings: Mapping[str, Any]

    @property
    def exists(self) -> bool:
        """Whether there is a file, so that using it pretrains nothing."""
        file, make = self._place
        return make is None or file.exists()

    @cached_property
    def file(self) -> Path:
        """The teacher's file."""
        file, make = self._place
        if make is not None:
            with lock(file.parent), self.compute.on_all_threads():
                if not file.exists():
                    make(file)
        return file

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything in the file that representations depend on."""
        return teacher_identity(self.file)

    @cached_property
    def key(self) -> str:
        """Hash of everything that representations depend on, code included."""
        code = model_code(self.identity["model"]), code_of("benchmark.teacher")
        return key_of({**self.identity, "code": code})

    @property
    def history(self) -> list[dict[str, float]]:
        """Log of the teacher's last loop; empty if it was not pretrained here."""
        if self.suite.teacher not in plugins.names("teachers"):
            return []
        text = self.file.with_name("history.json").read_text()
        loops: dict[str, list[dict[str, float]]] = json.loads(text, parse_int=float)
        return next(reversed(loops.values()), [])

    @cached_property
    def _place(self) -> tuple[Path, Callable[[Path], None] | None]:
        """The path of the file, and a function to make it if it can be missing."""
        file = teacher_file(self.suite.teacher)
        if file is None:
            plan = self._plan()
            return self._kept(self._identity_of(plan)), lambda file: self._pretrain(plan, file)
        if is_checkpoint(file):
            made_of = {"checkpoint": content_hash(file), "code": code_of("benchmark.solo_learn")}
            return self._kept(made_of), lambda converted: self._convert(file, converted)
        return file, None

    def _kept(self, settings: Mapping[str, Any]) -> Path:
        """Return the path in the store of a teacher made from the data and `settings`."""
        key = key_of({**settings, **self.data_settings})
        return self.store.folder("teachers", key) / "teacher.safetensors"

    def _plan(self) -> TeacherPlan:
        recipe, given = teacher_of(self.suite), self.suite.settings.get(TEACHER_MODEL, {})
        return TeacherPlan(
            source=self.suite.source,
            kind=self.suite.teacher,
            recipe=recipe,
            model_settings=model_settings(recipe.model, given),
        )

    def _identity_of(self, plan: TeacherPlan) -> dict[str, Any]:
        return {
            "kind": plan.kind,
            "code": plugins.code_of("teachers", plan.kind),
            "pretraining_code": code_of("benchmark.pretrain_teacher"),
            "model_code": model_code(plan.recipe.model),
            "recipe": identity(plan.recipe),
            "model_settings": plan.model_settings,
            **self.compute.teacher_settings,
        }

    def _pretrain(self, plan: TeacherPlan, file: Path) -> None:
        """Pretrain a teacher on the source, and store its log beside it."""
        device = self.compute.device
        checkpoints = file.parent / "checkpoints"
        loop = CheckpointedLoop(checkpoints, description=f"{plan.kind} teacher")
        generator = rng.generator(TEACHER, plan.kind, 0, device=device)
        labels = self.train.labels.to(device)
        with rng.global_stream(generator):
            made = pretrain_teacher(
                plan,
                replace(self.train, images=self.images(), labels=labels),
                self.new_network,
                generator=generator,
                checkpoint=loop,
            )
        write_text(file.with_name("history.json"), json.dumps(loop.history))
        save_teacher(file, made)
        shutil.rmtree(checkpoints, ignore_errors=True)

    def _convert(self, checkpoint: Path, file: Path) -> None:
        """Convert a checkpoint of solo-learn to a teacher file, probed on the source."""
        teacher = solo_learn.read_solo_learn(checkpoint, self.new_network, self.new_network.shape)
        try:
            probed = probe_teacher(teacher, replace(self.train, images=self.images()))
        except NonFiniteError as error:
            raise UsageError(f"{checkpoint}: {error}") from error
        save_teacher(file, probed)
        header = probed.header
        logging.getLogger(__name__).warning(
            f"{checkpoint}: solo-learn's {header.model}, d = {header.d}, {header.steps} steps, "
            f"pretrained on {header.source}; held out: {header.held_out}"
        )

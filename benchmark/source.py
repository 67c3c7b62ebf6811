"""What all cells of a suite share: images, the teacher and its representations, fresh networks."""

import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark import artifacts, plugins, rng
from benchmark.compute import Compute
from benchmark.images import Splits, load_splits
from benchmark.loop import CheckpointedLoop
from benchmark.network_factory import NetworkFactory
from benchmark.plan import TEACHER, Suite
from benchmark.pretrain_teacher import TeacherPlan, pretrain_teacher
from benchmark.settings import replace
from benchmark.spec import Budget, LabelledImages, Problem
from benchmark.store import Store, key_of
from benchmark.teacher import Teacher, load_teacher, save_teacher


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where images come from.

    Attributes:
        root: folder of local copies.
        download: whether missing data may be fetched.
        full_hash: whether the cache of decoded images is checked against the files' content.
    """

    root: Path | None = None
    download: bool = False
    full_hash: bool = False


class Source:
    """A suite's source dataset and teacher on one device, each made when first asked for."""

    def __init__(self, suite: Suite, *, store: Store, compute: Compute, data: DataOptions) -> None:
        self.suite = suite
        self.store = store
        self.compute = compute
        self.data = data
        self._splits: dict[str, Splits] = {}
        self._representations: dict[str, Tensor] = {}

    def splits(self, name: str) -> Splits:
        """Return a dataset; its test split stays closed."""
        if name not in self._splits:
            self._splits[name] = load_splits(
                name,
                size=self.suite.size,
                root=self.data.root,
                cache=self.store.root,
                download=self.data.download,
                full_hash=self.data.full_hash,
            )
        return self._splits[name]

    @property
    def settings(self) -> dict[str, str]:
        """What the keys of all later stages must cover."""
        return {
            "source": self.splits(self.suite.source).train.fingerprint,
            "teacher": self.teacher_key,
            "precision": self.compute.precision,
        }

    @cached_property
    def new_network(self) -> NetworkFactory:
        """Makes networks for the source's images on this device."""
        source = self.splits(self.suite.source)
        return NetworkFactory(
            shape=source.train.shape,
            mean=source.mean,
            std=source.std,
            precision=self.compute.precision,
            memory_format=self.compute.memory_format,
            device=self.compute.device,
        )

    @cached_property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """The source images on the device."""
        return self.splits(self.suite.source).train.images.to(self.compute.device)

    @cached_property
    def teacher(self) -> Teacher:
        """The suite's teacher: a file, shipped or the user's, or pretrained here."""
        return load_teacher(self._teacher_file, self.new_network, self.new_network.shape)

    @cached_property
    def teacher_key(self) -> str:
        """Hash of the teacher's weights."""
        return artifacts.fingerprint(self._teacher_file)

    @cached_property
    def _teacher_file(self) -> Path:
        name = self.suite.teacher
        if name in plugins.names("teachers"):
            return self._pretrained_teacher(name)
        if Path(name).suffix == ".safetensors":
            return Path(name)
        shipped = files("benchmark") / "assets" / f"{name}.safetensors"
        with as_file(shipped) as file:
            if file.exists():
                return file
        raise plugins.unknown("teacher", name, [*plugins.names("teachers"), "FILE.safetensors"])

    def _pretrained_teacher(self, kind: str) -> Path:
        source = self.splits(self.suite.source)
        changes = dict(self.suite.settings.get(TEACHER, {}))
        recipe = replace(TEACHER, plugins.load("teachers", kind)(), changes)
        plan = TeacherPlan(
            source=self.suite.source,
            kind=kind,
            recipe=recipe,
            model_settings=self.suite.settings.get(f"{TEACHER}-model", {}),
        )
        key = key_of(
            {
                "plan": asdict(plan),
                "source": source.train.fingerprint,
                "precision": self.compute.precision,
            }
        )
        folder = self.store.folder("teachers", key)
        file = folder / "teacher.safetensors"
        if not file.exists():
            made = pretrain_teacher(
                plan,
                LabelledImages(
                    images=self.images,
                    labels=source.train.labels.to(self.compute.device),
                    fingerprint=source.train.fingerprint,
                ),
                self.new_network,
                generator=rng.generator(TEACHER, kind, 0, device=self.compute.device),
                checkpoint=CheckpointedLoop(folder / "checkpoints", description=f"{kind} teacher"),
            )
            save_teacher(file, made)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return file

    def representations(self, view: str) -> Float[Tensor, "n d"]:
        """Return the teacher's representations of all source images under a view."""
        if view not in self._representations:
            source = self.splits(self.suite.source)
            key = key_of(
                {
                    "teacher": self.teacher_key,
                    "source": source.train.fingerprint,
                    "view": view,
                    "precision": self.compute.precision,
                }
            )
            file = self.store.folder("representations", key) / "representations.safetensors"
            if not file.exists():
                made = self.teacher.represent_all(self.images, view)
                artifacts.write(file, {"representations": made}, {"view": view})
            tensors, _ = artifacts.read(file, device=self.compute.device)
            self._representations[view] = tensors["representations"]
        return self._representations[view]

    def problem(self, *, N: int | None, labels: bool) -> Problem:
        """Return all that a method may see, its labels only if it is to see them."""
        source = self.splits(self.suite.source)
        return Problem(
            images=self.images,
            representations=self.representations,
            teacher=self.teacher,
            labels=source.train.labels.to(self.compute.device) if labels else None,
            num_classes=source.num_classes if labels else None,
            mean=source.mean,
            std=source.std,
            budget=Budget(N or 0),
            new_network=self.new_network,
            cache=self.store.root / "by-products",
        )

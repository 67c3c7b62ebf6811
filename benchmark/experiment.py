"""What all cells of a suite share: images, teacher, representations, and fresh networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark import artifacts, rng
from benchmark.compute import Compute
from benchmark.files import lock
from benchmark.grid import Suite, recipe_of
from benchmark.images import Splits, load_splits, without_held_out
from benchmark.network_factory import NetworkFactory, model_settings
from benchmark.pretrain import RECIPES
from benchmark.rows import PROTOCOL
from benchmark.spec import Budget, Outline, Problem, UsageError
from benchmark.store import Store, key_of
from benchmark.teacher import Teacher, load_teacher, represent_all
from benchmark.teacher_origin import TeacherOrigin


class Experiment:
    """A suite on one device: its datasets and its teacher, each made when first needed.

    Datasets are looked for below `data_root`; `download` fetches what is missing.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        store: Store,
        compute: Compute,
        data_root: Path | None = None,
        download: bool = False,
    ) -> None:
        self.recreate = partial(
            Experiment, suite, store=store, compute=compute, data_root=data_root, download=download
        )
        self.suite = suite
        self.store = store
        self.compute = compute
        self.data_root = data_root
        self.download = download
        self._splits: dict[str, Splits] = {}
        self._representations: dict[str, Tensor] = {}

    def splits(self, name: str) -> Splits:
        """Return a dataset; its test split stays closed."""
        if name not in self._splits:
            self._splits[name] = load_splits(
                name,
                size=self.suite.size,
                root=self.data_root,
                cache=self.store.root,
                download=self.download,
            )
        return self._splits[name]

    @property
    def _data_settings(self) -> dict[str, Any]:
        source = self.splits(self.suite.source)
        return {
            "protocol": PROTOCOL,
            "source": source.train.fingerprint,
            "mean": source.mean,
            "std": source.std,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What the keys of all later stages must cover."""
        return {
            **self._data_settings,
            "teacher": self.teacher_origin.key,
            **self.compute.settings,
        }

    @property
    def context(self) -> dict[str, Any]:
        """What all rows of one report have in common."""
        return {
            "protocol": PROTOCOL,
            "source": self.splits(self.suite.source).train.fingerprint,
            "size": self.suite.size,
            "teacher": key_of(self.teacher_origin.identity),
            "recipe": self.suite.recipe,
            "length": asdict(self.suite.length),
            "recipes": {name: asdict(recipe_of(self.suite, name)) for name in RECIPES},
        }

    def check(self) -> None:
        """Load the datasets and make each student once.

        Raises:
            UsageError: a dataset or a model is not there, or does not fit the suite's settings.
        """
        for name in (self.suite.source, *self.suite.downstream):
            self.splits(name)
        for name in self.suite.downstream:
            self._check_labels(name)
        for student in self.suite.students:
            settings = self.student_settings(student)
            self.new_network(student, 1, rng.generator("check"), **settings)

    def prepare(self) -> None:
        """Make what every cell needs, so that whatever is missing is told before the run starts.

        Raises:
            UsageError: as in `check`, or there is no such teacher.
        """
        self.check()
        self.representations("identity")

    @property
    def teacher_name(self) -> str:
        """Kind of the teacher, and its source if it differs."""
        header = self.teacher.header
        own = header.fingerprint == self.splits(self.suite.source).train.fingerprint
        return header.kind if own else f"{header.kind} of {header.source}"

    def _check_labels(self, downstream: str) -> None:
        """Refuse a dataset with too few classes or labels, before students are made in vain."""
        splits = self.splits(downstream)
        if splits.num_classes < 2:
            raise UsageError(f"{downstream}: a single class, expected 2 or more to tell apart")
        most = int(splits.train.labels.bincount(minlength=splits.num_classes).min())
        for amount in self.suite.labels_per_class:
            if amount is not None and amount > most:
                raise UsageError(
                    f"{amount} labels a class: the smallest class of {downstream} has {most} "
                    "training images"
                )

    def student_settings(self, student: str) -> dict[str, Any]:
        """Return the suite's settings of a student, as values."""
        return model_settings(student, self.suite.settings.get(student, {}))

    @cached_property
    def new_network(self) -> NetworkFactory:
        """Factory of networks for the source's images on this device."""
        source = self.splits(self.suite.source)
        return NetworkFactory(
            shape=source.train.shape,
            mean=source.mean,
            std=source.std,
            precision=self.compute.precision,
            memory_format=self.compute.memory_format,
            device=self.compute.device,
            max_memory=self.compute.max_memory,
        )

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within the block, a method is given tensors that all cells of a process share.

        Raises:
            UsageError: it changed one in place. All are loaded anew when next needed.
        """
        before = self._versions()
        try:
            yield
        finally:
            changed = [n for n, now in self._versions().items() if now != before.get(n, 0)]
            if changed:
                self._splits.clear()
                self._representations.clear()
                self._forget("images", "teacher")
        if changed:
            raise UsageError(
                f"changes {', '.join(changed)} in place, which all methods share: change a copy"
            )

    def _versions(self) -> dict[str, int]:
        """Return how often each shared tensor was changed in place, and the teacher's mode."""
        network = self.teacher.network
        shared = {
            "images": self.images,
            "labels": self.splits(self.suite.source).train.labels,
            **{f"representations of {view}": x for view, x in self._representations.items()},
            **{f"the teacher's {name}": x for name, x in network.named_parameters()},
            **{f"the teacher's {name}": x for name, x in network.named_buffers()},
            **{
                f"the teacher's statistics {i}": x
                for i, x in enumerate(self.teacher.statistics or ())
            },
        }
        mode = sum(module.training for module in network.modules())
        return {name: x._version for name, x in shared.items()} | {"the teacher's mode": mode}

    def halve_memory(self) -> None:
        """Let every later stage take half as much memory."""
        if self.compute.max_memory is not None:
            self.compute = replace(self.compute, max_memory=self.compute.max_memory // 2)
        self._forget("new_network", "teacher", "teacher_origin")

    def _forget(self, *made: str) -> None:
        """Have cached properties made anew when they are next needed."""
        for name in made:
            self.__dict__.pop(name, None)

    @cached_property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """The source images on the device."""
        return self.splits(self.suite.source).train.images.to(self.compute.device)

    @cached_property
    def teacher_origin(self) -> TeacherOrigin:
        """Where the suite's teacher comes from."""
        source = self.splits(self.suite.source)
        return TeacherOrigin(
            suite=self.suite,
            store=self.store,
            compute=self.compute,
            train=source.train,
            images=lambda: self.images,
            new_network=self.new_network,
            data_settings=self._data_settings,
        )

    @cached_property
    def teacher(self) -> Teacher:
        """The suite's teacher, which is made if there is none yet."""
        return load_teacher(self.teacher_origin.file, self.new_network, self.new_network.shape)

    def representations(self, view: str) -> Float[Tensor, "n d"]:
        """Return the teacher's representations of all source images under a view."""
        if view not in self._representations:
            file = self._representations_file(view)
            with lock(file.parent), self.compute.on_all_threads():
                if not file.exists():
                    made = represent_all(self.teacher, self.images, view)
                    artifacts.write(file, {"representations": made}, {"view": view})
            tensors, _ = artifacts.read(file, device=self.compute.device)
            self._representations[view] = tensors["representations"]
        return self._representations[view]

    def has_representations(self, view: str) -> bool:
        """Say whether these are in the store; the teacher must exist."""
        return self._representations_file(view).exists()

    def _representations_file(self, view: str) -> Path:
        key = key_of(
            {
                "protocol": PROTOCOL,
                "teacher": self.teacher_origin.key,
                "source": self.splits(self.suite.source).train.fingerprint,
                "view": view,
                **self.compute.teacher_settings,
            }
        )
        return self.store.folder("representations", key) / "representations.safetensors"

    def outline(self, *, N: int | None, labels: bool) -> Outline:
        """Return the part of `problem` that is known without the teacher."""
        source = self.splits(self.suite.source)
        sizes = None
        if labels:
            sizes = tuple(source.train.labels.bincount(minlength=source.num_classes).tolist())
        return Outline(
            source=without_held_out(self.suite.source),
            shape=source.train.shape,
            N=N or 0,
            num_images=len(source.train.labels),
            class_sizes=sizes,
            new_network=self.new_network,
        )

    def problem(self, *, N: int | None, labels: bool) -> Problem:
        """Return everything that a method may see, labels only if it uses them."""
        source = self.splits(self.suite.source)

        def representations(view: str) -> Float[Tensor, "n d"]:
            return self.representations(view)  # a bound method would hand over this experiment

        return Problem(
            source=without_held_out(self.suite.source),
            images=self.images,
            representations=representations,
            teacher=self.teacher,
            labels=source.train.labels.to(self.compute.device) if labels else None,
            num_classes=source.num_classes if labels else None,
            mean=source.mean,
            std=source.std,
            budget=Budget(N or 0),
            new_network=self.new_network,
            precision=self.compute.precision,
        )

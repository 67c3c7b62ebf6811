"""From a suite to the expected cost of its stages, before any of them is run.

Methods and teachers count their own work (`spec.Method.forecast`), and the harness counts that of
students; a device says how long it takes. Shared results are planned once, as they are computed
once: students share distilled sets, downstream datasets share students, probes share features.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmark.captured import launches
from benchmark.grid import (
    TEACHER,
    Cell,
    Suite,
    method_of,
    probe_of,
    protocols,
    recipe_of,
    views_of,
)
from benchmark.images import sizes_of, without_held_out
from benchmark.network_factory import model_settings
from benchmark.planning import keys
from benchmark.planning.devices import Device
from benchmark.planning.prediction import Prediction, Task
from benchmark.planning.probe_cost import Probed, probe_bytes, probe_work
from benchmark.planning.teacher import plan_teacher
from benchmark.pretrain import Recipe
from benchmark.probing import BATCH as FEATURES_BATCH
from benchmark.spec import FLOAT_BYTES, Budget, Method, Objective, Problem, UsageError
from benchmark.teacher import BATCH as TEACHER_BATCH
from benchmark.workload import DRAW, Architecture, Forecast, Work

_BESIDES = 20  # operators in a student's step besides the network's: drawing pairs, logging


def predict(suite: Suite, cells: Sequence[Cell], device: Device) -> Prediction:
    """Return the expected cost of a suite's cells on a device.

    Raises:
        UsageError: a dataset, teacher, model or setting is invalid.
    """
    planner = _Planner(suite, device)
    chains, refused = dict[Cell, tuple[Task, ...]](), dict[Cell, str]()
    for cell in cells:
        try:
            chains[cell] = tuple(planner.chain(cell))
        except UsageError as error:
            refused[cell] = " ".join(str(error).split())
    return Prediction(shared=tuple(planner.shared(chains)), chains=chains, refused=refused)


class _Planner:
    """Turns cells into tasks."""

    def __init__(self, suite: Suite, device: Device) -> None:
        self.suite, self.device = suite, device
        self.sizes = {name: sizes_of(name) for name in (suite.source, *suite.downstream)}
        self.source = self.sizes[suite.source]
        self.shape = device.networks.new_network.shape
        self.teacher = plan_teacher(suite, device.networks, self.source)
        self._forecasts: dict[Hashable, Forecast | None] = {}

    @property
    def images_bytes(self) -> int:
        """Bytes of the source images and their representations under the identity view."""
        return self.source.num_train * (self.shape.numel + 4 * self.teacher.d)

    def seconds(self, works: Iterable[Work]) -> float:
        """Return how long items of work take, including the teacher's part."""
        total = 0.0
        for work in works:
            total += self.device.seconds(work)
            total += self.device.seconds(self._represented(work.represented))
        return total

    def eager_seconds(self, works: Sequence[Work]) -> float | None:
        """Return how long items of work take without CUDA graphs; None if that is how they run."""
        if not (self.device.captures and any(work.captured for work in works)):
            return None
        return self.seconds(replace(work, captured=False, launches=0) for work in works)

    def memory(self, works: Iterable[Work]) -> int | float:
        """Return the memory of the largest pass, with as much of its batch as fits at once.

        Chunks are recomputed in the backward pass, which `seconds` leaves out. CUDA graphs keep
        the memory of the largest captured pass for themselves.
        """
        largest = {False: 0.0, True: 0.0}
        for work in works:
            apart = work.captured and self.device.captures
            largest[apart] = max(largest[apart], self._pass_bytes(work))
        return sum(largest.values())

    def _pass_bytes(self, work: Work) -> int | float:
        if work.network is None or not (work.forward or work.training):
            return 0.0
        networks, training = self.device.networks, bool(work.training)
        at_once = networks.at_once(work.network, work)
        cost = networks.cost(work.network, at_once, training=training)
        held = work.graphs * (cost.training_memory if training else cost.forward_memory)
        if at_once == work.batch:
            return held
        # not split: the batch's images and features
        return held + 4 * work.batch * (self.shape.numel + networks.of(work.network).num_features)

    def _represented(self, images: int | float) -> Work:
        batch = min(self.source.num_train, TEACHER_BATCH)
        return Work(network=self.teacher.network, forward=images, batch=batch)

    def shared(self, cells: Iterable[Cell]) -> Iterable[Task]:
        """Yield the tasks that all given cells wait for."""
        teacher, n = self.teacher, self.source.num_train
        weights = self.device.networks.cost(teacher.network, 2, training=False).weights
        if not teacher.is_file:
            works = teacher.forecast.work if teacher.forecast else ()
            yield Task(
                line=self.suite.teacher,
                key=keys.TEACHER,
                seconds=self.seconds(works) if teacher.forecast else None,
                memory=self.memory(works) + n * self.shape.numel,
                disk=weights,
            )
        variants = {cell.variant for cell in cells if cell.variant.method != TEACHER}
        methods = [method_of(self.suite, variant) for variant in variants]
        views = [view for method in methods for view in views_of(method)]
        work = self._represented(n)
        for view in dict.fromkeys(("identity", *sorted(views))):
            yield Task(
                line=f"view {view}",
                key=keys.representations(view),
                seconds=self.seconds([work]),
                memory=self.memory([work]) + self.images_bytes,
                disk=4 * n * teacher.d,
            )

    def chain(self, cell: Cell) -> Iterable[Task]:
        """Yield the tasks of a cell in order.

        Raises:
            UsageError: its method refuses its budget.
        """
        if cell.variant.method == TEACHER:
            student = self.teacher.network
        else:
            method = method_of(self.suite, cell.variant)
            forecast = self.forecast(cell, method)
            yield from self._distillation(cell, method, forecast)
            labelled = method.supervision == "labels"
            student = Architecture.of(
                cell.student,
                self.source.num_classes if labelled else self.teacher.d,
                model_settings(cell.student, self.suite.settings.get(cell.student, {})),
            )
            yield from self._pretraining(
                cell, student, forecast, "cross-entropy" if labelled else "mse"
            )
        for downstream in self.suite.downstream:
            yield from self._probing(cell, student, downstream)

    def forecast(self, cell: Cell, method: Method) -> Forecast | None:
        """Return a method's own forecast, computed once for all seeds and students."""
        key = cell.variant, cell.N
        if key not in self._forecasts:
            problem = self.problem(cell, method)
            if (ask := getattr(method, "forecast", None)) is not None:
                self._forecasts[key] = ask(problem)
            else:
                if (check := getattr(method, "check", None)) is not None:
                    check(problem.outline)
                self._forecasts[key] = None
        return self._forecasts[key]

    def problem(self, cell: Cell, method: Method) -> Problem:
        """Return a problem with shapes but no data."""
        n, k = self.source.num_train, self.source.num_classes
        shape, d = self.shape, self.teacher.d

        def representations(view: str) -> Tensor:
            return torch.empty(n, d, device="meta")

        def teacher(images: Tensor) -> Tensor:
            return torch.empty(len(images), d, device="meta")

        labelled = method.supervision == "labels"
        return Problem(
            source=without_held_out(self.suite.source),
            images=torch.empty(n, shape.c, shape.h, shape.w, dtype=torch.uint8, device="meta"),
            representations=representations,
            teacher=teacher,
            labels=torch.arange(n) * k // n if labelled else None,
            num_classes=k if labelled else None,
            mean=self.device.networks.new_network.mean,
            std=self.device.networks.new_network.std,
            budget=Budget(cell.N or 0),
            new_network=self.device.networks.new_network,
            precision=self.device.networks.new_network.precision,
        )

    def _distillation(
        self, cell: Cell, method: Method, forecast: Forecast | None
    ) -> Iterable[Task]:
        label = cell.variant.label
        stored = FLOAT_BYTES * Budget(cell.N or 0).num_floats(self.shape, self.teacher.d)
        charged = 0.0
        if forecast is not None and forecast.once:
            charged = self.seconds(forecast.once)
            yield Task(
                line=f"of {cell.variant.method}",
                key=keys.by_products(label, forecast.once),
                label=label,
                seconds=charged,
                memory=self.memory(forecast.once) + forecast.held + self.images_bytes,
                disk=forecast.disk,
            )
        known = forecast or Forecast()
        yield Task(
            line=label if cell.N is None else f"{label}, N = {cell.N}",
            key=keys.distillation(label, cell.N, cell.seed),
            label=label,
            N=cell.N,
            seconds=None if forecast is None else self.seconds(known.work),
            eager_seconds=self.eager_seconds(known.work),
            charged=charged,
            memory=self.memory(known.work) + known.held + self.images_bytes,
            disk=known.stored or (stored if method.limit != "none" else 0),
        )

    def _pretraining(
        self, cell: Cell, student: Architecture, forecast: Forecast | None, objective: Objective
    ) -> Iterable[Task]:
        if forecast is not None and not forecast.pairs:
            return
        works: tuple[Work, ...] = ()
        if forecast is not None:
            recipe = recipe_of(self.suite, objective, own=forecast.own_recipe)
            works = self._steps(student, forecast.pairs, recipe)
        yield Task(
            line=cell.student,
            key=keys.pretraining(cell.variant.label, cell.N, cell.seed, cell.student),
            label=cell.variant.label,
            N=cell.N,
            seconds=None if forecast is None else self.seconds(works),
            eager_seconds=self.eager_seconds(works),
            memory=self.memory(works) + self.images_bytes,
            disk=self.device.networks.cost(student, 2, training=False).weights,
        )

    def _steps(self, student: Architecture, pairs: int, recipe: Recipe) -> tuple[Work, ...]:
        """Count the work of `pretrain.pretrain`."""
        batches = math.ceil(pairs / recipe.batch_size)
        steps, batch = self.suite.length.num_steps(batches), pairs // batches
        return (
            Work(
                network=student,
                training=steps * pairs / batches,
                batch=batch,
                captured=True,
                launches=steps * launches(num_inputs=2, num_outputs=1),
            ),
            Work(operators=steps * (_BESIDES + DRAW * recipe.augment)),
        )

    def _probing(self, cell: Cell, student: Architecture, downstream: str) -> Iterable[Task]:
        sizes = self.sizes[downstream]
        n = sizes.num_train + sizes.num_test
        p = self.device.networks.of(student).num_features
        work = Work(network=student, forward=n, batch=min(n, FEATURES_BATCH))
        key = keys.features(cell.variant.label, cell.N, cell.seed, cell.student, downstream)
        yield Task(
            line=f"{cell.student} on {downstream}",
            key=key,
            label=cell.variant.label,
            N=cell.N,
            seconds=self.seconds([work]),
            memory=self.memory([work]) + self.images_bytes + 4 * n * p,
        )
        for protocol in protocols(self.suite, cell.variant, downstream):
            if (protocol.labels_per_class or 0) * sizes.num_classes > sizes.num_train:
                raise UsageError(
                    f"{protocol.labels_per_class} labels a class: {downstream} has "
                    f"{sizes.num_train} training images of {sizes.num_classes} classes"
                )
            probed = Probed(
                n=sizes.num_train,
                num_test=sizes.num_test,
                p=p,
                k=sizes.num_classes,
                labels_per_class=protocol.labels_per_class,
            )
            kind = probe_of(self.suite, protocol.probe)
            found = probe_work(kind, probed, precision=self.device.networks.new_network.precision)
            held = probe_bytes(kind, probed, max_memory=self.device.networks.max_memory)
            amount = protocol.labels_per_class or "all"
            yield Task(
                line=f"{protocol.probe}, {amount} labels, on {downstream}",
                key=keys.probe(key, *protocol),
                label=cell.variant.label,
                N=cell.N,
                seconds=self.seconds(found),
                eager_seconds=self.eager_seconds(found),
                memory=held + self.images_bytes,
            )

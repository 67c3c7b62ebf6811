"""DATM: difficulty-aligned trajectory matching.

Guo, Wang, Cazenavette, Li, Zhang, You: *Towards Lossless Dataset Distillation via
Difficulty-Aligned Trajectory Matching*, ICLR 2024 (arXiv 2310.05773). Published for CIFAR-100, a
ConvNet-3 trained from scratch on whitened images: 27.9, 47.2, 55.0 and 57.5 % at 1, 10, 50 and 100
images per class (as given in table 1 of *Prioritize Alignment in Dataset Distillation*, arXiv
2408.03360).

A network that starts from an expert's weights after s epochs and takes T steps on the distilled set
should end where the expert was after s + M epochs (`_trajectory` has the loss and its gradient,
`_experts` the experts). The images, the logits of their soft labels, and the learning rate of the
steps are learned. Early epochs teach easy patterns, late ones hard patterns: s is drawn from a
range that suits the size of the distilled set, and may grow towards harder ones.

All this happens on ZCA-whitened images (`_zca`), without further normalisation. Pixels are stored:
the images are un-whitened at the end, so that students see them like those of other methods,
unclamped, and normalised by mean and deviation. The set was optimised in another space, which its
own evaluation (`--recipe own`) uses: training and test images are whitened as well, and the student
is trained at the learned rate, in equal batches of at most 128.

The whitening that this needs is stored and counted, like logits and rate. No published count of
stored numbers includes it, and in full, at 32x32, it would take a budget of 2 600 (d = 512). So the
file has as many of its leading components as the budget leaves room for besides the images; the
others have a common scale. Little is lost if all components fit whose variance exceeds eps = 0.1.
For CIFAR-100's pixels these are 129: whitened images then deviate by 7 % at N = 1 000, where 133
fit, and by 0.2 % at N = 5 000, where 669 do. Where fewer fit, such as 12 at N = 100, none are
stored, and the own evaluation is refused before distillation. To train such a student as published:
`--students convnet --set convnet.widths=128,128,128 --set convnet.norm=instance --probes head`.

Differences from the released code (NUS-HPC-AI-Lab/DATM):

* Students and test images are whitened by the leading components.
* 10 000 outer steps, 1 000 student epochs (there, one more); equal batches (there, a short one).
* The gradient is that of the full unroll, but computed by recomputation, not from one graph.
* The result is the set after the last outer step; there, the one with the best test accuracy.
* Experts for every dataset are trained as in the readme's only command, which is for CIFAR-10.
* Experts depend on the data and their settings, not on the seed: as there, all distillations share
  them. They are used in random order over all experts, not file by file.
* Snapshots are copies. There, on a CPU, all snapshots of an expert are its final weights.
* An image that no expert classifies correctly starts with the mean of all logits (there, with NaN),
  and is used if a class has too few others (there, the search does not terminate).
* A matching loss that is not finite stops the run; there, the step is skipped.
* All randomness comes from named seeds. There, augmentations and networks are seeded by the clock.
* Whitening is fitted and applied in double precision.
* Unrolled steps run in the run's precision (there, in float32, like experts here).
* A short batch of inner steps comes last (there, first; no published setting has one).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchmark.differentiable_augmentation import OPERATIONS, expect_operations
from benchmark.ranges import expect_counts, expect_momenta, expect_not_negative, expect_positive
from benchmark.settings import NEUTRAL
from benchmark.spec import (
    ImageShape,
    Limit,
    Loop,
    Outline,
    OwnEvaluation,
    Problem,
    Storage,
    Supervision,
    TrainingSet,
    UsageError,
)
from benchmark.workload import Forecast

from ._checked_file import fingerprint
from ._datm_budget import expect_affordable, left_over
from ._datm_forecast import trajectory_forecast
from ._datm_recipes import PUBLISHED, InitialImages, Recipe, expect_start_epochs
from ._experts import Experts, ExpertTraining, Snapshots
from ._graphs_at_once import graphs_at_once
from ._labelled import images_per_class, new_inner_model
from ._published import expect_recipe, resolve
from ._soft_start import draw_correct, draw_real, mean_logits
from ._trajectory import FlatNetwork, SoftLabelLoss, SoftSet, match
from ._zca import Zca, affordable, stored_whitening

__all__ = ["Datm"]

_EVALUATION = {"batch_size": 128}  # batch_train in the released evaluation
_NOT_WHITENED = (
    "datm's evaluation whitens images, but the budget has no room for the whitening's components: "
    "choose a larger budget, or a teacher with longer representations"
)


@dataclass(frozen=True, kw_only=True)
class Datm:
    """Difficulty-aligned trajectory matching; defaults are those of the released code.

    Attributes:
        recipe: a published one, or a dataset (for its recipe at this IPC); None: the source's.
        inner_steps ... inner_widths: None for the recipe's value, see `_datm_recipes.Recipe`.
        outer_steps: updates of the distilled set.
        initial_lr: initial value of the learned rate.
        image_momentum, logit_momentum, lr_momentum: of the three SGD updates.
        keep_every: inner steps whose graphs are held together: 1 takes least memory, all least
            time; None means as many as the memory budget allows, but at most twice the square root
            of all, see `_graphs_at_once`.
        num_experts, expert_epochs: the final weights also select and label initial images.
        expert_lr, expert_rho, expert_alpha, expert_batch, expert_storage: see `_experts`.
        max_expert_gib: refuse to start if the experts would take more disk space.
        augmentations: one is drawn for each batch of experts and of inner steps. DSA's strategy for
            digits has no `flip`; omit it for such data yourself.
        zca_eps: regulariser of the whitening, for pixels in [0, 1].
        inner_model, inner_norm: without running statistics; None for models without this setting.
    """

    supervision: ClassVar[Supervision] = "labels"
    limit: ClassVar[Limit] = "numbers"

    recipe: str | None = None
    inner_steps: int | None = None
    target_epochs: int | None = None
    start_epochs: tuple[int, ...] | None = None
    expansion_steps: int | None = None
    inner_batch: int | None = None
    image_lr: float | None = None
    logit_lr: float | None = None
    lr_lr: float | None = None
    threshold: float | None = None
    initial_images: InitialImages | None = None
    inner_widths: tuple[int, ...] | None = None
    outer_steps: int = 10_000  # Iteration, in every released config; likewise the next
    initial_lr: float = 0.01  # lr_teacher
    logit_momentum: float = 0.9  # Momentum_y
    image_momentum: float = 0.5  # distill/DATM.py; likewise the next
    lr_momentum: float = 0.5
    keep_every: int | None = field(default=None, metadata=NEUTRAL)
    # experts: readme of the released code, whose command-line defaults differ
    num_experts: int = 100
    expert_epochs: int = 100
    expert_lr: float = 0.01
    expert_rho: float = 0.01
    expert_alpha: float = 0.3
    expert_batch: int = 256
    expert_storage: Storage = "fp32"
    # the published experts take 19.0 (CIFAR-100)
    max_expert_gib: float = field(default=20.0, metadata=NEUTRAL)
    augmentations: tuple[str, ...] = OPERATIONS  # dsa_strategy, in both released scripts
    zca_eps: float = 0.1  # utils/utils_baseline.py
    inner_model: str = "convnet"
    inner_norm: Literal["instance"] | None = "instance"  # with 128 channels a block: networks.py

    def __post_init__(self) -> None:
        expect_recipe(self, PUBLISHED)
        expect_start_epochs(self.start_epochs)
        expect_counts(self, "inner_steps", "target_epochs", "expansion_steps", "inner_batch")
        expect_counts(self, "inner_widths", "keep_every")
        expect_counts(self, "num_experts", "expert_epochs", "expert_batch")
        expect_positive(self, "initial_lr", "expert_lr", "zca_eps")
        expect_not_negative(self, "image_lr", "logit_lr", "lr_lr", "threshold", "outer_steps")
        expect_not_negative(self, "expert_rho", "expert_alpha", "max_expert_gib")
        expect_momenta(self, "image_momentum", "logit_momentum", "lr_momentum")
        expect_operations(self.augmentations)

    def check(self, outline: Outline) -> None:
        """Refuse unbalanced budgets, unknown recipes, and unusable experts.

        That includes inner models with running statistics, and experts of more than
        `max_expert_gib`; free disk space is checked where they are made.
        """
        recipe = self._resolve(outline)
        network = self._new_network(outline, recipe, torch.Generator().manual_seed(0))
        self._expect_allowed(Snapshots(Path(), network.num_weights, self.expert_storage))

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return IPC images of each class, ordered by class, their label logits, and the rate."""
        recipe = self._resolve(problem.outline)
        k, ipc = images_per_class("datm", problem.outline)
        assert problem.labels is not None
        with self._snapshots(problem, recipe) as snapshots:
            zca, num = self._whitening(problem, k, checkpoint)
            experts = Experts(
                snapshots,
                zca.whiten(problem.images),
                problem.labels,
                new_network=partial(self._new_network, problem, recipe),
                training=self._training,
            )
            experts.train(self.num_experts, self.expert_epochs, checkpoint)
            distilled = self._start(experts, recipe, k=k, ipc=ipc, generator=generator)
            self._optimise(
                distilled,
                experts,
                recipe,
                network=experts.network.at(problem.precision),
                generator=generator,
                checkpoint=checkpoint,
            )
        stored = {
            "images": zca.unwhiten(distilled.images),
            "logits": distilled.logits,
            "learning_rate": distilled.lr.view(1),
        }
        return stored if num < zca.num_strong else {**stored, **zca.leading(num, problem.shape)}

    def expect_own(self, problem: Problem, *, checkpoint: Loop) -> None:
        """Refuse a budget without room for the whitening that the own evaluation needs."""
        k, _ = images_per_class("datm", problem.outline)
        zca, num = self._whitening(problem, k, checkpoint)
        if num < zca.num_strong:
            raise UsageError(
                f"{_NOT_WHITENED} ({max(0, num)} of {zca.num_strong} fit at N={problem.budget.N})"
            )

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        recipe = self._resolve(problem.outline)
        network = self._new_network(problem, recipe, torch.Generator().manual_seed(0))
        return replace(trajectory_forecast(self, problem, recipe, network), own_recipe=_EVALUATION)

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the images, with their soft labels."""
        whitening = stored_whitening(stored)
        return TrainingSet(
            images=stored["images"],
            views=("identity",),
            targets=stored["logits"].softmax(1).unsqueeze(0),
            objective="cross-entropy",
            own=OwnEvaluation(
                recipe={"lr": float(stored["learning_rate"]), **_EVALUATION}, whitening=whitening
            ),
        )

    def _resolve(self, outline: Outline) -> Recipe:
        _, ipc = images_per_class("datm", outline)
        recipe = resolve(self, PUBLISHED, owner="datm", outline=outline, ipc=ipc)
        last = recipe.start_epochs[2] - 1 + recipe.target_epochs
        if last > self.expert_epochs:
            raise UsageError(
                f"datm.expert_epochs={self.expert_epochs}: experts are matched up to epoch {last} "
                f"(datm.start_epochs={recipe.start_epochs}, "
                f"datm.target_epochs={recipe.target_epochs})"
            )
        return recipe

    def _whitening(self, problem: Problem, k: int, checkpoint: Loop) -> tuple[Zca, int]:
        """Return the whitening, and how many of its components the budget has room for.

        Raises:
            UsageError: it has none for images, logits and rate.
        """
        expect_affordable(problem, k)
        zca = Zca.kept(
            problem.images, eps=self.zca_eps, folder=problem.cache, checkpoint=checkpoint
        )
        return zca, affordable(left_over(problem, k), problem.shape)

    @property
    def _training(self) -> ExpertTraining:
        return ExpertTraining(
            lr=self.expert_lr,
            rho=self.expert_rho,
            alpha=self.expert_alpha,
            batch_size=self.expert_batch,
            storage=self.expert_storage,
            augmentations=self.augmentations,
        )

    def _new_network(
        self, problem: Problem | Outline, recipe: Recipe, generator: torch.Generator
    ) -> FlatNetwork:
        return FlatNetwork(
            new_inner_model(
                problem,
                self.inner_model,
                generator,
                widths=recipe.inner_widths or None,
                norm=self.inner_norm,
            )
        )

    @contextmanager
    def _snapshots(self, problem: Problem, recipe: Recipe) -> Iterator[Snapshots]:
        """Yield the storage of the experts' snapshots; without a cache it is temporary.

        Raises:
            UsageError: they would take too much disk space.
        """
        network = self._new_network(problem, recipe, torch.Generator().manual_seed(0))
        # the default is left out of the key, from which random numbers follow
        others = () if self.augmentations == OPERATIONS else (self.augmentations,)
        key = fingerprint(
            *(problem.images, problem.labels, self.zca_eps, self._training),
            *(self.inner_model, recipe.inner_widths, self.inner_norm),
            *(network.shapes, network.network.precision, *others),
        )
        with nullcontext(problem.cache) if problem.cache else TemporaryDirectory() as folder:
            place = Path(folder) / f"datm-{key[:16]}"
            snapshots = Snapshots(place, network.num_weights, self.expert_storage)
            self._expect_allowed(snapshots)
            snapshots.expect_room(self.num_experts, self.expert_epochs)
            yield snapshots

    def _expect_allowed(self, snapshots: Snapshots) -> None:
        snapshots.expect_allowed(self.num_experts, self.expert_epochs, most_gib=self.max_expert_gib)

    def _start(
        self, experts: Experts, recipe: Recipe, *, k: int, ipc: int, generator: torch.Generator
    ) -> SoftSet:
        """Return real images with the logits of fully trained experts."""
        labels = experts.labels
        trained = [
            partial(experts.logits, expert, self.expert_epochs)
            for expert in range(self.num_experts)
        ]
        if recipe.initial_images == "correct":
            rows = draw_correct(labels, trained, k=k, ipc=ipc, generator=generator)
            logits = mean_logits(rows, labels[rows], trained)
        else:
            rows = draw_real(labels, k=k, ipc=ipc, generator=generator)
            logits = trained[_draw_integer(0, self.num_experts, generator)](rows)
        return SoftSet(
            images=experts.images[rows], logits=logits, lr=logits.new_tensor(self.initial_lr)
        )

    def _optimise(
        self,
        distilled: SoftSet,
        experts: Experts,
        recipe: Recipe,
        *,
        network: FlatNetwork,
        generator: torch.Generator,
        checkpoint: Loop,
    ) -> None:
        """Match the experts' trajectories, one per outer step, changing `distilled` in place."""
        learned = {"images": distilled.images, "logits": distilled.logits, "lr": distilled.lr}
        optimizer = self._optimizer(distilled, recipe)
        keep_every = self.keep_every or graphs_at_once(
            network,
            distilled.images[: recipe.inner_batch].shape,
            num_steps=recipe.inner_steps,
        )
        network = network.whole()
        turns = torch.empty(self.num_experts, dtype=torch.int64, device=generator.device)
        state = {**learned, "optimizer": optimizer, "turns": turns, "generator": generator}
        for step in checkpoint.steps("outer steps", self.outer_steps, **state):
            turn = step % self.num_experts
            if turn == 0:
                torch.randperm(self.num_experts, generator=generator, out=turns)
            expert = int(turns[turn])
            epoch = _draw_integer(recipe.start_epochs[0], recipe.max_start_epoch(step), generator)
            loss, gradient = match(
                distilled,
                inner_loss=SoftLabelLoss.draw(
                    network,
                    recipe.inner_batch,
                    m=len(distilled.images),
                    num_steps=recipe.inner_steps,
                    generator=generator,
                    operations=self.augmentations,
                ),
                start=experts.weights(expert, epoch),
                target=experts.weights(expert, epoch + recipe.target_epochs),
                num_steps=recipe.inner_steps,
                keep_every=keep_every,
            )
            within = bool(loss <= recipe.threshold)
            if within:
                distilled.images.grad = gradient.images
                distilled.logits.grad = gradient.logits
                distilled.lr.grad = gradient.lr
                optimizer.step()
            checkpoint.log(
                step, matching_loss=loss, skipped=1.0 - within, inner_lr=distilled.lr.clone()
            )

    def _optimizer(self, distilled: SoftSet, recipe: Recipe) -> torch.optim.SGD:
        learned = (
            (distilled.images, recipe.image_lr, self.image_momentum),
            (distilled.logits, recipe.logit_lr, self.logit_momentum),
            (distilled.lr, recipe.lr_lr, self.lr_momentum),
        )
        return torch.optim.SGD(
            [{"params": [part], "lr": lr, "momentum": momentum} for part, lr, momentum in learned]
        )


def _draw_integer(low: int, high: int, generator: torch.Generator) -> int:
    """Return a random integer in [low, high)."""
    return int(torch.randint(low, high, (), generator=generator, device=generator.device))

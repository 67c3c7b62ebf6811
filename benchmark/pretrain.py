"""Pretrain a fresh student on a decoded distilled set, with the recipe of its objective."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from benchmark import views
from benchmark.captured import CapturedStep, tensors_of
from benchmark.differentiable_augmentation import draw
from benchmark.network import Network
from benchmark.ranges import expect_counts, expect_momenta, expect_not_negative, expect_positive
from benchmark.spec import Loop, Objective, TrainingSet, UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is pretrained under one objective; SGD with momentum.

    Attributes:
        decay_at: fraction of the steps after which the learning rate is divided by ten and the
            momentum is reset (None: constant learning rate).
        augment: differentiable augmentation, with one operation drawn per batch.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float
    batch_size: int = 256
    decay_at: float | None = None
    augment: bool = False

    def __post_init__(self) -> None:
        expect_positive(self, "lr")
        expect_momenta(self, "momentum")
        expect_not_negative(self, "weight_decay")
        expect_counts(self, "batch_size")
        if self.decay_at is not None and not 0 <= self.decay_at <= 1:
            raise UsageError(f"decay_at={self.decay_at}: expected a fraction of the steps, or none")


RECIPES: Mapping[Objective, Recipe] = {
    # KRR-ST's released pretraining on its own sets; also the paper's
    "mse": Recipe(lr=0.1, weight_decay=1e-3),
    # DSA's evaluation, also IDM's, and DATM's except for learning rate and batches (recipe `own`)
    "cross-entropy": Recipe(lr=0.01, weight_decay=5e-4, decay_at=0.5, augment=True),
}


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a student is pretrained: in epochs (the paper's 1 000) or steps (equal for all)."""

    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UsageError(f"{self}: expected either epochs or steps")

    def num_steps(self, batches: int) -> int:
        """Return the number of steps, for `batches` per epoch."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * batches


def pretrain(
    student: Network,
    data: TrainingSet,
    length: Length,
    *,
    recipe: Recipe,
    generator: torch.Generator,
    checkpoint: Loop,
) -> int:
    """Train `student` in place on every view of every image of `data`; return the steps taken.

    Epochs are shuffled; each is split into equal batches of at most `recipe.batch_size` (image,
    view) pairs, so that no batch is too small for batch normalisation.
    """
    device = student.mean.device
    pairs = _Pairs(data, device)
    order = torch.zeros(len(pairs), dtype=torch.int64, device=device)
    batches = order.tensor_split(math.ceil(len(pairs) / recipe.batch_size))  # views of it
    steps = length.num_steps(len(batches))
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    decay_step = None if recipe.decay_at is None else math.ceil(recipe.decay_at * steps)

    def descend(normalised: Tensor, targets: Tensor) -> tuple[Tensor]:
        outputs = student.head(student.features_of_normalised(normalised))
        loss = _LOSSES[data.objective](outputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    captured = partial(CapturedStep, descend, partial(tensors_of, student, optimizer))
    take = captured()
    student.train()
    state = {"student": student, "optimizer": optimizer, "order": order, "generator": generator}
    for step in checkpoint.steps("pretraining", steps, **state):
        position = step % len(batches)
        if position == 0:
            torch.randperm(len(order), generator=generator, out=order)
        if step == decay_step:
            optimizer.param_groups[0]["lr"] = recipe.lr / 10
            optimizer.state.clear()
            take = captured()  # with the new rate
        images, targets = pairs[batches[position]]
        normalised = student.normalise(images)
        if recipe.augment:
            normalised = draw(generator, num=len(images))(normalised)
        (loss,) = take(normalised, targets)
        checkpoint.log(step, loss=loss)
    student.eval()
    return steps


_LOSSES: Mapping[Objective, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "cross-entropy": cross_entropy,
}


class _Pairs:
    """The (image, view) pairs of a training set, gathered batch by batch on the device."""

    def __init__(self, data: TrainingSet, device: torch.device) -> None:
        self.data = data
        self.v, self.m, _ = data.targets.shape
        self.permutations = views.permutations(data.views, *data.images.shape[2:]).to(device)
        self.plain = data.views == ("identity",)

    def __len__(self) -> int:
        return self.v * self.m

    def __getitem__(
        self, pairs: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d"]]:
        view, image = pairs // self.m, pairs % self.m
        images = self.data.images[image]
        if not images.is_floating_point():
            images = images / 255
        if not self.plain:
            images = views.apply_each(self.permutations[view], images)
        return images, self.data.targets[view, image]

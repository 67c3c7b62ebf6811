"""The bilevel loop that KRR-ST and the parameterised method share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss, pad

from benchmark import views as predefined
from benchmark.spec import Loop, Problem

from ._distilled import Distilled
from ._pool import InnerModel, Pool
from ._ridge import ridge_predict


@dataclass(frozen=True, kw_only=True)
class OuterLoop:
    """Settings of the outer and the inner loop; defaults are those of KRR-ST's released code.

    Attributes:
        outer_steps: updates of the distilled pairs.
        outer_lr: of AdamW (no weight decay), falling linearly to a thousandth.
        real_batch: real images a step.
        distilled_batch: the most (image, view) pairs a step, drawn anew if there are more. The
            released code takes all, which at its only setting, N = 1 000, is the same.
        ridge: relative to the trace, see `_ridge`.
        max_age: inner steps after which an inner model is replaced by a newborn.
        staggered: the pool begins with ages spread over 1 to `max_age` - 1, each trained that long.
        restart: a newborn's age is 0 (False: as the released code, see `_pool`).
        augment_real: real batches are shifted by up to 4 pixels (black border) and flipped, and the
            teacher represents them anew at each step (the released code's newest commit).
        raw_distilled: distilled pixels reach inner models unnormalised (the released code).
        outer_views: real and distilled images under all views in each step, or under one drawn
            view.
    """

    outer_steps: int
    outer_lr: float
    real_batch: int = 1024
    distilled_batch: int = 1000
    ridge: float = 1e-6
    pool_size: int = 10
    max_age: int = 1000
    staggered: bool = True
    restart: bool = True
    inner_model: str = "convnet"
    inner_widths: tuple[int, ...] | None = (128, 256, 512)
    inner_lr: float = 0.1
    inner_momentum: float = 0.9
    inner_weight_decay: float = 1e-3
    augment_real: bool = False
    raw_distilled: bool = False
    outer_views: Literal["all", "one"] = "all"


class Bilevel:
    """The loop itself, over `distilled` pairs of which every student will see all `views`.

    Inner loop: models of a pool regress the distilled pairs under all views. Outer loop: a pool
    member's features are taken as given, ridge regression on the distilled pairs predicts the
    teacher's representations of real images, and its mean squared error moves the pairs.
    """

    def __init__(
        self,
        settings: OuterLoop,
        distilled: Distilled,
        views: Sequence[str],
        *,
        problem: Problem,
        generator: torch.Generator,
    ) -> None:
        self.settings = settings
        self.distilled = distilled
        self.views = tuple(views)
        self.problem = problem
        self.generator = generator

    def run(self, checkpoint: Loop) -> None:
        """Optimise the distilled pairs in place."""
        settings = self.settings
        if settings.outer_steps == 0:
            return
        pool = Pool(
            settings.pool_size, self.new_model, max_age=settings.max_age, restart=settings.restart
        )
        if settings.staggered:
            self.stagger(pool, checkpoint)
        parameters = [parameter.requires_grad_() for parameter in self.distilled.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=settings.outer_lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LinearLR(
            optimizer, 1.0, 1e-3, total_iters=settings.outer_steps
        )
        state: dict[str, Any] = {f"distilled {i}": p for i, p in enumerate(parameters)}
        state |= {"optimizer": optimizer, "schedule": schedule}
        state |= {"pool": pool, "generator": self.generator}
        for step in checkpoint.steps("outer steps", settings.outer_steps, **state):
            member = self.draw(len(pool))
            loss = self.outer_loss(pool[member])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if not pool.renew_if_old(member):
                pool[member].step(*self.inner_batch())
            checkpoint.log(step, outer_loss=loss)
        for parameter in parameters:
            parameter.requires_grad_(False)
        if settings.raw_distilled:
            self.distilled.rescale(*self.statistics)

    def outer_loss(self, model: InnerModel) -> Float[Tensor, ""]:
        """Return the error on one real batch of ridge regression from the distilled pairs."""
        chosen = list(range(len(self.views)))
        if self.settings.outer_views == "one" and len(chosen) > 1:
            chosen = [self.draw(len(chosen))]
        views = [self.views[i] for i in chosen]
        with torch.no_grad():
            images, targets = self.real_batch(views)
            queries = model.network.features(images)
        index = self.draw_distilled(len(views))
        support = model.network.features(
            predefined.apply_all(views, self.pixels(self.distilled.images(index)))
        )
        codes = self.distilled.codes[chosen]
        support_targets = self.distilled.targets(codes if index is None else codes[:, index])
        predicted = ridge_predict(
            support, support_targets.flatten(0, 1), queries, ridge=self.settings.ridge
        )
        return mse_loss(predicted, targets)

    def real_batch(
        self, views: Sequence[str]
    ) -> tuple[Float[Tensor, "vb c h w"], Float[Tensor, "vb d"]]:
        """Draw real images; return them, and their representations, under each of `views`."""
        problem = self.problem
        rows = torch.randint(
            len(problem.images),
            (self.settings.real_batch,),
            generator=self.generator,
            device=problem.device,
        )
        images = problem.images[rows] / 255
        if self.settings.augment_real:
            images = predefined.apply_all(views, shift_and_flip(images, self.generator))
            return images, problem.teacher(images)
        targets = torch.cat([problem.representations(view)[rows] for view in views])
        return predefined.apply_all(views, images), targets

    @torch.no_grad()
    def inner_batch(self) -> tuple[Float[Tensor, "vb c h w"], Float[Tensor, "vb d"]]:
        """Return what an inner model regresses in one step: distilled pairs under all views."""
        index = self.draw_distilled(len(self.views))
        images = self.pixels(self.distilled.images(index))
        codes = self.distilled.codes if index is None else self.distilled.codes[:, index]
        targets = self.distilled.targets(codes).flatten(0, 1)
        return predefined.apply_all(self.views, images), targets

    def pixels(self, distilled: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the images, in [0, 1] terms, that distilled pixels stand for."""
        if not self.settings.raw_distilled:
            return distilled
        std, mean = self.statistics
        return distilled * std + mean

    @property
    def statistics(self) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        """Standard deviation and mean of the source pixels, per channel."""
        problem = self.problem
        std, mean = torch.tensor((problem.std, problem.mean), device=problem.device)
        return std.view(-1, 1, 1), mean.view(-1, 1, 1)

    def new_model(self) -> InnerModel:
        """Return a newborn inner model."""
        settings = self.settings
        d = self.problem.representations("identity").shape[1]
        widths = {} if settings.inner_widths is None else {"widths": settings.inner_widths}
        return InnerModel(
            self.problem.new_network(settings.inner_model, d, self.generator, **widths),
            lr=settings.inner_lr,
            momentum=settings.inner_momentum,
            weight_decay=settings.inner_weight_decay,
        )

    def stagger(self, pool: Pool, checkpoint: Loop) -> None:
        """Train each newborn of the pool to an age of its own between 1 and `max_age` - 1."""
        ages = [1 + self.draw(max(1, pool.max_age - 1)) for _ in range(len(pool))]
        members = [member for member, age in enumerate(ages) for _ in range(age)]
        state = {"pool": pool, "generator": self.generator}
        for step in checkpoint.steps("pool warm-up", len(members), **state):
            pool[members[step]].step(*self.inner_batch())

    def draw(self, high: int) -> int:
        """Return a random integer in [0, high)."""
        device = self.generator.device
        return int(torch.randint(high, (), generator=self.generator, device=device))

    def draw_distilled(self, num_views: int) -> Int64[Tensor, " b"] | None:
        """Return which distilled images take part in a step; None means all, in order."""
        m = self.distilled.codes.shape[1]
        wanted = max(1, self.settings.distilled_batch // num_views)
        if m <= wanted:
            return None
        return torch.randperm(m, generator=self.generator, device=self.generator.device)[:wanted]


def shift_and_flip(
    images: Float[Tensor, "b c h w"], generator: torch.Generator, *, padding: int = 4
) -> Float[Tensor, "b c h w"]:
    """Shift each image by up to `padding` pixels (black border) and flip half of them."""
    b, _, h, w = images.shape
    device = images.device
    offset = torch.randint(2 * padding + 1, (2, b, 1), generator=generator, device=device)
    flipped = torch.rand(b, 1, generator=generator, device=device) < 0.5
    rows = offset[0] + torch.arange(h, device=device)
    columns = offset[1] + torch.arange(w, device=device)
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = pad(images, (padding,) * 4)
    return padded[
        torch.arange(b, device=device)[:, None, None, None],
        torch.arange(images.shape[1], device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]

"""The bilevel loop shared by KRR-ST and the parameterised method."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmark import views as predefined
from benchmark.augment import shift_and_flip
from benchmark.network import Network
from benchmark.ranges import expect_counts, expect_momenta, expect_not_negative
from benchmark.spec import Loop, NewNetwork, Outline, Problem, UsageError

from ._augmented_copies import AugmentedCopies
from ._distilled import Distilled
from ._pool import InnerModel, Pool
from ._ridge import ridge_predict

_MAX_SHIFT = 4  # pixels, if real images are augmented (released code)


@dataclass(frozen=True, kw_only=True)
class BilevelSettings:
    """Settings of the outer and the inner loop; defaults are those of KRR-ST's released code.

    Attributes:
        outer_steps: updates of the distilled pairs.
        outer_lr: of AdamW (no weight decay), decaying linearly to a thousandth.
        real_batch: real images per step.
        distilled_batch: maximum number of (image, view) pairs per step, drawn anew if there are
            more. The released code uses all, which is the same for its only setting, N = 1 000.
        ridge: relative to the trace, see `_ridge`.
        max_age: inner steps after which an inner model is replaced by a fresh one.
        staggered: initially train the models of the pool to random ages from 1 to `max_age` - 1.
        restart: a fresh model's age is 0 (False: as in the released code, see `_pool`).
        augment_real: shift real batches by up to 4 pixels (black border) and flip them, and
            represent them anew at each step (the released code's newest commit).
        augmented_copies: with `augment_real`, number of shifted and flipped copies of each image
            that are drawn and represented once, for steps to draw from; None: anew at each step.
        raw_distilled: feed distilled pixels to inner models unnormalised (the released code).
        outer_views: compare real and distilled images under all views in each step, or under one
            random view.
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
    augmented_copies: int | None = None
    raw_distilled: bool = False
    outer_views: Literal["all", "one"] = "all"

    def __post_init__(self) -> None:
        expect_counts(self, "real_batch", "distilled_batch", "pool_size", "max_age")
        expect_counts(self, "inner_widths", "augmented_copies")
        expect_not_negative(self, "outer_steps", "outer_lr", "ridge")
        expect_not_negative(self, "inner_lr", "inner_weight_decay")
        expect_momenta(self, "inner_momentum")
        if self.augmented_copies is not None and not self.augment_real:
            raise UsageError(
                f"augmented_copies={self.augmented_copies}: expected augment_real=true as well"
            )

    def check(self, outline: Outline) -> None:
        """Refuse an inner model that does not support the source's images."""
        if self.outer_steps > 0:
            self.sample_model(outline.new_network)

    def sample_model(self, new_network: NewNetwork) -> Network:
        """Return an inner model for inspection, not for training: its head has one output."""
        stream = torch.Generator().manual_seed(0)
        return new_network(self.inner_model, 1, stream, **self.inner_settings)

    @property
    def inner_settings(self) -> dict[str, tuple[int, ...]]:
        """Settings of the inner model."""
        return {} if self.inner_widths is None else {"widths": self.inner_widths}


class Bilevel:
    """The loop itself, over `distilled` pairs that every student will see under all `views`.

    Inner loop: models of a pool are trained by regression on the distilled pairs under all views.
    Outer loop: on the fixed features of a pool member, ridge regression on the distilled pairs
    predicts the teacher's representations of real images, and its mean squared error is minimised
    with respect to the pairs.
    """

    def __init__(
        self,
        settings: BilevelSettings,
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
        std, mean = torch.tensor((problem.std, problem.mean), device=problem.device)
        self.std, self.mean = std.view(-1, 1, 1), mean.view(-1, 1, 1)
        self.copies = None
        if settings.augment_real and settings.augmented_copies is not None:
            num = settings.augmented_copies
            self.copies = AugmentedCopies(problem, num, max_shift=_MAX_SHIFT)

    def run(self, checkpoint: Loop) -> None:
        """Optimise the distilled pairs in place."""
        if self.settings.outer_steps > 0:
            self.optimise(checkpoint)
        if self.settings.raw_distilled:
            self.distilled.rescale(self.std, self.mean)

    def optimise(self, checkpoint: Loop) -> None:
        """Take the outer steps."""
        settings = self.settings
        if self.copies is not None:
            self.copies.represent(self.views, checkpoint)
        pool = Pool(
            settings.pool_size, self.new_model, max_age=settings.max_age, restart=settings.restart
        )
        if settings.staggered:
            self.stagger(pool, checkpoint)
        parameters = [parameter.requires_grad_() for parameter in self.distilled.parameters()]
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.outer_lr, weight_decay=0.0, fused=True
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optimizer, 1.0, 1e-3, total_iters=settings.outer_steps
        )
        state: dict[str, Any] = {f"distilled {i}": p for i, p in enumerate(parameters)}
        state |= {"optimizer": optimizer, "schedule": schedule}
        members, shown = self.draw(len(pool), settings.outer_steps), self.draw_views()
        state |= {"pool": pool, "generator": self.generator}
        for step in checkpoint.steps("outer steps", settings.outer_steps, **state):
            member = members[step]
            loss = self.outer_loss(pool[member], shown[step])
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=parameters)  # avoids gradients of the inner model's weights
            loss = loss.detach()  # no graph may be alive where an inner step is captured
            optimizer.step()
            schedule.step()
            if not pool.renew_if_old(member):
                pool[member].step(*self.inner_batch())
            checkpoint.log(step, outer_loss=loss)
        for parameter in parameters:
            parameter.requires_grad_(False)

    def outer_loss(self, model: InnerModel, shown: slice) -> Float[Tensor, ""]:
        """Return the error of ridge regression from distilled to real images, in `shown` views."""
        network = model.network.frozen()
        with torch.no_grad():
            real, targets = self.real_batch(self.views[shown])
            queries = network.features(real)
        distilled, support_targets = self.distilled_batch(shown)
        support = network.features(distilled)
        predicted = ridge_predict(
            support,
            support_targets,
            queries,
            ridge=self.settings.ridge,
            precision=network.precision,
        )
        return mse_loss(predicted, targets)

    def real_batch(
        self, views: Sequence[str]
    ) -> tuple[Float[Tensor, "vb c h w"], Float[Tensor, "vb d"]]:
        """Draw real images; return them, and their representations, under each of `views`."""
        problem = self.problem
        draw = partial(torch.randint, generator=self.generator, device=problem.device)
        rows = draw(len(problem.images), (self.settings.real_batch,))
        if self.copies is not None:
            copies = draw(len(self.copies), rows.shape)
            images = predefined.apply_all(views, self.copies.images(copies, rows))
            return images, self.copies.targets(views, copies, rows)
        images = problem.images[rows] / 255
        if self.settings.augment_real:
            images = predefined.apply_all(views, shift_and_flip(images, _MAX_SHIFT, self.generator))
            return images, problem.teacher(images)
        targets = torch.cat([problem.representations(view)[rows] for view in views])
        return predefined.apply_all(views, images), targets

    @torch.no_grad()
    def inner_batch(self) -> tuple[Float[Tensor, "vb c h w"], Float[Tensor, "vb d"]]:
        """Return the batch of an inner step: distilled pairs under all views."""
        images, targets = self.distilled_batch(slice(None))
        return images.detach(), targets.detach()  # plain pairs are parameters themselves

    def distilled_batch(
        self, shown: slice
    ) -> tuple[Float[Tensor, "vb c h w"], Float[Tensor, "vb d"]]:
        """Return distilled images and targets under the `shown` views, sampled if too many."""
        views, codes = self.views[shown], self.distilled.codes[shown]
        index = self.draw_distilled(len(views))
        images = self.distilled.images(index)
        if self.settings.raw_distilled:
            images = images * self.std + self.mean
        targets = self.distilled.targets(codes if index is None else codes[:, index])
        return predefined.apply_all(views, images), targets.flatten(0, 1)

    def new_model(self) -> InnerModel:
        """Return a fresh inner model."""
        settings = self.settings
        d = self.problem.representations("identity").shape[1]
        new_network = self.problem.new_network
        return InnerModel(
            new_network(settings.inner_model, d, self.generator, **settings.inner_settings),
            lr=settings.inner_lr,
            momentum=settings.inner_momentum,
            weight_decay=settings.inner_weight_decay,
        )

    def stagger(self, pool: Pool, checkpoint: Loop) -> None:
        """Train each fresh model of the pool to its own random age from 1 to `max_age` - 1."""
        ages = self.draw(max(1, pool.max_age - 1), len(pool))
        members = [member for member, age in enumerate(ages) for _ in range(1 + age)]
        state = {"pool": pool, "generator": self.generator}
        for step in checkpoint.steps("pool warm-up", len(members), **state):
            pool[members[step]].step(*self.inner_batch())

    def draw(self, high: int, num: int) -> list[int]:
        """Return `num` random integers in [0, high), drawn at once to synchronise only once."""
        device = self.generator.device
        drawn: list[int] = torch.randint(
            high, (num,), generator=self.generator, device=device
        ).tolist()
        return drawn

    def draw_views(self) -> list[slice]:
        """Return the views that each outer step uses."""
        if self.settings.outer_views == "all":
            return [slice(None)] * self.settings.outer_steps
        drawn = self.draw(len(self.views), self.settings.outer_steps)
        return [slice(view, view + 1) for view in drawn]

    def draw_distilled(self, num_views: int) -> Int64[Tensor, " b"] | None:
        """Return which distilled images a step uses; None means all, in order."""
        m = self.distilled.codes.shape[1]
        wanted = max(1, self.settings.distilled_batch // num_views)
        if m <= wanted:
            return None
        return torch.randperm(m, generator=self.generator, device=self.generator.device)[:wanted]

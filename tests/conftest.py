from collections.abc import Callable
from functools import cache

import pytest
import torch

from benchmark import views
from benchmark.network_factory import NetworkFactory
from benchmark.spec import Budget, ImageShape, Problem


@pytest.fixture
def labelled_problem() -> Callable[..., Problem]:
    """Make a tiny problem of `k` classes, each a pattern of its own under noise."""

    def make(*, N: int, k: int = 3, per_class: int = 12, side: int = 8) -> Problem:
        stream = torch.Generator().manual_seed(0)
        shape = ImageShape(3, side, side)
        labels = torch.arange(k * per_class) % k
        patterns = torch.rand(k, 3, side, side, generator=stream)
        noise = torch.randn(len(labels), 3, side, side, generator=stream)
        images = ((patterns[labels] + 0.1 * noise).clamp(0, 1) * 255).to(torch.uint8)
        representations = images.flatten(1)[:, :5] / 255
        mean, std = (0.5, 0.5, 0.4), (0.3, 0.3, 0.2)
        return Problem(
            images=images,
            representations=lambda view: representations,
            teacher=lambda x: x.flatten(1)[:, :5],
            labels=labels,
            num_classes=k,
            mean=mean,
            std=std,
            budget=Budget(N),
            new_network=NetworkFactory(shape=shape, mean=mean, std=std),
        )

    return make


@pytest.fixture
def toy_problem() -> Callable[..., Problem]:
    """Make a tiny unlabelled problem; its teacher, a fixed random layer, sees every view anew."""

    def make(*, N: int = 8, n: int = 60, side: int = 8, d: int = 6) -> Problem:
        stream = torch.Generator().manual_seed(1)
        smooth = torch.rand(n, 3, side // 4, side // 4, generator=stream).repeat_interleave(4, 2)
        noise = torch.rand(n, 3, side, side, generator=stream)
        images = (255 * (0.7 * smooth.repeat_interleave(4, 3) + 0.3 * noise)).to(torch.uint8)
        weight = torch.randn(3 * side * side, d, generator=stream) / side

        def teacher(x: torch.Tensor) -> torch.Tensor:
            return torch.tanh((x - 0.5).flatten(1) @ weight)

        @cache
        def representations(view: str) -> torch.Tensor:
            return teacher(views.apply(view, images / 255))

        mean, std = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)
        return Problem(
            images=images,
            representations=representations,
            teacher=teacher,
            labels=None,
            num_classes=None,
            mean=mean,
            std=std,
            budget=Budget(N),
            new_network=NetworkFactory(shape=ImageShape(3, side, side), mean=mean, std=std),
        )

    return make

"""A backbone trained with labels: a positive control for self-supervised teachers.

The defaults are the usual recipe for a ResNet-18 on CIFAR (kuangliu/pytorch-cifar).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from benchmark.augment import shift_and_flip
from benchmark.network import Network
from benchmark.ranges import expect_not_negative
from benchmark.spec import Loop, Supervision
from benchmark.workload import Forecast, TeacherOutline

from ._fit import Optimizer, Training, fit, pixels, prepared
from ._forecast import supervised_forecast

__all__ = ["Supervised"]


@dataclass(frozen=True, kw_only=True)
class Supervised(Training):
    """Pretrains with labels by cross-entropy, on randomly shifted and flipped images.

    Differences from the usual recipe: biases and norms have no weight decay, the last norm of every
    block starts at zero, the learning rate decays per step, an incomplete last batch is dropped,
    and a tenth of the images is held out.

    Attributes:
        max_shift: largest random shift in pixels, in either direction, with zero padding.
    """

    supervision: ClassVar[Supervision] = "labels"

    model: str = "resnet18"
    # kuangliu/pytorch-cifar, main.py
    epochs: int = 200
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    weight_decay: float = 5e-4
    warmup_epochs: int = 0
    max_shift: int = 4

    def __post_init__(self) -> None:
        """Refuse invalid settings.

        Raises:
            UsageError: for the first one.
        """
        super().__post_init__()
        expect_not_negative(self, "max_shift")

    def forecast(self, outline: TeacherOutline) -> Forecast:
        """Count the work of `pretrain`."""
        return supervised_forecast(self, outline)

    def pretrain(
        self,
        network: Network,
        *,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"] | None,
        probe: Callable[[], float],
        generator: torch.Generator,
        checkpoint: Loop,
    ) -> int:
        """Train `network` including its head; return the number of steps."""
        assert labels is not None, 'teachers with supervision = "labels" are given labels'
        backbone = prepared(self, network.backbone)

        def loss(batch: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
            x = shift_and_flip(pixels(images, batch), self.max_shift, generator)
            features = network.run(backbone, network.normalise(x))
            outputs = network.head(features)
            return nn.functional.cross_entropy(outputs, labels[batch.to(labels.device)])

        return fit(
            self,
            network,
            loss,
            num_images=len(images),
            probe=probe,
            generator=generator,
            checkpoint=checkpoint,
        )

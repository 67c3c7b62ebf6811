"""Barlow Twins: two augmentations of an image should have equal, decorrelated projections.

Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: Self-Supervised Learning via Redundancy
Reduction", ICML 2021. The defaults are solo-learn's recipe for CIFAR (ResNet-18, 1 000 epochs),
which reaches 70.90 % on CIFAR-100 and 92.10 % on CIFAR-10 (its own online linear probe).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from benchmark import rng
from benchmark.augment import RandomAugmentation
from benchmark.network import Network
from benchmark.ranges import expect_counts, expect_not_negative, expect_positive
from benchmark.spec import Loop, Supervision
from benchmark.workload import Forecast, TeacherOutline

from ._fit import Optimizer, Training, fit, pixels, prepared
from ._forecast import barlow_twins_forecast

__all__ = ["BarlowTwins"]


@dataclass(frozen=True, kw_only=True)
class BarlowTwins(Training):
    """Pretrains without labels.

    Differences from the published run: backbone and projector may run in bf16 (published: fp16); as
    everywhere here, the stem is padded by 1 (published: by 2) and the last norm of every block
    starts at zero (published: at one); for the augmentations, see `benchmark.augment`.

    Attributes:
        projector_hidden, projector_output: widths of the projector's two hidden layers and output.
        off_diagonal_weight: of the squared correlations between different outputs.
        loss_scale: of the whole loss.
        crop_scale, brightness, contrast, saturation, hue, gamma, grey: see `RandomAugmentation`.
        solarise: likewise, in the second augmentation only.
    """

    supervision: ClassVar[Supervision] = "none"

    model: str = "resnet18"
    # solo-learn, scripts/pretrain/cifar/barlow.yaml
    epochs: int = 1000
    batch_size: int = 256
    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-4
    warmup_epochs: int = 10  # solo/methods/base.py
    projector_hidden: int = 2048
    projector_output: int = 2048
    off_diagonal_weight: float = 0.0051  # solo/methods/barlow_twins.py, and the paper
    loss_scale: float = 0.1
    # scripts/pretrain/cifar/augmentations/asymmetric.yaml
    crop_scale: tuple[float, ...] = (0.08, 1.0)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gamma: float = 0.0
    grey: float = 0.2
    solarise: float = 0.2

    def __post_init__(self) -> None:
        """Refuse invalid settings.

        Raises:
            UsageError: for the first one.
        """
        super().__post_init__()
        expect_counts(self, "projector_hidden", "projector_output")
        expect_not_negative(self, "off_diagonal_weight")
        expect_positive(self, "loss_scale")
        self._augmentation(self.solarise)

    def forecast(self, outline: TeacherOutline) -> Forecast:
        """Count the work of `pretrain`."""
        hidden, output = self.projector_hidden, self.projector_output
        return barlow_twins_forecast(self, outline, hidden=hidden, output=output)

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
        """Pretrain the backbone of `network`, but not its head; return the number of steps."""
        del labels
        projector = new_projector(
            network.num_features, self.projector_hidden, self.projector_output, generator
        ).to(images.device)
        backbone = prepared(self, network.backbone)
        first, second = self._augmentation(0.0), self._augmentation(self.solarise)

        def project(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o"]:
            features = network.run(backbone, network.normalise(x))
            return network.in_precision(projector, features)

        def loss(batch: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
            x = pixels(images, batch)
            # separately: batch norm sees one augmentation at a time, as published
            a = project(first(x, generator))
            b = project(second(x, generator))
            return self.loss_scale * barlow_twins_loss(a, b, self.off_diagonal_weight)

        return fit(
            self,
            nn.ModuleDict({"backbone": network.backbone, "projector": projector}),
            loss,
            num_images=len(images),
            probe=probe,
            generator=generator,
            checkpoint=checkpoint,
        )

    def _augmentation(self, solarise: float) -> RandomAugmentation:
        return RandomAugmentation(
            crop_scale=self.crop_scale,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
            gamma=self.gamma,
            grey=self.grey,
            solarise=solarise,
        )


def barlow_twins_loss(
    a: Float[Tensor, "b o"], b: Float[Tensor, "b o"], off_diagonal_weight: float
) -> Float[Tensor, ""]:
    """Return sum_i (C_ii - 1)^2 + weight sum_{i != j} C_ij^2 (equation 1 of the paper).

    C is the correlation across the batch of the projections `a` and `b`, each output standardised
    over the batch with batch norm's epsilon.
    """
    a, b = (nn.functional.batch_norm(z, None, None, training=True) for z in (a, b))
    correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal_weight * off_diagonal


def new_projector(
    num_features: int, hidden: int, output: int, generator: torch.Generator
) -> nn.Sequential:
    """Return a fresh projector of two hidden layers (solo/methods/barlow_twins.py)."""
    with rng.seeded(generator):
        return nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, output),
        )

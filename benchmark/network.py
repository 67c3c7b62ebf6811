"""A backbone with normalisation and head, as trained by every method and student."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmark.folding import Pair, foldable, folded
from benchmark.memory import Chunks, keeps_images_apart
from benchmark.whitening import Whitening

Precision = Literal["fp32", "bf16"]
Layout = Literal["channels-last", "contiguous"]

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

MEMORY_FORMATS: Mapping[Layout, torch.memory_format] = {
    "channels-last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


class Network(nn.Module):
    """A backbone that normalises its own input, with a linear head.

    The backbone runs in `precision`, with inputs in `memory_format`; features are float32 (or the
    parameters' own type, if wider), so losses and linear solves never see bf16.
    """

    mean: Tensor
    std: Tensor
    whitening: Whitening | None = None  # replaces mean and std
    chunks: Chunks | None = None

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        num_outputs: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(num_features, num_outputs)
        self.num_features = num_features
        self.precision = precision
        self.memory_format = torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def use_memory_format(self, memory_format: torch.memory_format) -> "Network":
        """Have weights, and inputs of the backbone, in this format; return the network."""
        self.memory_format = memory_format
        return self.to(memory_format=memory_format)

    def normalise(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return images in [0, 1] normalised for the backbone."""
        if self.whitening is not None:
            return self.whitening(images)
        return (images - self.mean) / self.std

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        """Return the backbone's features of images in [0, 1]."""
        return self.features_of_normalised(self.normalise(images))

    def features_of_normalised(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        """Return the backbone's features of images that are normalised already."""
        return self.run(self.backbone, images)

    def frozen(self) -> "Network":
        """Return a faster network for evaluation, with the present weights of this one.

        This one must be in evaluation mode, and may share what is not folded: it has to stay as it
        is while the other is used. Features are the same up to rounding, see `benchmark.folding`.
        """
        shared = {id(part): part for part in (self.head, self.chunks, self.whitening)}
        return copy.deepcopy(
            self, {**shared, id(self.backbone): folded(self.backbone, self._foldable)}
        )

    @cached_property
    def _foldable(self) -> tuple[Pair, ...]:
        return foldable(self.backbone)

    def num_at_once(self, images: Float[Tensor, "2 c h w"]) -> int | None:
        """Return how many images like these fit in one pass; None where a batch is never split."""
        if self.chunks is None or not keeps_images_apart(self.backbone):
            return None
        return self.chunks.fitting(self._pass, self.backbone, images)

    def run(self, backbone: nn.Module, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
        """Return features of normalised images by `backbone` instead of the network's own."""
        if self.chunks is None:
            return self._pass(backbone, images)
        return self.chunks(self._pass, backbone, images, precision=self.precision)

    def in_precision(
        self, module: Callable[[Tensor], Tensor], x: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b p"]:
        """Return the output of `module` for `x` in the backbone's precision."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = module(x)
        return outputs.to(self.head.weight.dtype)

    def _pass(
        self, backbone: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b p"]:
        return self.in_precision(backbone, images.contiguous(memory_format=self.memory_format))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the head's output for images in [0, 1]."""
        outputs: Tensor = self.head(self.features(images))
        return outputs


@contextmanager
def in_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode within the block; restore every module's mode afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        yield
    finally:
        for module, before in modes.items():
            module.training = before

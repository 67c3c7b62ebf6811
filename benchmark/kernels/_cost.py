"""Operations and bytes of a network, counted layer by layer.

A multiplication and an addition are two operations. For one image::

    convolution   2 c_out h_out w_out c_in k k          linear layer   2 in out

In the backward pass, the gradients of a layer's weights and of its input cost as much again each,
if they are needed. Norms, activations and pooling count as bytes only: every layer reads its input
and writes its output once in the forward pass, and twice in the backward pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.network import Network, Precision, in_mode
from benchmark.spec import ImageShape
from benchmark.timing import RATES, Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCost:
    """What one image costs.

    Attributes:
        forward: operations of the backbone.
        first: those of its first layer, whose input often needs no gradient.
        head: those of the head.
        num_bytes: that the backbone's layers read and write in the forward pass.
        precision: of the backbone.
    """

    forward: int
    first: int
    head: int
    num_bytes: int
    precision: Precision

    def training(self, images: int, *, head: bool = True) -> Operations:
        """Return the operations of a forward and a backward pass for all weights."""
        return self.times(
            backbone=images * (3 * self.forward - self.first), head=3 * images * self.head * head
        )

    def times(self, *, backbone: int, head: int = 0) -> Operations:
        """Return operations by the rate that bounds them; the head is always in fp32."""
        return {RATES["convolution", self.precision]: backbone, "matrix product fp32": head}


def cost_of(network: Network, shape: ImageShape) -> ImageCost:
    """Count the operations and bytes of one image."""
    operations: list[int] = []
    numbers: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        numbers.append(inputs[0].numel() + output.numel())
        if isinstance(layer, nn.Conv2d):
            operations.append(2 * math.prod(output.shape[2:]) * layer.weight.numel())
        elif isinstance(layer, nn.Linear):
            operations.append(2 * layer.weight.numel())

    leaves = [layer for layer in network.backbone.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    with in_mode(network, training=False), torch.no_grad():
        network.features(torch.zeros(1, shape.c, shape.h, shape.w, device=network.mean.device))
    for hook in hooks:
        hook.remove()
    return ImageCost(
        forward=sum(operations),
        first=operations[0],
        head=2 * network.head.weight.numel(),
        num_bytes=sum(numbers) * (2 if network.precision == "bf16" else 4),
        precision=network.precision,
    )


def total(*parts: Operations) -> Operations:
    """Add up operations, rate by rate."""
    rates = dict.fromkeys(rate for part in parts for rate in part)
    return {rate: sum(part.get(rate, 0) for part in parts) for rate in rates}

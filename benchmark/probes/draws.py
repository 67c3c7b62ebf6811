"""The training subsets of the fair probe: ordered by tenths to hold out, and standardised."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.probes.linear import in_own_span, random_ranks
from benchmark.probes.logistic import Regression, one_hot
from benchmark.spec import UsageError

_CONSTANT = 1e-6  # a deviation below this fraction of the mean is rounding


def in_tenths(
    labels: Int64[Tensor, " n"], subsets: Int64[Tensor, "b q"], generator: torch.Generator
) -> tuple[Int64[Tensor, "b q"], int, int]:
    """Return subsets ordered by stratified tenths, the size of a tenth, and how many there are.

    All subsets must have the same number of images of each class. A tenth has at least one image of
    every class, so that small classes allow fewer of them; the remainder comes last.

    Raises:
        UsageError: no class has two images.
    """
    sizes = labels[subsets[0]].bincount()
    if sizes.max() < 2:
        raise UsageError("probe fair, 1 label per class: expected 2 or more, as one is held out")
    shares = torch.where(sizes > 1, (sizes // 10).clamp(min=1), 0)
    num_tenths = int((sizes[shares > 0] // shares[shares > 0]).min().clamp(max=10))
    orders = []
    for subset in subsets:
        classes = labels[subset]
        tenths = random_ranks(classes, generator) // shares[classes].clamp(min=1)
        tenths = torch.where(shares[classes] > 0, tenths, num_tenths).clamp(max=num_tenths)
        orders.append(subset[tenths.argsort(stable=True)])
    return torch.stack(orders), int(shares.sum()), num_tenths


class Data(NamedTuple):
    """Standardised images of every subset, one-hot labels, and the images' second moment.

    `roughly`: solve in bf16 first.
    """

    x: Float[Tensor, "b q p"]
    targets: Float[Tensor, "b k q"]
    moment: Float[Tensor, "b p p"]
    roughly: bool

    def start(self, weights: Float[Tensor, "_ k w"] | None) -> Float[Tensor, "b k w"]:
        """Return initial weights and biases: those given (of the first turn), or zeros."""
        (b, k, _), p = self.targets.shape, self.x.shape[2]
        return self.x.new_zeros(b, k, p + 1) if weights is None else weights[:b].to(self.x.device)

    def regression(self, strength: float, *, first: int) -> Regression:
        """Return the problem on all images from index `first` on."""
        return Regression(
            features=self.x[:, first:],
            targets=self.targets[..., first:],
            moment=self.moment,
            strength=strength,
        )

    def in_turn(self, turns: int, tenth: int) -> "Data":
        """Return every subset `turns` times, each time with another tenth in front."""
        if turns == 1:
            return self
        return Data(
            torch.cat([self.x.roll(-turn * tenth, 1) for turn in range(turns)]),
            torch.cat([self.targets.roll(-turn * tenth, 2) for turn in range(turns)]),
            self.moment.repeat(turns, 1, 1),
            self.roughly,
        )


class Scaled(NamedTuple):
    """Standardised images of some draws, and the transform back to raw features."""

    data: Data
    mean: Float[Tensor, "b 1 p"]
    deviation: Float[Tensor, "b 1 p"]
    basis: Float[Tensor, "b p q"] | None

    def for_raw_features(
        self, weights: Float[Tensor, "b k w"]
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"]]:
        """Return the equivalent weights and biases for raw features."""
        dtype, directions = self.mean.dtype, weights[..., :-1]
        if self.basis is not None:
            directions = directions @ self.basis.mT
        directions = directions.to(dtype) / self.deviation
        return directions, weights[..., -1].to(dtype) - (directions @ self.mean.mT)[..., 0]


class Draws:
    """The training subsets in groups; only the one used last is in memory."""

    def __init__(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        groups: Sequence[Int64[Tensor, "_ q"]],
        *,
        num_classes: int,
        roughly: bool,
    ) -> None:
        self._features, self._labels, self._num_classes = features, labels, num_classes
        self._groups, self._roughly = groups, roughly
        self._kept: dict[int, Scaled] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, group: int) -> Scaled:
        if group not in self._kept:
            self._kept.clear()
            self._kept[group] = self._scaled(self._groups[group])
        return self._kept[group]

    def _scaled(self, order: Int64[Tensor, "b q"]) -> Scaled:
        x = self._features[order]
        mean, deviation = _standardise(x)
        basis = None
        if x.shape[2] > x.shape[1]:
            # with fewer images than features, data are separable, and weak penalties need float64
            x, basis = in_own_span(x.double())
        data = Data(
            x,
            one_hot(self._labels[order], self._num_classes),
            x.mT @ x / x.shape[1],
            roughly=self._roughly and basis is None,
        )
        return Scaled(data, mean, deviation, basis)


def _standardise(
    x: Float[Tensor, "b q p"],
) -> tuple[Float[Tensor, "b 1 p"], Float[Tensor, "b 1 p"]]:
    """Standardise features in place; return means and deviations (infinite for constants)."""
    mean = x.mean(1, keepdim=True)
    x.sub_(mean)
    # In parts, as squaring all features at once would double the memory.
    squares = [part.square().mean(1, keepdim=True) for part in x.split(256, dim=2)]
    deviation = torch.cat(squares, dim=2).sqrt()
    deviation.masked_fill_(deviation <= _CONSTANT * mean.abs(), math.inf)
    x.div_(deviation)
    return mean, deviation

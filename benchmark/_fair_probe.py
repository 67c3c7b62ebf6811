"""The fair probe: the best linear classifier that the training split can tell."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from benchmark._logistic import Regression, Solution, one_hot, solve
from benchmark._probes import Classifiers, in_own_span, random_ranks, require_positive
from benchmark.network import Precision
from benchmark.spec import UsageError

_CONSTANT = 1e-6  # a deviation below this part of the mean is rounding
_COARSE = 10.0  # times the tolerance: enough to compare strengths
_ROUGH = 1e-4  # least tolerance in bf16, far above what its rounding adds to a gradient


@dataclass(frozen=True, kw_only=True)
class FairProbe:
    """Multinomial logistic regression on standardised features, solved to convergence.

    The strength of the penalty is that with the best accuracy on held-out images, those of all
    subsets taken together; the answer is then fitted on whole subsets. A tenth of a subset is held
    out (of each class at least one image); where these are few, other tenths take their turn as
    well. Strengths are tried from the strongest on, each from the solution of the one before, until
    accuracy is below the best twice in a row, or once by more than its standard error.
    """

    name: ClassVar[str] = "fair"
    # weaker ones than these leave separable data (few labels) without a solution to be found
    strengths: tuple[float, ...] = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    min_held_out: int = 500  # predictions that the choice rests on, if ten turns can give as many
    # Of the gradient's largest entry, as scikit-learn's LogisticRegression; less in proportion for
    # strengths below 0.01.
    tolerance: float = 1e-4
    max_steps: int = 1_000

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        require_positive(self, "strengths", "min_held_out", "tolerance", "max_steps")

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
        precision: Precision = "fp32",
    ) -> Classifiers:
        """See `Probe.fit`. Features may be scaled in any way, and constant ones do not matter.

        Raises:
            UsageError: no class has two images, so that none can be held out.
        """
        order, tenth, most_turns = _in_tenths(labels.cpu(), subsets.cpu(), generator)
        order = order.to(labels.device)
        x = features[order]
        mean, deviation = _standardise(x)
        basis = None
        if x.shape[2] > x.shape[1]:
            # fewer images than features are separable: then weak penalties need float64
            x, basis = in_own_span(x.double())
        roughly = precision == "bf16" and basis is None
        data = _Data(x, one_hot(labels[order], num_classes), x.mT @ x / x.shape[1], roughly)
        turns = min(most_turns, math.ceil(self.min_held_out / (len(x) * tenth)))
        choice = self._choose(data.in_turn(turns, tenth), tenth)
        solution = self._solve(data, choice.strength, choice.weights[: len(x)])
        directions = solution.weights[..., :-1]
        if basis is not None:
            directions = directions @ basis.mT
        directions = directions.to(features.dtype) / deviation
        return Classifiers(
            weights=directions,
            biases=solution.weights[..., -1].to(features.dtype) - (directions @ mean.mT)[..., 0],
            strength=choice.strength,
            converged=solution.converged,
        )

    def _choose(self, data: "_Data", tenth: int) -> "_Choice":
        """Return the best strength, the first `tenth` images of `data` held out."""
        b, k, _ = data.targets.shape
        weights = data.x.new_zeros(b, k, data.x.shape[2] + 1)
        held_out = data.x[:, :tenth], data.targets[..., :tenth].argmax(1)
        best, misses = _Choice(-1.0, math.nan, weights), 0
        for strength in sorted(self.strengths, reverse=True):
            solution = self._solve(data, strength, weights, first=tenth, coarse=_COARSE)
            weights = solution.weights
            if not solution.converged and best.accuracy >= 0:
                break  # weaker penalties are harder still
            hits = _hits(*held_out, weights)
            accuracy = hits.float().mean().item()
            if accuracy > best.accuracy:
                best = _Choice(accuracy, strength, weights)
            misses = misses + 1 if accuracy < best.accuracy else 0
            error = math.sqrt(best.accuracy * (1 - best.accuracy) / hits.numel())
            if misses == 2 or accuracy < best.accuracy - error:
                break
        return best

    def _solve(
        self,
        data: "_Data",
        strength: float,
        start: Float[Tensor, "b k w"],
        *,
        first: int = 0,
        coarse: float = 1.0,
    ) -> Solution:
        """Return the solution for all images from the `first` on, to `coarse` tolerances."""
        regression = data.regression(strength, first=first)
        # what a gradient says of the weights is in proportion to the penalty that holds them
        tolerance = coarse * self.tolerance * min(1.0, strength / 1e-2)
        if data.roughly:
            near = max(tolerance, _ROUGH)
            rounded = regression.rounded()
            start = solve(rounded, start, tolerance=near, max_steps=self.max_steps).weights
        return solve(regression, start, tolerance=tolerance, max_steps=self.max_steps)


class _Choice(NamedTuple):
    """A strength, its held-out accuracy and its solution."""

    accuracy: float
    strength: float
    weights: Tensor


class _Data(NamedTuple):
    """Standardised images of every subset, one-hot labels, and the images' second moment.

    `roughly`: solutions are first approached in bf16.
    """

    x: Float[Tensor, "b q p"]
    targets: Float[Tensor, "b k q"]
    moment: Float[Tensor, "b p p"]
    roughly: bool

    def regression(self, strength: float, *, first: int) -> Regression:
        """Return the problem on all images from the `first` on."""
        return Regression(
            features=self.x[:, first:],
            targets=self.targets[..., first:],
            moment=self.moment,
            strength=strength,
        )

    def in_turn(self, turns: int, tenth: int) -> "_Data":
        """Return every subset `turns` times, another tenth in front each time."""
        if turns == 1:
            return self
        return _Data(
            torch.cat([self.x.roll(-turn * tenth, 1) for turn in range(turns)]),
            torch.cat([self.targets.roll(-turn * tenth, 2) for turn in range(turns)]),
            self.moment.repeat(turns, 1, 1),
            self.roughly,
        )


def _in_tenths(
    labels: Int64[Tensor, " n"], subsets: Int64[Tensor, "b q"], generator: torch.Generator
) -> tuple[Int64[Tensor, "b q"], int, int]:
    """Return subsets ordered by stratified tenths, the size of a tenth, and how many there are.

    All subsets must hold equally many images of each class. A tenth is at least one image of every
    class, so that small classes make fewer of them; what is left over comes last.

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


def _hits(
    x: Float[Tensor, "b h p"], classes: Int64[Tensor, "b h"], weights: Float[Tensor, "b k w"]
) -> Bool[Tensor, "b h"]:
    """Return which images are classified rightly."""
    logits = torch.baddbmm(weights[..., -1:], weights[..., :-1], x.mT)
    return logits.argmax(1) == classes


def _standardise(
    x: Float[Tensor, "b q p"],
) -> tuple[Float[Tensor, "b 1 p"], Float[Tensor, "b 1 p"]]:
    """Standardise features in place; return means and deviations, infinite ones of constants."""
    mean = x.mean(1, keepdim=True)
    x.sub_(mean)
    # In parts, as the squares of all features at once would double the memory.
    squares = [part.square().mean(1, keepdim=True) for part in x.split(256, dim=2)]
    deviation = torch.cat(squares, dim=2).sqrt()
    deviation.masked_fill_(deviation <= _CONSTANT * mean.abs(), math.inf)
    x.div_(deviation)
    return mean, deviation

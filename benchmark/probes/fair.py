"""The fair probe: the best linear classifier that the training split can tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from benchmark.memory import num_at_once
from benchmark.network import Precision
from benchmark.probes.linear import Classifiers, Walk, in_own_span, random_ranks
from benchmark.probes.logistic import Regression, Solution, one_hot, solve
from benchmark.ranges import expect_counts, expect_positive
from benchmark.spec import Loop, UsageError

_CONSTANT = 1e-6  # a deviation below this part of the mean is rounding
# Enough to compare strengths: so many times the tolerance, and no more than the latter, as with
# many classes even weights of zero have a gradient of 1e-2.
_COARSE, _COARSEST = 10.0, 1e-3
# Least tolerance in bf16, far above what its rounding adds to a gradient; ten times as much from
# this strength on, where a gradient is the difference of larger terms.
ROUGH, _STRONG = 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class FairProbe:
    """Multinomial logistic regression on standardised features, solved to convergence.

    The strength of the penalty is that with the best accuracy on held-out images, those of all
    subsets taken together; the answer is then fitted on whole subsets. A tenth of a subset is held
    out (of each class at least one image); where these are few, other tenths take their turn as
    well. Strengths are tried from the strongest on, each from the solution of the one before, until
    accuracy is below the best twice in a row, or once by more than its standard error. That is
    looked at on the way, too: a weak penalty that does harm shows it long before it is solved.
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
        expect_counts(self, "min_held_out", "max_steps")
        expect_positive(self, "strengths", "tolerance")

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
        checkpoint: Loop,
        precision: Precision = "fp32",
        max_memory: int | None = None,
    ) -> Classifiers:
        """See `Probe.fit`. Features may be scaled in any way, and constant ones do not matter.

        Raises:
            UsageError: no class has two images, so that none can be held out.
        """
        order, tenth, num_tenths = _in_tenths(labels.cpu(), subsets.cpu(), generator)
        turns = self.num_turns(len(order) * tenth, num_tenths=num_tenths)
        each = turns * bytes_of_draw(order.shape[1], features.shape[1], num_classes)
        size = num_at_once(len(order), each=each, max_memory=max_memory)
        draws = _Draws(
            features,
            labels,
            order.to(labels.device).split(size),
            num_classes=num_classes,
            roughly=precision == "bf16",
        )
        # Of other groups the weights could not be gone on from.
        loop = f"strengths for {size} draws at once"
        choice = self._choose(
            draws, turns, tenth, partial(checkpoint.steps, loop, len(self.strengths))
        )
        parts = [
            self._finish(draws[group], choice.strength, start)
            for group, start in enumerate(choice.weights)
        ]
        weights, biases, converged = zip(*parts, strict=True)
        return Classifiers(
            weights=torch.cat(weights),
            biases=torch.cat(biases),
            strength=choice.strength,
            converged=all(converged),
        )

    def num_turns(self, held_out: int, *, num_tenths: int) -> int:
        """Return how many tenths take their turn, of which all subsets together hold out one."""
        return min(num_tenths, math.ceil(self.min_held_out / held_out))

    def tolerance_at(self, strength: float) -> float:
        """Return the tolerance for a strength."""
        return self.tolerance * _held_by(strength)

    def coarse_tolerance_at(self, strength: float) -> float:
        """Return the tolerance for comparing a strength with others."""
        tolerance = self.tolerance_at(strength)
        return max(tolerance, min(_COARSE * tolerance, _COARSEST * _held_by(strength)))

    def looks_at(self, strength: float) -> list[float]:
        """Return the tolerances at which a strength is compared, the last one by its solution."""
        last = self.coarse_tolerance_at(strength)
        return [_rough(strength), last] if last < _rough(strength) else [last]

    def _choose(self, draws: "_Draws", turns: int, tenth: int, walk: Walk) -> "_Choice":
        """Return the best strength, the first `tenth` images of every draw held out."""
        strengths, search = sorted(self.strengths, reverse=True), _Search(len(draws))
        for index in walk(search=search):
            strength = strengths[index]
            *on_the_way, last = self.looks_at(strength)
            for tolerance in (*on_the_way, last):
                if not search.over:  # no break, so that the last strength is kept as well
                    parts = [
                        self._attempt(
                            draws[group].data.in_turn(turns, tenth),
                            strength,
                            start,
                            tenth=tenth,
                            tolerance=tolerance,
                        )
                        for group, start in enumerate(search.weights)
                    ]
                    search.judge(strength, parts, solved=tolerance == last)
        return search.best

    def _attempt(
        self, data: "_Data", strength: float, start: Tensor | None, *, tenth: int, tolerance: float
    ) -> tuple[Solution, Bool[Tensor, "b h"]]:
        """Solve without the first `tenth` images; return which of these come out right as well."""
        start = data.start(start)
        solution = self._solve(data, strength, start, tolerance=tolerance, held_out=tenth)
        held_out = data.x[:, :tenth], data.targets[..., :tenth].argmax(1)
        return solution, _hits(*held_out, solution.weights)

    def _finish(
        self, scaled: "_Scaled", strength: float, start: Tensor | None
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"], bool]:
        """Solve with all images; return weights, biases (for raw features) and if it converged."""
        data = scaled.data
        tolerance = self.tolerance_at(strength)
        solution = self._solve(data, strength, data.start(start), tolerance=tolerance)
        return (*scaled.for_raw_features(solution.weights), solution.converged)

    def _solve(
        self,
        data: "_Data",
        strength: float,
        start: Float[Tensor, "b k w"],
        *,
        tolerance: float,
        held_out: int = 0,
    ) -> Solution:
        """Return the solution without the first `held_out` images.

        Where there are such, it is only compared, and may end in bf16.
        """
        regression = data.regression(strength, first=held_out)
        solved = partial(solve, max_steps=self.max_steps)
        if not data.roughly:
            return solved(regression, start, tolerance=tolerance)
        rough = max(tolerance, _rough(strength))
        near = solved(regression.rounded(), start, tolerance=rough)
        if held_out and rough == tolerance:
            return near
        return solved(regression, near.weights, tolerance=tolerance, precondition=near.precondition)


def _held_by(strength: float) -> float:
    """Return how much less a gradient has to be where a weak penalty holds the weights."""
    return min(1.0, strength / 1e-2)


def _rough(strength: float) -> float:
    """Return the least tolerance in bf16."""
    return ROUGH if strength < _STRONG else 10 * ROUGH


class _Choice(NamedTuple):
    """A strength, its held-out accuracy and its solution for each group of draws."""

    accuracy: float
    strength: float
    weights: list[Tensor | None]


class _Search:
    """How far the choice of a strength is: `weights` are those of the last one for each group."""

    def __init__(self, num_groups: int) -> None:
        self.weights: list[Tensor | None] = [None] * num_groups
        self.best = _Choice(-1.0, math.nan, self.weights)
        self.misses = 0  # in a row
        self.over = False

    def judge(
        self,
        strength: float,
        parts: Sequence[tuple[Solution, Bool[Tensor, "_ h"]]],
        *,
        solved: bool,
    ) -> None:
        """Note what a strength gave for each group of draws, and whether the search is over.

        If it is not yet `solved`, it can only be given up.
        """
        self.weights = [solution.weights for solution, _ in parts]
        if self.best.accuracy >= 0 and not all(solution.converged for solution, _ in parts):
            self.over = True  # weaker penalties are harder still
            return
        hits = torch.cat([hits for _, hits in parts])
        accuracy = hits.float().mean().item()
        if solved and accuracy > self.best.accuracy:
            self.best = _Choice(accuracy, strength, self.weights)
        best = self.best.accuracy
        misses = self.misses + 1 if accuracy < best else 0
        if solved:
            self.misses = misses
        error = math.sqrt(max(0.0, best * (1 - best)) / hits.numel())
        self.over = misses == 2 or accuracy < best - error

    def state_dict(self) -> dict[str, Any]:
        """Return what a `Loop` keeps."""
        return {**vars(self), "best": self.best._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was kept."""
        vars(self).update(state, best=_Choice(**state["best"]))


class _Data(NamedTuple):
    """Standardised images of every subset, one-hot labels, and the images' second moment.

    `roughly`: solutions are first approached in bf16.
    """

    x: Float[Tensor, "b q p"]
    targets: Float[Tensor, "b k q"]
    moment: Float[Tensor, "b p p"]
    roughly: bool

    def start(self, weights: Float[Tensor, "_ k w"] | None) -> Float[Tensor, "b k w"]:
        """Return weights and biases to begin with: those given (of the first turn), or zeros."""
        (b, k, _), p = self.targets.shape, self.x.shape[2]
        return self.x.new_zeros(b, k, p + 1) if weights is None else weights[:b].to(self.x.device)

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


class _Scaled(NamedTuple):
    """Standardised images of some draws, and what leads back to raw features."""

    data: _Data
    mean: Float[Tensor, "b 1 p"]
    deviation: Float[Tensor, "b 1 p"]
    basis: Float[Tensor, "b p q"] | None

    def for_raw_features(
        self, weights: Float[Tensor, "b k w"]
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"]]:
        """Return weights and biases that do for raw features what these do for `data`."""
        dtype, directions = self.mean.dtype, weights[..., :-1]
        if self.basis is not None:
            directions = directions @ self.basis.mT
        directions = directions.to(dtype) / self.deviation
        return directions, weights[..., -1].to(dtype) - (directions @ self.mean.mT)[..., 0]


class _Draws:
    """The training subsets in groups of which one at a time is in memory: that used last."""

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
        self._kept: dict[int, _Scaled] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, group: int) -> _Scaled:
        if group not in self._kept:
            self._kept.clear()
            self._kept[group] = self._scaled(self._groups[group])
        return self._kept[group]

    def _scaled(self, order: Int64[Tensor, "b q"]) -> _Scaled:
        x = self._features[order]
        mean, deviation = _standardise(x)
        basis = None
        if x.shape[2] > x.shape[1]:
            # fewer images than features are separable: then weak penalties need float64
            x, basis = in_own_span(x.double())
        data = _Data(
            x,
            one_hot(self._labels[order], self._num_classes),
            x.mT @ x / x.shape[1],
            roughly=self._roughly and basis is None,
        )
        return _Scaled(data, mean, deviation, basis)


def bytes_of_draw(q: int, p: int, k: int) -> int:
    """Return about how much is held for a draw while it is solved (see `logistic` for the names).

    These are x (once more in bf16, at most), S and what its inverse is made from (5 p^2 in all),
    seven tensors of logits, and 26 of weights; where images are fewer than features, all of it in
    their span and twice as wide, besides what the QR decomposition takes.
    """
    if q >= p:
        return 4 * (3 * q * p // 2 + 5 * p * p + 7 * k * q + 26 * k * p)
    return 4 * q * p + 8 * (3 * q * p + 7 * q * q + 33 * k * q)


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

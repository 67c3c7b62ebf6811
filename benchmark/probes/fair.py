"""The fair probe: the best linear classifier, as far as the training split can tell."""

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
from benchmark.probes.draws import Data, Draws, Scaled, in_tenths
from benchmark.probes.linear import Classifiers, Walk
from benchmark.probes.logistic import Solution, solve
from benchmark.ranges import expect_counts, expect_positive
from benchmark.spec import Loop

# Enough to compare strengths: this factor times the tolerance, but at most the second value, as
# with many classes even zero weights have a gradient of 1e-2.
_COARSE, _COARSEST = 10.0, 1e-3
# Smallest tolerance in bf16, far above its rounding error of a gradient; ten times as much from
# this strength on, where a gradient is the difference of larger terms.
ROUGH, _STRONG = 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class FairProbe:
    """Multinomial logistic regression on standardised features, solved to convergence.

    The penalty is the one with the best accuracy on held-out images, pooled over all subsets; the
    final fit then uses whole subsets. A tenth of a subset is held out (at least one image per
    class); if these are few, further tenths are held out in turn (cross-validation). Strengths are
    tried from the strongest, each warm-started from the previous solution, until accuracy is below
    the best twice in a row, or once by more than its standard error. That is also checked halfway
    through a solve: a penalty that is too weak shows long before it is solved.
    """

    name: ClassVar[str] = "fair"
    # with weaker ones, the solver finds no solution for separable data (few labels)
    strengths: tuple[float, ...] = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    min_held_out: int = 500  # predictions behind the choice, if ten turns give that many
    # On the gradient's largest entry, as in scikit-learn's LogisticRegression; proportionally
    # smaller for strengths below 0.01.
    tolerance: float = 1e-4
    max_steps: int = 1_000

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
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
        """See `Probe.fit`. Features may have any scale, and constant ones are ignored.

        Raises:
            UsageError: no class has two images, so none can be held out.
        """
        order, tenth, num_tenths = in_tenths(labels.cpu(), subsets.cpu(), generator)
        turns = self.num_turns(len(order) * tenth, num_tenths=num_tenths)
        each = turns * bytes_of_draw(order.shape[1], features.shape[1], num_classes)
        size = num_at_once(len(order), each=each, max_memory=max_memory)
        draws = Draws(
            features,
            labels,
            order.to(labels.device).split(size),
            num_classes=num_classes,
            roughly=precision == "bf16",
        )
        # In the name, as weights of other groups could not be resumed from.
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
        """Return how many tenths are held out in turn, given the images held out in each turn."""
        return min(num_tenths, math.ceil(self.min_held_out / held_out))

    def tolerance_at(self, strength: float) -> float:
        """Return the tolerance for a strength."""
        return self.tolerance * _held_by(strength)

    def looks_at(self, strength: float) -> list[float]:
        """Return the tolerances at which a strength is compared, the last that of its solution."""
        tolerance, rough = self.tolerance_at(strength), _rough(strength)
        last = max(tolerance, min(_COARSE * tolerance, _COARSEST * _held_by(strength)))
        return [rough, last] if last < rough else [last]

    def _choose(self, draws: Draws, turns: int, tenth: int, walk: Walk) -> "_Choice":
        """Return the best strength, holding out the first `tenth` images of every draw."""
        strengths, search = sorted(self.strengths, reverse=True), _Search(len(draws))
        for index in walk(search=search):
            strength = strengths[index]
            looks = self.looks_at(strength)
            for tolerance in looks:
                if not search.over:  # no break, so that the last strength is saved as well
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
                    search.judge(strength, parts, solved=tolerance == looks[-1])
        return search.best

    def _attempt(
        self, data: Data, strength: float, start: Tensor | None, *, tenth: int, tolerance: float
    ) -> tuple[Solution, Bool[Tensor, "b h"]]:
        """Solve without the first `tenth` images; also return which of these come out correct."""
        start = data.start(start)
        solution = self._solve(data, strength, start, tolerance=tolerance, held_out=tenth)
        held_out = data.x[:, :tenth], data.targets[..., :tenth].argmax(1)
        return solution, _hits(*held_out, solution.weights)

    def _finish(
        self, scaled: Scaled, strength: float, start: Tensor | None
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"], bool]:
        """Solve with all images; return weights, biases (for raw features) and convergence."""
        data = scaled.data
        tolerance = self.tolerance_at(strength)
        solution = self._solve(data, strength, data.start(start), tolerance=tolerance)
        return (*scaled.for_raw_features(solution.weights), solution.converged)

    def _solve(
        self,
        data: Data,
        strength: float,
        start: Float[Tensor, "b k w"],
        *,
        tolerance: float,
        held_out: int = 0,
    ) -> Solution:
        """Return the solution without the first `held_out` images.

        If there are any, the solution is only for comparison, and may stay in bf16.
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
    """Return the factor by which a weak penalty tightens the tolerance."""
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
    """State of the search for a strength: `weights` are those of the last one, by group."""

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
        """Record the result of a strength for each group of draws, and whether to stop.

        A strength that is not yet `solved` can only be given up.
        """
        self.weights = [solution.weights for solution, _ in parts]
        if self.best.accuracy >= 0 and not all(solution.converged for solution, _ in parts):
            self.over = True  # weaker penalties are even harder
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
        """Return what a `Loop` saves."""
        return {**vars(self), "best": self.best._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state."""
        vars(self).update(state, best=_Choice(**state["best"]))


def bytes_of_draw(q: int, p: int, k: int) -> int:
    """Return the approximate memory of a draw during the fit (see `logistic` for the names).

    These are x (and at most a bf16 copy), S and its inversion (5 p^2 in all), seven tensors of
    logits, and 26 of weights; with fewer images than features, all of it in their span and in
    double precision, plus the QR decomposition.
    """
    if q >= p:
        return 4 * (3 * q * p // 2 + 5 * p * p + 7 * k * q + 26 * k * p)
    return 4 * q * p + 8 * (3 * q * p + 7 * q * q + 33 * k * q)


def _hits(
    x: Float[Tensor, "b h p"], classes: Int64[Tensor, "b h"], weights: Float[Tensor, "b k w"]
) -> Bool[Tensor, "b h"]:
    """Return which images are classified correctly."""
    logits = torch.baddbmm(weights[..., -1:], weights[..., :-1], x.mT)
    return logits.argmax(1) == classes

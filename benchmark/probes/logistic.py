"""Multinomial logistic regression with an L2 penalty, solved to convergence, in batches.

The objective, over weights W [k p] and biases c [k]::

    mean cross-entropy of (W x + c)  +  strength / 2 * |W|^2

Biases are not penalised. With C = 1 / (n * strength) it is scikit-learn's `LogisticRegression`.

The solver is L-BFGS [1], with three changes that exploit the problem's structure:

* Features of a network are strongly correlated, which makes first-order methods slow. At constant
  class probabilities the Hessian is h S + strength, with S the second moment of the features and h
  the mean of p (1 - p). Its inverse (one Cholesky factorisation per strength) replaces the usual
  multiple of the identity as the initial inverse Hessian. On features of convolutional networks
  this saved four of five steps.
* Logits are linear along a search direction, so the slope at any point costs no matrix product, and
  a step costs two products whatever the line search does: 4 n p k operations. It compares slopes,
  not values, as near the optimum the latter are equal in float32.
* Weights from another penalty, or from other images, have the wrong norm: the first step is along
  them. With fewer images than features, later steps would need hundreds for that.

Everything is class-major ([b k n], not [b n k]): with few classes, matrix products in this layout
are two to five times as fast on a CPU. Weights are [b k w], w = p + 1, with the biases as last
column.

[1] Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 7.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_MEMORY = 10  # pairs of L-BFGS; [1] recommends 3 to 20
_DAMPING = 1e-5  # of the trace of S: keeps the factorisation of a singular S stable in float32
_LEAST_CURVATURE = 1e-6  # h of a classifier that is certain of all predictions
_SLOPE = 0.5  # of the initial slope: may remain upward; after a shortened step, either way
_LINE_STEPS = 20

Scalars = Float[Tensor, "b 1 1"]
Precondition = Callable[[Tensor], Tensor]


class _Pair(NamedTuple):
    """A step, the change of the gradient along it, and 1 / their product."""

    step: Tensor
    change: Tensor
    inverse: Tensor


class Solution(NamedTuple):
    """The result of a solve."""

    weights: Float[Tensor, "b k w"]
    steps: int
    converged: bool
    precondition: Precondition


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A batch of b regressions, all of the same size and with the same strength.

    Attributes:
        features: centred, so that weights and biases do not interact.
        targets: one-hot labels.
        moment: S, the mean of x x' over the features (an approximation will do: it only
            preconditions).
        strength: factor of the penalty.
    """

    features: Float[Tensor, "b n p"]
    targets: Float[Tensor, "b k n"]
    moment: Float[Tensor, "b p p"]
    strength: float

    def rounded(self) -> "Regression":
        """Return the problem with features, and thus products, in bf16; sums stay in float32."""
        # contiguous, as the strides of a slice keep oneDNN from using its fast product
        features = self.features.to(torch.bfloat16, memory_format=torch.contiguous_format)
        return replace(self, features=features)

    def logits(self, weights: Float[Tensor, "b k w"]) -> Float[Tensor, "b k n"]:
        """Return W x + c."""
        terms = weights.to(self.features.dtype)
        products = torch.baddbmm(terms[..., -1:], terms[..., :-1], self.features.mT)
        return products.to(weights.dtype)

    def residuals(self, logits: Float[Tensor, "b k n"]) -> Float[Tensor, "b k n"]:
        """Return the derivative of the summed cross-entropy with respect to the logits."""
        return logits.softmax(1).sub_(self.targets)

    def penalty_gradient(self, weights: Float[Tensor, "b k w"]) -> Float[Tensor, "b k w"]:
        """Return the gradient of the penalty alone, which is zero for the biases."""
        gradient = self.strength * weights
        gradient[..., -1] = 0
        return gradient

    def gradient(
        self, residuals: Float[Tensor, "b k n"], weights: Float[Tensor, "b k w"]
    ) -> Float[Tensor, "b k w"]:
        """Return the gradient of the whole objective."""
        products = (residuals.to(self.features.dtype) @ self.features).to(residuals.dtype)
        sums = torch.cat([products, residuals.sum(2, keepdim=True)], dim=2)
        return sums.div_(residuals.shape[2]).add_(self.penalty_gradient(weights))

    def preconditioner(self, residuals: Float[Tensor, "b k n"]) -> Precondition:
        """Return the inverse of the Hessian at constant class probabilities, as a function."""
        k = residuals.shape[1]
        probabilities = residuals + self.targets
        h = (probabilities * (1 - probabilities)).sum(1, keepdim=True).mean(2, keepdim=True)
        h = (h / max(k - 1, 1)).clamp(min=_LEAST_CURVATURE)
        trace = self.moment.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        identity = torch.eye(self.moment.shape[1], device=h.device, dtype=h.dtype)
        hessian = h * self.moment + (self.strength + _DAMPING * h * trace) * identity
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return lambda g: torch.cat([g[..., :-1] @ inverse, g[..., -1:] / h], dim=2)


def one_hot(labels: Int64[Tensor, "b n"], num_classes: int) -> Float[Tensor, "b k n"]:
    """Return labels as the targets of a `Regression`."""
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    return (labels[:, None] == classes).float()


def solve(
    regression: Regression,
    start: Float[Tensor, "b k w"],
    *,
    tolerance: float,
    max_steps: int,
    precondition: Precondition | None = None,
) -> Solution:
    """Minimise until no entry of the gradient exceeds `tolerance`, or for `max_steps`.

    A converged regression of the batch stays fixed while the others continue. `precondition` is
    that of a nearby solution; it is computed if not given.
    """
    weights, logits = start, regression.logits(start)
    residuals = regression.residuals(logits)
    gradient = regression.gradient(residuals, weights)
    resizes = precondition is None and bool(start.any())
    precondition = precondition or regression.preconditioner(residuals)
    pairs: list[_Pair] = []
    scale: Tensor = torch.ones_like(gradient[:, :1, :1])
    for steps in range(max_steps + 1):
        active = gradient.abs().amax((1, 2), keepdim=True) > tolerance
        if steps == max_steps or not active.any():
            break
        if resizes and steps == 0:
            downhill = -_dot(gradient, weights).sign() * weights
        else:
            downhill = -_inverse_hessian_times(gradient, pairs, scale, precondition)
        direction = active.float() * downhill
        step, logits, residuals = _search(regression, weights, gradient, direction, logits)
        weights = weights + step
        before, gradient = gradient, regression.gradient(residuals, weights)
        change = gradient - before
        product = _dot(step, change)
        inverse = torch.where(product > 0, 1 / product, 0)
        pairs = [*pairs[1 - _MEMORY :], _Pair(step, change, inverse)]
        length = _dot(change, precondition(change))
        scale = torch.where(product > 0, product / length, scale)
    return Solution(weights, steps, not bool(active.any()), precondition)


def _inverse_hessian_times(
    gradient: Tensor, pairs: Sequence[_Pair], scale: Scalars, precondition: Precondition
) -> Tensor:
    """Return the approximate inverse Hessian times the gradient: [1], algorithm 7.4."""
    result = gradient
    factors = []
    for pair in reversed(pairs):
        factors.append(pair.inverse * _dot(pair.step, result))
        result = result - factors[-1] * pair.change
    result = scale * precondition(result)
    for pair in pairs:
        result = result + (factors.pop() - pair.inverse * _dot(pair.change, result)) * pair.step
    return result


def _search(
    regression: Regression, weights: Tensor, gradient: Tensor, direction: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a step along `direction`, and logits and residuals there.

    The full step, unless its slope is too far upward: then bisection until its magnitude is at most
    a fraction of the initial slope's. (Stopping earlier, on a steep downward slope, costs steps;
    stopping only beyond the minimum may end in the flat region where all classes are certain, from
    where progress is slow.) The objective is convex, so every step has the positive curvature that
    L-BFGS requires.
    """
    change = regression.logits(direction)
    slope_before = _dot(gradient, direction)
    penalty = regression.penalty_gradient(direction)
    at_start, growth = _dot(weights, penalty), _dot(direction, penalty)
    near, far = torch.zeros_like(slope_before), torch.ones_like(slope_before)
    length = far
    for tries_left in reversed(range(_LINE_STEPS)):
        ahead = torch.addcmul(logits, length, change)
        residuals = regression.residuals(ahead)
        slope = _dot(residuals, change) / change.shape[2] + at_start + length * growth
        too_far = slope > -_SLOPE * slope_before
        too_near = (slope < _SLOPE * slope_before) & (length < 1)
        if not (tries_left and (too_far | too_near).any()):
            break
        near, far = torch.where(too_near, length, near), torch.where(too_far, length, far)
        length = torch.where(too_far | too_near, (near + far) / 2, length)
    return length * direction, ahead, residuals


def _dot(left: Tensor, right: Tensor) -> Scalars:
    return (left * right).sum((1, 2), keepdim=True)

"""The two linear probes: ways to fit linear classifiers on features of a training split.

Each fits one classifier on every one of b subsets of the split at once, of q images each: all
labels are one subset, few labels are ten small ones. A probe never sees what it is tested on.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from benchmark._logistic import Regression, one_hot, solve
from benchmark.spec import UsageError

_CONSTANT = 1e-6  # a deviation below this part of the mean is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifiers:
    """What a probe fits: one linear classifier for each subset of the training split.

    Attributes:
        weights, biases: for raw features.
        strength: of the penalty that the probe chose, if it has one.
        converged: whether fitting ended as it should.
    """

    weights: Float[Tensor, "b k p"]
    biases: Float[Tensor, "b k"]
    strength: float | None
    converged: bool

    def predict(self, features: Float[Tensor, "n p"]) -> Int64[Tensor, "b n"]:
        """Return the class that each classifier sees in each image."""
        return (self.weights @ features.T + self.biases[..., None]).argmax(1)


class Probe(Protocol):
    """A way to fit linear classifiers: a frozen dataclass of its settings."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
    ) -> Classifiers:
        """Fit one classifier on each subset, given as row numbers; `generator` is on the CPU."""


@dataclass(frozen=True, kw_only=True)
class PaperProbe:
    """The linear evaluation of KRR-ST, which the paper follows: SGD on features as they are.

    Cross-entropy, no weight decay, the layer initialised as `torch.nn.Linear`, every image used
    equally often. Defaults are those of KRR-ST's released code (`linear_eval`).
    """

    name: ClassVar[str] = "paper"
    lr: float = 0.2
    momentum: float = 0.9
    steps: int = 5_000  # cosine to zero over all of them
    batch: int = 512  # or the whole subset, if that is smaller

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _require_positive(self, "lr", "steps", "batch")

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
    ) -> Classifiers:
        """See `Probe.fit`.

        Weights leave their start only within the span of the features, so that where images are
        fewer than features, their coordinates in that span do as well, and are smaller.
        """
        p, bound = features.shape[1], 1 / math.sqrt(features.shape[1])
        shape = (len(subsets), num_classes, p + 1)
        start = torch.rand(shape, generator=generator).mul_(2 * bound).sub_(bound).to(features)
        rows = self._rows(len(subsets), subsets.shape[1], generator).to(subsets.device)
        if p <= subsets.shape[1]:
            rows = torch.stack([subset[part] for subset, part in zip(subsets, rows, strict=True)])
            weights, biases = self._descend(features, labels, rows, start)
        else:
            x, basis = _in_own_span(features[subsets])
            rows += torch.arange(len(rows), device=rows.device)[:, None] * subsets.shape[1]
            inside = start[..., :-1] @ basis
            weights, biases = self._descend(
                x.flatten(0, 1),
                labels[subsets].flatten(),
                rows,
                torch.cat([inside, start[..., -1:]], dim=2),
            )
            weights = start[..., :-1] + (weights - inside) @ basis.mT
        finite = weights.isfinite().all() & biases.isfinite().all()
        return Classifiers(weights=weights, biases=biases, strength=None, converged=bool(finite))

    def _rows(
        self, num_subsets: int, num_images: int, generator: torch.Generator
    ) -> Int64[Tensor, "b t"]:
        """Return which images of its subset each step sees: shuffled passes, one after another."""
        length = self.steps * min(self.batch, num_images)
        passes = math.ceil(length / num_images)
        order = [
            torch.randperm(num_images, generator=generator) for _ in range(num_subsets * passes)
        ]
        return torch.stack(order).view(num_subsets, -1)[:, :length]

    def _descend(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        rows: Int64[Tensor, "b t"],
        start: Float[Tensor, "b k w"],
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"]]:
        """Return weights and biases after all steps, as `torch.optim.SGD` takes them."""
        weights, biases = start[..., :-1].contiguous(), start[..., -1:].contiguous()
        velocity, bias_velocity = torch.zeros_like(weights), torch.zeros_like(biases)
        targets = one_hot(labels[None], start.shape[1])[0].T.contiguous()
        for step, batch in enumerate(rows.unflatten(1, (self.steps, -1)).unbind(1)):
            x = features[batch]
            logits = torch.baddbmm(biases, weights, x.mT)
            residuals = logits.softmax(1).sub_(targets[batch].mT).div_(batch.shape[1])
            velocity.baddbmm_(residuals, x, beta=self.momentum)
            bias_velocity.mul_(self.momentum).add_(residuals.sum(2, keepdim=True))
            rate = self.lr * (1 + math.cos(math.pi * step / self.steps)) / 2
            weights.sub_(velocity, alpha=rate)
            biases.sub_(bias_velocity, alpha=rate)
        return weights, biases[..., 0]


@dataclass(frozen=True, kw_only=True)
class FairProbe:
    """Multinomial logistic regression on standardised features, solved to convergence.

    The strength of the penalty is that with the best accuracy on a held-out tenth of every subset
    (at least one image of each class), all subsets taken together; the answer is then fitted on
    whole subsets. Strengths are tried from the strongest on, each from the solution of the one
    before, until accuracy is below the best by more than its standard error.
    """

    name: ClassVar[str] = "fair"
    strengths: tuple[float, ...] = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    tolerance: float = 1e-4  # of the gradient's largest entry, as scikit-learn's LogisticRegression
    max_steps: int = 1_000

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _require_positive(self, "strengths", "tolerance", "max_steps")

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
    ) -> Classifiers:
        """See `Probe.fit`. Features may be scaled in any way, and constant ones do not matter.

        Raises:
            UsageError: no class has two images, so that none can be held out.
        """
        order, num_held_out = _held_out_first(labels.cpu(), subsets.cpu(), generator)
        order = order.to(labels.device)
        x = features[order]
        mean, deviation = _standardise(x)
        basis = None
        if x.shape[2] > x.shape[1]:
            x, basis = _in_own_span(x)
        data = _Data(x, one_hot(labels[order], num_classes), x.mT @ x / x.shape[1], num_held_out)
        choice = self._choose(data)
        weights, _, converged = solve(
            data.regression(choice.strength),
            choice.weights,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        directions = weights[..., :-1] if basis is None else weights[..., :-1] @ basis.mT
        directions = directions / deviation
        return Classifiers(
            weights=directions,
            biases=weights[..., -1] - (directions @ mean.mT)[..., 0],
            strength=choice.strength,
            converged=converged,
        )

    def _choose(self, data: "_Data") -> "_Choice":
        """Return the strength with the best held-out accuracy; the stronger of equals."""
        b, k, _ = data.targets.shape
        weights = data.x.new_zeros(b, k, data.x.shape[2] + 1)
        best = _Choice(-1.0, math.nan, weights)
        for strength in sorted(self.strengths, reverse=True):
            weights, *_ = solve(
                data.regression(strength, fit_only=True),
                weights,
                tolerance=self.tolerance,
                max_steps=self.max_steps,
            )
            hits = data.held_out_hits(weights)
            accuracy = hits.float().mean().item()
            if accuracy > best.accuracy:
                best = _Choice(accuracy, strength, weights)
            error = math.sqrt(best.accuracy * (1 - best.accuracy) / hits.numel())
            if accuracy < best.accuracy - error:
                break
        return best


def _require_positive(probe: PaperProbe | FairProbe, *fields: str) -> None:
    for field in fields:
        value = getattr(probe, field)
        if not min(value if isinstance(value, tuple) else (value,), default=0) > 0:
            raise UsageError(f"{probe.name}.{field}={value}: expected numbers above zero")


class _Choice(NamedTuple):
    """A strength, its held-out accuracy and its solution."""

    accuracy: float
    strength: float
    weights: Tensor


class _Data(NamedTuple):
    """Standardised images of every subset, those that are held out first."""

    x: Float[Tensor, "b q p"]
    targets: Float[Tensor, "b k q"]
    moment: Float[Tensor, "b p p"]
    num_held_out: int

    def regression(self, strength: float, *, fit_only: bool = False) -> Regression:
        """Return the problem on all images, or on those that are not held out."""
        first = self.num_held_out if fit_only else 0
        return Regression(
            features=self.x[:, first:],
            targets=self.targets[..., first:],
            moment=self.moment,
            strength=strength,
        )

    def held_out_hits(self, weights: Float[Tensor, "b k w"]) -> Bool[Tensor, "b h"]:
        """Return which of the held-out images are classified rightly."""
        x = self.x[:, : self.num_held_out]
        logits = torch.baddbmm(weights[..., -1:], weights[..., :-1], x.mT)
        return logits.argmax(1) == self.targets[..., : self.num_held_out].argmax(1)


def random_ranks(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return the place of each image in a random order of its class, from 0."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return ranks


def _held_out_first(
    labels: Int64[Tensor, " n"], subsets: Int64[Tensor, "b q"], generator: torch.Generator
) -> tuple[Int64[Tensor, "b q"], int]:
    """Return every subset with its held-out images first, and their number.

    Raises:
        UsageError: there would be none.
    """
    orders = []
    for subset in subsets:
        ranks, sizes = random_ranks(labels[subset], generator), labels[subset].bincount()
        quota = torch.where(sizes > 1, (sizes // 10).clamp(min=1), 0)
        is_held_out = ranks < quota[labels[subset]]
        orders.append(torch.cat([subset[is_held_out], subset[~is_held_out]]))
    if not is_held_out.any():
        raise UsageError("probe fair, 1 label per class: expected 2 or more, as one is held out")
    return torch.stack(orders), int(is_held_out.sum())


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


def _in_own_span(
    x: Float[Tensor, "b q p"],
) -> tuple[Float[Tensor, "b q q"], Float[Tensor, "b p q"]]:
    """Return the coordinates of q < p images in an orthonormal basis around them, and the basis."""
    basis, coordinates = torch.linalg.qr(x.mT)
    return coordinates.mT.contiguous(), basis

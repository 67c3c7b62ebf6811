"""The evaluation behind one number: a student is pretrained, and its features are probed."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, linear

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.network import Network
from benchmark.operators import operations_of
from benchmark.pretrain import RECIPES, Length, pretrain
from benchmark.probes.fair import FairProbe
from benchmark.probes.linear import Classifiers, Probe
from benchmark.probes.paper import PaperProbe
from benchmark.probing import extract
from benchmark.spec import ImageShape, TrainingSet
from benchmark.timing import Operations

from ._cost import ImageCost, cost_of, total
from ._features import fitted
from ._plain_probing import extract_plainly, fair_plainly, paper_plainly
from ._plain_training import PairDataset, train_plainly
from ._setting import BareLoop, moved, networks, normal, stream

__all__ = ["student_evaluation"]

_RECIPE = RECIPES["mse"]


def student_evaluation(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the evaluation from distilled pairs to two probes' logits of test images.

    It is about a twentieth as long as in the protocol. The twin uses DataLoaders, extracts features
    again for each probe, and scikit-learn for the fair one (see `fair-probe`).

    Operations: those of `pretraining-epoch`, `feature-extraction` and `paper-probe`, and the
    products of the fair probe, which are counted in a first run. Bytes: three passes of the
    backbone over training images, one over probed ones.
    """
    m, n, k, side, d, steps, widths = (
        (12, 80, 4, 8, 16, 3, (8, 8)) if small else (100, 5000, 50, 32, 512, 50, (32, 64, 64))
    )
    images, _ = _images(m, k=m, side=side, compute=compute)
    probed, labels = _images(n + n // 5, k=k, side=side, compute=compute)
    student, twin = networks(compute, side, "convnet", d, widths=widths)
    evaluation = _Evaluation(
        images=images,
        targets=normal("targets", 1, m, d, compute=compute),
        steps=steps,
        probed=probed,
        labels=labels[:n],
        k=k,
        compute=compute,
        fair=FairProbe(),
        paper=PaperProbe(steps=5 * steps),
    )
    features = extract(evaluation.pretrained(student), probed, checkpoint=BareLoop())[:n]
    of_fair, first = operations_of(partial(evaluation.fit, evaluation.fair, features))
    cost = cost_of(student, ImageShape(3, side, side))
    return Kernel(
        shape=(
            f"{steps} steps on {m} images of 3x{side}x{side}, ConvNet {widths}, {len(probed)} "
            f"images probed, {k} classes, {5 * steps} steps of the paper probe"
        ),
        fast=lambda: evaluation.fast(student),
        plain=lambda: evaluation.plainly(twin, strength=float(first.strength or 0)),
        operations=total(
            evaluation.operations(cost, student.num_features),
            of_fair,
        ),
        num_bytes=(3 * steps * m + len(probed)) * cost.num_bytes,
        twin_is_counted=False,
        # fp32: fifty steps turn rounding into 4e-3 of the weights' change
        tolerance=0.1 if compute.precision == "bf16" else 2e-2 if small else 5e-2,
        tried=(
            "As for `pretraining-epoch`, `feature-extraction`, `fair-probe` and `paper-probe`; "
            "both probes share the features."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """What a student is pretrained and probed on; the last images of `probed` have no labels.

    Both ways return the change of the student's weights, and both classifiers' logits of these.
    """

    images: UInt8[Tensor, "m c h w"]
    targets: Float[Tensor, "1 m d"]
    steps: int
    probed: UInt8[Tensor, "t c h w"]
    labels: Int64[Tensor, " n"]
    k: int
    compute: Compute
    fair: FairProbe
    paper: PaperProbe

    def fast(self, student: Network) -> Outcome:
        trained, n = self.pretrained(student), len(self.labels)
        features = extract(trained, self.probed, checkpoint=BareLoop())
        found = [self.fit(probe, features[:n]) for probe in (self.fair, self.paper)]
        logits = [linear(features[n:], one.weights[0], one.biases[0]) for one in found]
        return (*moved(student, trained), *logits)

    def plainly(self, student: Network, *, strength: float) -> Outcome:
        trained, n = deepcopy(student), len(self.labels)
        train_plainly(trained, PairDataset(self.images, self.targets), _RECIPE, epochs=self.steps)
        x = extract_plainly(trained, self.probed)
        fair = fair_plainly(x[:n], self.labels, self.fair, strength=strength)
        again = extract_plainly(trained, self.probed)
        paper = paper_plainly(again[:n], self.labels, self.paper, k=self.k)
        return (*moved(student, trained), linear(x[n:], *fair), linear(again[n:], *paper))

    def pretrained(self, student: Network) -> Network:
        trained = deepcopy(student)
        pretrain(
            trained,
            TrainingSet(
                images=self.images, views=("identity",), targets=self.targets, objective="mse"
            ),
            Length(steps=self.steps),
            recipe=_RECIPE,
            generator=stream("order", self.images.device),
            checkpoint=BareLoop(),
        )
        return trained

    def fit(self, probe: Probe, features: Float[Tensor, "n p"]) -> Classifiers:
        return fitted(probe, features, self.labels, k=self.k, compute=self.compute)

    def operations(self, cost: ImageCost, p: int) -> Operations:
        """Count everything except the fair probe, for p features."""
        products = 4 * self.paper.steps * min(self.paper.batch, len(self.labels)) * self.k * p
        return total(
            cost.training(self.steps * len(self.images)),
            cost.times(backbone=len(self.probed) * cost.forward),
            {"matrix product fp32": products},
        )


def _images(
    num: int, *, k: int, side: int, compute: Compute
) -> tuple[UInt8[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """Return smooth images, like photographs, of k classes that are not quite separable."""
    labels = torch.arange(num, device=compute.device) % k
    coarse = normal("classes", k, 3, 4, 4, compute=compute)[labels]
    coarse = coarse + 1.5 * normal("coarse", num, 3, 4, 4, compute=compute)
    smooth = interpolate(coarse, size=(side, side), mode="bilinear")
    fine = smooth + 0.3 * normal("fine", num, 3, side, side, compute=compute)
    return (255 * torch.sigmoid(fine)).to(torch.uint8), labels

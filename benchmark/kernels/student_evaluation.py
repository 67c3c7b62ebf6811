"""All that a number in a table takes: a student is pretrained, and its features are probed."""

from copy import deepcopy

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark._fair_probe import FairProbe
from benchmark._probes import Classifiers, PaperProbe
from benchmark.compute import Compute
from benchmark.network import Network
from benchmark.planning.network_cost import Pass, operators_of
from benchmark.pretrain import RECIPES, Length, pretrain
from benchmark.probe import extract
from benchmark.spec import ImageShape, TrainingSet
from benchmark.timing import Kernel, Outcome

from ._cost import cost_of, total
from ._plain_probing import extract_plainly, fair_plainly, paper_plainly
from ._plain_training import Pairs, train_plainly
from ._setting import BareLoop, moved, network, normal, stream
from ._setting import plain as plainly

__all__ = ["student_evaluation"]


def student_evaluation(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the way from distilled pairs to what two probes say of test images.

    It is about a twentieth as long as in the protocol. The twin goes through DataLoaders, extracts
    features for each probe anew, and asks scikit-learn for the fair one (see `fair-probe`).

    Operations: those of `pretraining-epoch`, `feature-extraction` and `paper-probe`, and the
    products of the fair probe, which are counted in a first run. Bytes: three passes of the
    backbone over what is trained on, one over what is probed.
    """
    m, n, k, side, d, steps, widths = (
        (12, 80, 4, 8, 16, 3, (8, 8)) if small else (100, 5000, 50, 32, 512, 50, (32, 64, 64))
    )
    images, _ = _images(m, k=m, side=side, compute=compute)
    probed, labels = _images(n + n // 5, k=k, side=side, compute=compute)
    targets = normal("targets", 1, m, d, compute=compute)
    student, twin = (
        network(how, side, "convnet", d, widths=widths) for how in (compute, plainly(compute))
    )
    recipe, fair, paper = RECIPES["mse"], FairProbe(), PaperProbe(steps=5 * steps)

    def pretrained() -> Network:
        trained = deepcopy(student)
        pretrain(
            trained,
            TrainingSet(images=images, views=("identity",), targets=targets, objective="mse"),
            Length(steps=steps),
            recipe=recipe,
            generator=stream("order", compute.device),
            checkpoint=BareLoop(),
        )
        return trained

    def fitted(probe: FairProbe | PaperProbe, features: Float[Tensor, "n p"]) -> Classifiers:
        return probe.fit(
            features[:n],
            labels[:n],
            subsets=torch.arange(n, device=compute.device)[None],
            num_classes=k,
            generator=stream("probe"),
            precision=compute.precision,
        )

    def fast() -> Outcome:
        trained = pretrained()
        features = extract(trained, probed)
        both = [fitted(probe, features) for probe in (fair, paper)]
        return (
            *moved(student, trained),
            *(_logits(features[n:], found.weights[0], found.biases[0]) for found in both),
        )

    first: list[Classifiers] = []
    features = extract(pretrained(), probed)
    counted = operators_of(lambda: first.append(fitted(fair, features)))
    strength = float(first[0].strength or 0)

    def plain() -> Outcome:
        trained = deepcopy(twin)
        train_plainly(trained, Pairs(images, targets), recipe, epochs=steps)
        x, y = extract_plainly(trained, probed), labels[:n]
        by_fair = _logits(x[n:], *fair_plainly(x[:n], y, fair, strength=strength))
        x = extract_plainly(trained, probed)
        by_paper = _logits(x[n:], *paper_plainly(x[:n], y, paper, k=k))
        return (*moved(twin, trained), by_fair, by_paper)

    cost, p = cost_of(student, ImageShape(3, side, side)), student.num_features
    products = 4 * paper.steps * min(paper.batch, n) * k * p
    return Kernel(
        shape=(
            f"{steps} steps on {m} images of 3x{side}x{side}, ConvNet {widths}, {len(probed)} "
            f"images probed, {k} classes, {paper.steps} steps of the paper probe"
        ),
        fast=fast,
        plain=plain,
        operations=total(
            cost.training(steps * m),
            cost.times(backbone=len(probed) * cost.forward),
            Pass(operators=counted, saved=0, weights=0).operations,
            {"matrix product fp32": products},
        ),
        num_bytes=(3 * steps * m + len(probed)) * cost.num_bytes,
        tolerance=0.5 if compute.precision == "bf16" else 2e-2,
        tried=(
            "What `pretraining-epoch`, `feature-extraction`, `fair-probe` and `paper-probe` say, "
            "and features that both probes share."
        ),
    )


def _images(
    num: int, *, k: int, side: int, compute: Compute
) -> tuple[UInt8[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """Return images of k classes that are smooth, as photographs are, and not quite separable."""
    labels = torch.arange(num, device=compute.device) % k
    coarse = normal("classes", k, 3, 4, 4, compute=compute)[labels]
    coarse = coarse + 1.5 * normal("coarse", num, 3, 4, 4, compute=compute)
    smooth = interpolate(coarse, size=(side, side), mode="bilinear")
    fine = smooth + 0.3 * normal("fine", num, 3, side, side, compute=compute)
    return (255 * torch.sigmoid(fine)).to(torch.uint8), labels


def _logits(
    features: Float[Tensor, "n p"], weights: Float[Tensor, "k p"], biases: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    """Return what a classifier says of images."""
    return torch.addmm(biases, features, weights.T)

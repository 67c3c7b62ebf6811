"""Probes: linear evaluation of a student's frozen features.

Two linear probes, always both, because they answer different questions. `fair` finds the best
linear classifier and is invariant to the scale of features. `paper` takes the published number of
SGD steps on raw features, so it partly measures how well their scale suits its learning rate: the
same untrained ConvNet scores 24 % with it on CIFAR-100 and 37 % with `fair` (`reports/cifar100`).

A third number, `head`, is the accuracy of the student's own classifier, if it was pretrained on
labels of the same classes: what papers on supervised methods report.

A probe is given the training split only. Test labels are compared with its predictions here, once,
and no choice depends on them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from benchmark import rng
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network, Precision, in_mode
from benchmark.probes.fair import FairProbe
from benchmark.probes.linear import Probe, random_ranks
from benchmark.probes.paper import PaperProbe
from benchmark.spec import Loop, NonFiniteError, UsageError

BATCH = 256  # images in a forward pass of feature extraction
NUM_DRAWS = 10  # subsets of the training split that a few-label number is averaged over

HEAD = "head"  # the probe without fitting


@dataclass(frozen=True, kw_only=True)
class HeadProbe:
    """The student's own classifier; there is nothing to set or to fit."""

    name: ClassVar[str] = HEAD

    def score(self, head: nn.Linear, test: "LabelledFeatures") -> "ProbeScore":
        """Score a classifier on the features of its own backbone.

        Raises:
            NonFiniteError: a feature is not finite.
        """
        started = time.perf_counter()
        _expect_finite("test", test)
        with torch.inference_mode():
            hits = (head(test.features).argmax(1) == test.labels).sum()
        top1 = 100 * int(hits) / len(test.labels)
        return ProbeScore(
            probe=self.name,
            labels_per_class=None,
            top1=top1,
            draws=(top1,),
            strength=None,
            converged=True,
            seconds=time.perf_counter() - started,
        )


PROBES: Mapping[str, type[FairProbe] | type[PaperProbe] | type[HeadProbe]] = {
    "fair": FairProbe,
    "paper": PaperProbe,
    HEAD: HeadProbe,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """One split of a dataset as a student sees it; `fingerprint` is that of its images."""

    features: Float[Tensor, "n p"]
    labels: Int64[Tensor, " n"]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """The result of one probe.

    Attributes:
        probe: its name.
        labels_per_class: how many labels it saw; None means all.
        top1: accuracy in per cent, the mean of `draws`.
        draws: accuracy for each subset of the training split (one if it is the whole split).
        strength: penalty that the probe chose; None if it has none.
        converged: False if the fit stopped early, or diverged.
        seconds: wall-clock time of fit and test.
    """

    probe: str
    labels_per_class: int | None
    top1: float
    draws: tuple[float, ...]
    strength: float | None
    converged: bool
    seconds: float


def extract(
    network: Network,
    images: UInt8[Tensor, "n c h w"],
    *,
    checkpoint: Loop,
    name: str = "features",
) -> Float[Tensor, "n p"]:
    """Return the frozen features of all images, on the network's device.

    Images may be anywhere, also in a memory-mapped file: they are moved batch by batch. `name` is
    that of the loop.
    """
    device = network.mean.device
    features = torch.empty(len(images), network.num_features, device=device)
    batches, parts = images.split(BATCH), features.split(BATCH)
    with in_mode(network, training=False), torch.inference_mode():
        frozen = network.frozen()
        for step in checkpoint.steps(name, len(batches), features=features):
            batch = batches[step].to(device)
            parts[step].copy_(frozen.features(batch / 255))
    return features


def probe(
    train: LabelledFeatures,
    *,
    test: LabelledFeatures,
    num_classes: int,
    kind: Probe,
    labels_per_class: int | None,
    seed: int,
    checkpoint: CheckpointedLoop,
    precision: Precision = "fp32",
    max_memory: int | None = None,
) -> ProbeScore:
    """Score features with a probe that sees some labels per class, or all labels.

    The images of a few-label draw depend only on the training split, so they are the same for all
    methods, students and seeds; other randomness of a probe depends on the split and `seed`. With
    `max_memory` bytes, only as many draws are fitted at once as memory allows (`benchmark.memory`).

    Raises:
        UsageError: a class has too few images for so many labels, or for the probe.
        NonFiniteError: a feature is not finite.
    """
    _expect_finite("training", train)
    _expect_finite("test", test)
    subsets = _subsets(train, labels_per_class, num_classes).to(train.labels.device)
    classifiers = kind.fit(
        train.features,
        train.labels,
        subsets=subsets,
        num_classes=num_classes,
        generator=rng.generator("probe", kind.name, train.fingerprint, seed),
        checkpoint=checkpoint,
        precision=precision,
        max_memory=max_memory,
    )
    hits = (classifiers.predict(test.features) == test.labels).sum(1)
    draws = tuple(100 * count / len(test.labels) for count in hits.tolist())
    return ProbeScore(
        probe=kind.name,
        labels_per_class=labels_per_class,
        top1=sum(draws) / len(draws),
        draws=draws,
        strength=classifiers.strength,
        converged=classifiers.converged,
        seconds=checkpoint.seconds,
    )


def _expect_finite(name: str, split: LabelledFeatures) -> None:
    if not split.features.mean(0).isfinite().all():
        raise NonFiniteError(f"features of {name} images are not finite")


def _subsets(
    train: LabelledFeatures, labels_per_class: int | None, num_classes: int
) -> Int64[Tensor, "b q"]:
    """Return the rows that each draw sees: all, or `labels_per_class` of each class.

    Raises:
        UsageError: a class has fewer.
    """
    labels = train.labels.cpu()
    if labels_per_class is None:
        return torch.arange(len(labels))[None]
    most = int(labels.bincount(minlength=num_classes).min())
    if not 1 <= labels_per_class <= most:
        raise UsageError(
            f"labels per class: {labels_per_class}: expected 1 to {most}, the size of the smallest "
            "class of the training split"
        )
    draws = []
    for draw in range(NUM_DRAWS):
        stream = rng.generator("labels", train.fingerprint, labels_per_class, draw)
        draws.append((random_ranks(labels, stream) < labels_per_class).nonzero()[:, 0])
    return torch.stack(draws)

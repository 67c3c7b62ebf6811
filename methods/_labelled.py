"""Code shared by the supervised methods: images per class, real images by class, and decoding.

Distilled images are ordered by class, [k ipc c h w], so that the order implies the integer labels,
which take no storage. During distillation, images are *normalised* (mean 0, standard deviation 1
per channel, by the statistics of the source), as these methods were published.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import one_hot

from benchmark.network import Network, Precision
from benchmark.spec import Outline, Problem, TrainingSet, UsageError


def images_per_class(method: str, outline: Outline) -> tuple[int, int]:
    """Return the number of classes k and the images per class (IPC) of the budget N = IPC x k.

    Raises:
        UsageError: the source has no labels, there is a single class, or N is less than one image
            per class or not a multiple of k, or some class has too few images.
    """
    sizes, budget = outline.class_sizes, outline.N
    if sizes is None:
        raise UsageError(f"{method} learns from labels, and the source set has none")
    k = len(sizes)
    if k < 2:
        raise UsageError(f"{method} learns to tell classes apart, and the source set has only one")
    ipc, rest = divmod(budget, k)
    if ipc == 0:
        raise UsageError(
            f"{method} at N={budget}: less than one image for each of {k} classes; the smallest "
            f"budget that holds a class-balanced set is {k}"
        )
    if rest:
        raise UsageError(
            f"{method} at N={budget}: not the same number of images for each of {k} classes; the "
            f"nearest budgets that give it are {ipc * k} and {(ipc + 1) * k}"
        )
    if min(sizes) < ipc:
        raise UsageError(
            f"{method} at N={budget}: needs {ipc} images per class, but class "
            f"{sizes.index(min(sizes))} has {min(sizes)}"
        )
    return k, ipc


@dataclass(frozen=True, slots=True, kw_only=True)
class RealImages:
    """The source images by class, drawn as normalised batches.

    Attributes:
        images, labels: of the source.
        rows: indices of the images of each class.
        mean, std: per channel.
        generator: of all draws.
        precision: of networks that these pass through only for comparison.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    rows: tuple[Int64[Tensor, " _"], ...]
    mean: Float[Tensor, "c 1 1"]
    std: Float[Tensor, "c 1 1"]
    generator: torch.Generator
    precision: Precision = "fp32"

    @classmethod
    def of(cls, problem: Problem, generator: torch.Generator) -> "RealImages":
        """Sort the images of a labelled problem by class."""
        if problem.labels is None or problem.num_classes is None:
            raise UsageError("a method that learns from labels needs a source set with labels")
        order = problem.labels.argsort(stable=True)
        counts = torch.bincount(problem.labels, minlength=problem.num_classes).tolist()
        mean, std = torch.tensor((problem.mean, problem.std), device=problem.device)
        return cls(
            images=problem.images,
            labels=problem.labels,
            rows=order.split(counts),
            mean=mean.view(-1, 1, 1),
            std=std.view(-1, 1, 1),
            generator=generator,
            precision=problem.precision,
        )

    def seen_by(self, network: Network) -> Network:
        """Return a view of a network, with shared weights, for matching real images.

        It uses the run's precision. On CIFAR-100, bf16 changes the gradient of 250 images of a
        class by 1 to 3 per cent of its norm, layer by layer; 250 other images change it by 26 to
        50.
        """
        seen = copy(network)
        seen.precision = self.precision
        return seen

    def of_class(self, c: int, most: int) -> Float[Tensor, "b c h w"]:
        """Return distinct random images of class `c`: `most` of them, or all if there are fewer."""
        return self._normalised(self.draw_rows(c, most))

    def draw_rows(self, c: int, most: int) -> Int64[Tensor, " b"]:
        """Return the indices of the images that `of_class` would return."""
        return self.rows[c][self._draw(len(self.rows[c]), most)]

    def draw_rows_of_each_class(self, most: int) -> list[Int64[Tensor, " _"]]:
        """Return such indices for each class, with one sort for all of them."""
        between = torch.rand(
            len(self.labels),
            dtype=torch.float64,
            generator=self.generator,
            device=self.generator.device,
        )
        order = (self.labels + between.to(self.labels.device)).argsort()
        return [part[:most] for part in order.split([len(rows) for rows in self.rows])]

    def batches(self, rows: Sequence[Int64[Tensor, " _"]]) -> list[Float[Tensor, "_ c h w"]]:
        """Return the images of these indices, batch by batch."""
        return list(self._normalised(torch.cat(list(rows))).split([len(part) for part in rows]))

    def of_any_class(self, most: int) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        """Return distinct images drawn without regard to class, and their labels."""
        rows = self._draw(len(self.images), most)
        return self._normalised(rows), self.labels[rows]

    def pixels(self, images: Float[Tensor, "*m c h w"]) -> Float[Tensor, "*m c h w"]:
        """Return normalised images as pixels (which may be outside [0, 1])."""
        return (images * self.std + self.mean).detach()

    def _draw(self, n: int, most: int) -> Int64[Tensor, " b"]:
        order = torch.randperm(n, generator=self.generator, device=self.generator.device)
        return order[:most].to(self.images.device)

    def _normalised(self, rows: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        return (self.images[rows] / 255 - self.mean) / self.std


def new_inner_model(
    problem: Problem | Outline,
    model: str,
    generator: torch.Generator,
    *,
    precision: Precision = "fp32",
    **settings: Any,
) -> Network:
    """Return a fresh classifier of the problem's classes that takes normalised images.

    Settings that are None are left to the model. When single batches are matched, bf16 changes the
    gradient of distilled images by a tenth, so it must be requested explicitly.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    network = problem.new_network(model, problem.num_classes or 0, generator, **given)
    network.mean.zero_()
    network.std.fill_(1)
    network.precision = precision
    # as released; on a CPU, group norm is faster
    return network.use_memory_format(torch.contiguous_format)


def hard_labelled(images: Shaped[Tensor, "k ipc c h w"]) -> TrainingSet:
    """Return class-sorted pixels as a training set for cross-entropy with hard labels."""
    k, ipc = images.shape[:2]
    classes = torch.arange(k, device=images.device).repeat_interleave(ipc)
    return TrainingSet(
        images=images.flatten(0, 1),
        views=("identity",),
        targets=one_hot(classes, k).to(torch.float32).unsqueeze(0),
        objective="cross-entropy",
    )

"""The core types of the benchmark, the protocols of its plug-ins, and the legend of axes.

Axes, for the whole repository::

    n  real images           m  distilled images      v  views of a distilled image
    c h w  one image         d  representation        p  features of a backbone
    b  batch                 k  classes               s  support points of a ridge regression

``N`` is never an axis: it is the storage budget.

Pixels are in [0, 1] (or uint8, where stated) everywhere, and a `Network` normalises them. Only the
supervised methods, as published, distil images that are normalised (`methods/_labelled.py`).
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from benchmark.network import Network, Precision
from benchmark.whitening import Whitening

Supervision = Literal["none", "labels"]
Objective = Literal["mse", "cross-entropy"]
Split = Literal["train", "test"]
Limit = Literal["numbers", "bytes", "none"]
Storage = Literal["fp32", "fp16"]  # precision of kept weights

FLOAT_BYTES = 4  # of a stored number, where the budget is counted in bytes

# Components of stored tensors in tables, by tensor name; any other name is `other`.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "pixels": ("images",),
    "bases": ("image_bases", "image_mean", "target_bases", "target_mean"),
    "coefficients": ("image_coefficients", "target_coefficients"),
    "representations": ("targets",),
    "labels": ("logits",),
    "whitening": ("whitening_mean", "whitening_components", "whitening_scales"),
    "networks": (
        *("approximation_weight_1", "approximation_bias_1"),
        *("approximation_weight_2", "approximation_bias_2"),
    ),
}


class UsageError(Exception):
    """A user error, reported in one line: what, where, and what is expected."""


def unknown(noun: str, name: str, known: Sequence[str]) -> UsageError:
    """Return the error for a name that is not one of `known`."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UsageError(f"unknown {noun} {name!r}: {hint}known: {', '.join(known) or 'none'}")


class NonFiniteError(RuntimeError):
    """A logged value or a feature is not finite."""


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Channels, height and width of one image."""

    c: int
    h: int
    w: int

    def __str__(self) -> str:
        return f"{self.c}x{self.h}x{self.w}"

    @property
    def numel(self) -> int:
        """Numbers in one image."""
        return self.c * self.h * self.w


@dataclass(frozen=True, slots=True)
class Budget:
    """A storage budget of `N`: as many numbers as N images and N representations take."""

    N: int

    def num_floats(self, shape: ImageShape, d: int) -> int:
        """Return N (c h w + d), the maximum count of numbers in a distilled set."""
        return self.N * (shape.numel + d)


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """One split of a dataset; `fingerprint` is a hash of its pixels and labels."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    fingerprint: str

    @property
    def shape(self) -> ImageShape:
        """Shape of one image."""
        return ImageShape(*self.images.shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What a dataset is, where it comes from, and its terms of use.

    `mean` and `std` normalise the channels of pixels in [0, 1], at every size, if the training
    split is complete; the file of the dataset says where they are from.
    """

    title: str
    num_classes: int
    num_train: int
    num_test: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str
    licence: str
    citation: str


@runtime_checkable
class Records(Protocol):
    """One split before it is cached: its files and classes, and how to decode it."""

    @property
    def files(self) -> Sequence[str]:
        """Every file that the split is read from; the cache key covers their sizes and times."""

    @property
    def classes(self) -> Sequence[str]:
        """Names (or numbers) of the classes in label order, the same for both splits."""

    def decode(self, size: int) -> tuple[Int64[Tensor, " n"], Iterator[UInt8[Tensor, "b c h w"]]]:
        """Return all labels, and the RGB images at `size` x `size` in batches in the same order.

        Raises:
            UsageError: a file cannot be decoded; the message names it.
        """


@runtime_checkable
class Dataset(Protocol):
    """A plug-in of kind `datasets`: one file, one class, made without arguments.

    `info` is a class attribute of every plug-in, and None for a folder of the user's own images.
    """

    @property
    def info(self) -> DatasetInfo | None:
        """What the dataset is."""

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """Find one official split below `root`, without reading its images.

        Raises:
            UsageError: it is missing; the message says how to get it.
        """


@runtime_checkable
class NewNetwork(Protocol):
    """Makes a fresh network of any model plug-in (or timm model), initialised from `generator`."""

    def __call__(
        self, model: str, num_outputs: int, generator: torch.Generator, **settings: Any
    ) -> Network:
        """Return a network of `model` with `settings` and a head of `num_outputs`."""


@runtime_checkable
class Represent(Protocol):
    """A map from images to representations, such as a teacher."""

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the teacher's representations of images in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is known of a problem before a teacher exists.

    Attributes:
        source: name of the source dataset, as on the command line.
        shape: of one source image.
        N: the budget.
        num_images: source images.
        class_sizes: source images of each class; None for a method that does not see labels.
        new_network: makes inner models.
    """

    source: str
    shape: ImageShape
    N: int
    num_images: int
    class_sizes: tuple[int, ...] | None
    new_network: NewNetwork

    @property
    def num_classes(self) -> int | None:
        """Classes of the source; None for a method that does not see labels."""
        return None if self.class_sizes is None else len(self.class_sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything that a method may see: no test split, no downstream data, no evaluator.

    Attributes:
        source: name of the source dataset, as on the command line; only for looking up published
            settings.
        images: the source images, on the device. Folders list them class by class, so that their
            order is for methods with labels only.
        representations: the teacher's representations of every source image under a predefined view
            (`benchmark.views`), computed once and cached.
        teacher: the teacher itself, for any other images.
        labels: only for a method that declares `supervision = "labels"`, otherwise None.
        num_classes: likewise.
        mean, std: per-channel statistics of the source pixels.
        budget: what may be stored.
        new_network: makes inner models.
        precision: of networks in this run, which a method may override for its own.
        cache: a folder for costly by-products, such as training trajectories, which a method stores
            under its own key that covers everything they depend on; None: store nothing.
    """

    source: str
    images: UInt8[Tensor, "n c h w"]
    representations: Callable[[str], Float[Tensor, "n d"]]
    teacher: Represent
    labels: Int64[Tensor, " n"] | None
    num_classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    budget: Budget
    new_network: NewNetwork
    precision: Precision = "fp32"
    cache: Path | None = None

    @property
    def shape(self) -> ImageShape:
        """Shape of one source image."""
        return ImageShape(*self.images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the source images live."""
        return self.images.device

    @property
    def outline(self) -> Outline:
        """The part of it that is known before a teacher exists."""
        sizes = None
        if self.labels is not None:
            sizes = tuple(self.labels.bincount(minlength=self.num_classes or 0).tolist())
        return Outline(
            source=self.source,
            shape=self.shape,
            N=self.budget.N,
            num_images=len(self.images),
            class_sizes=sizes,
            new_network=self.new_network,
        )

    @property
    def num_floats(self) -> int:
        """The maximum count of numbers that the method may store."""
        return self.budget.num_floats(self.shape, self.representations("identity").shape[1])


@runtime_checkable
class Rows(Protocol):
    """A tensor that is read in batches, indexed by one tensor for each of its first axes.

    Either a plain tensor, or an object that computes its rows on demand.
    """

    @property
    def shape(self) -> torch.Size:
        """Sizes of all axes."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return a batch of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEvaluation:
    """Changes by a method's own published evaluation; used only under the recipe `own`.

    Attributes:
        recipe: changed fields of the objective's recipe.
        whitening: applied by the student to all images instead of per-channel normalisation.
    """

    recipe: Mapping[str, float | int] = field(default_factory=dict)
    whitening: Whitening | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What a student is pretrained on, decoded from what was stored.

    Attributes:
        images: m images [m c h w], uint8 or float in [0, 1] (a method may exceed that range).
        views: names of the predefined views that a student sees of each image.
        targets: representations [v m d] for `mse`, class probabilities [v m k] for `cross-entropy`.
        objective: determines the student's loss and recipe.
        own: changes by the method's own published evaluation.

    Raises:
        UsageError: its parts do not fit together, or there is nothing to learn from.
    """

    images: Rows
    views: tuple[str, ...]
    targets: Rows
    objective: Objective
    own: OwnEvaluation = OwnEvaluation()

    def __post_init__(self) -> None:
        images, targets, v = (*self.images.shape,), (*self.targets.shape,), len(self.views)
        if len(images) != 4 or len(targets) != 3 or targets[:2] != (v, images[0]) or 0 in targets:
            raise UsageError(
                f"a training set of images {images} and targets {targets} under {v} views: "
                "expected (m, c, h, w) and (views, m, d)"
            )
        if self.objective not in get_args(Objective):
            raise unknown("objective", self.objective, get_args(Objective))
        if self.objective == "cross-entropy" and isinstance(self.targets, Tensor):
            least, sums = self.targets.min(), self.targets.sum(2)
            if not (least >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)):
                raise UsageError("targets for cross-entropy: expected class probabilities")


@runtime_checkable
class Loop(Protocol):
    """A long loop that can be resumed, see `benchmark.loop`."""

    def steps(self, name: str, total: int, **state: Any) -> Iterator[int]:
        """Yield the remaining step numbers out of the `total` steps of the loop called `name`.

        Saves `state` from time to time and at the end. When the same loop is entered in a later
        process, it restores `state` and resumes; if it had finished, it yields nothing. So every
        loop of a method needs a unique name. The parts of `state` are tensors, generators, or
        objects with `state_dict` and `load_state_dict`.
        """

    def charge(self, seconds: float) -> None:
        """Add the time that another process spent on a by-product used here."""

    def log(self, step: int, **values: Tensor | float) -> None:
        """Record scalars of a step. A non-finite value stops the run with an error naming it."""


@runtime_checkable
class Method(Protocol):
    """A plug-in of kind `methods`: a frozen dataclass of hyper-parameters, published defaults.

    Attributes:
        supervision: whether it may see labels.
        limit: what the budget limits: the count of stored numbers, their bytes (four per number in
            the budget), or nothing, so that budgets do not apply (controls).

    A method that trains models of a plug-in may have `inner_model`, the model's name: then its sets
    are recomputed when that model's code changes.

    A method may also have `views`: names of the predefined views under which it needs the teacher's
    representations of the source. They are computed before its time is measured, as they are the
    teacher's cost. The default is the identity view only.

    A method may also have ``check(outline: Outline) -> None``, which raises a `UsageError` for what
    it does not support or has no settings for. It is called for every cell before anything is made,
    so that no teacher is pretrained in vain; `distill` raises the same errors.

    It may have ``forecast(problem: Problem) -> Forecast``, which counts the work of `distill`
    (`benchmark.workload`). Its argument has shapes but no data: all tensors except the labels are
    on the device `meta`. Without it, the cost is planned as unknown.

    And it may have ``expect_own(problem: Problem, *, checkpoint: Loop) -> None``, which raises a
    `UsageError` if its set could not be evaluated as published (`OwnEvaluation`). It is called
    before a set is distilled or reused, only under the recipe `own`.
    """

    supervision: ClassVar[Supervision]
    limit: ClassVar[Limit]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return the tensors to store, which are all that `decode` receives."""

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet | None:
        """Return the student's training set, or None if the student stays as initialised."""

"""Datasets by name: images are decoded once, and the test split is locked until the final probe."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from benchmark import plugins, rng
from benchmark.datasets._folder import ImageFolder
from benchmark.decoded import decoded, split_key
from benchmark.spec import Dataset, DatasetInfo, LabelledImages, Split, UsageError

_SPLITS: tuple[Split, ...] = ("train", "test")
_HELD_OUT = ":held-out"  # suffix of dataset names, for choosing settings without the test split
_HELD_OUT_PART = 5  # a fifth of the training split, the ratio of CIFAR's test split to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A dataset whose test split is located, but locked to all but the final probe.

    Attributes:
        train: the training split.
        num_classes: classes of the training split.
        mean, std: per-channel statistics of the training pixels in [0, 1].
    """

    train: LabelledImages
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    _load_test: Callable[[], LabelledImages]

    def open_test(self) -> LabelledImages:
        """Return the test split.

        Raises:
            ShutSplitError: unless this is the final probe, see `final_probe`.
        """
        if not _probing.get():
            raise ShutSplitError("the test split is for the final probe alone")
        return self._load_test()

    def test_fingerprint(self) -> str:
        """Return the hash of the test split, without revealing the data."""
        return self._load_test().fingerprint


class ShutSplitError(RuntimeError):
    """Something other than the final probe requested a test split."""


_probing = ContextVar("probing", default=False)


@contextmanager
def final_probe() -> Iterator[None]:
    """Unlock test splits within the block, in which no choice may depend on them."""
    token = _probing.set(True)
    try:
        yield
    finally:
        _probing.reset(token)


def find_dataset(name: str) -> Dataset:
    """Return the plug-in called `name`, or the user's own images in a folder of that path.

    Raises:
        UsageError: there is neither.
    """
    try:
        folder = Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"dataset {name}: there is no such user") from None
    is_path = "/" in name or os.sep in name
    if is_path and not folder.is_dir():
        raise UsageError(f"dataset {name}: expected a folder {{train,test}}/<class>/<image>")
    if is_path or (name not in plugins.names("datasets") and folder.is_dir()):
        return ImageFolder(folder.resolve())
    dataset: Dataset = plugins.load("datasets", name)()
    return dataset


def is_present(name: str, *, root: Path | None, download: bool = False) -> bool:
    """Say whether a dataset is found (see `load_splits`); `download`: after trying to fetch it."""
    dataset = find_dataset(_Name.parse(name).dataset)
    try:
        for split in _SPLITS:
            dataset.open(split, root=root, download=download)
    except UsageError:
        return False
    return True


class _Name(NamedTuple):
    """A parsed name such as ``cifar100:10:held-out``.

    Attributes:
        dataset: a plug-in or a folder.
        k: number of classes, None for all.
        held_out: whether a part of the training split replaces the test split.
    """

    dataset: str
    k: int | None
    held_out: bool

    @classmethod
    def parse(cls, name: str) -> "_Name":
        whole = without_held_out(name)
        dataset, colon, count = whole.rpartition(":")
        few = bool(colon) and count.isdecimal()
        return cls(dataset if few else whole, int(count) if few else None, whole != name)

    def num_classes(self, known: int) -> int:
        """Return how many of the `known` classes it means, or raise a UsageError."""
        if self.k is not None and not 2 <= self.k <= known:
            raise UsageError(f"{self.dataset}:{self.k}: expected 2 to {known} classes")
        return self.k or known


def without_held_out(name: str) -> str:
    """Return the dataset that ``NAME:held-out`` is a part of."""
    return name.removesuffix(_HELD_OUT)


class Sizes(NamedTuple):
    """The sizes of a dataset."""

    num_train: int
    num_test: int
    num_classes: int


def sizes_of(name: str) -> Sizes:
    """Return the sizes of a dataset by name, see `load_splits`, without reading images.

    A plug-in states them; for the user's own folder they are counted. Classes are assumed to be
    equally large.

    Raises:
        UsageError: there is no such dataset, or it has fewer classes.
    """
    parsed = _Name.parse(name)
    dataset = find_dataset(parsed.dataset)
    if (info := dataset.info) is not None:
        train, test, classes = info.num_train, info.num_test, info.num_classes
    else:
        splits = _SPLITS[:1] if parsed.held_out else _SPLITS
        found = [dataset.open(split, root=None, download=False) for split in splits]
        train, test = len(found[0].files), len(found[-1].files)
        classes = len(found[0].classes)
    k = parsed.num_classes(classes)
    train, test = train * k // classes, test * k // classes
    if parsed.held_out:
        test = train // _HELD_OUT_PART
        train -= test
    return Sizes(train, test, k)


def _in_two(train: LabelledImages, split: Split) -> LabelledImages:
    """Return the part of a training split to train on, or the fifth held out of it."""
    held_out = rng.part(len(train.labels), _HELD_OUT_PART, "held out", train.fingerprint)
    return _part(train, held_out if split == "test" else ~held_out, f"{split} of two")


def _part(split: LabelledImages, kept: Bool[Tensor, " n"], name: str) -> LabelledImages:
    return LabelledImages(
        images=split.images[kept],
        labels=split.labels[kept],
        fingerprint=f"{split.fingerprint}:{name}",
    )


def load_splits(
    name: str,
    *,
    size: int,
    root: Path | None,
    cache: Path,
    download: bool = False,
) -> Splits:
    """Load the training split of a dataset at `size` x `size`, and find its test split.

    A name such as ``cifar100:10`` means the first ten classes, in the order of their labels. With
    the suffix ``:held-out``, a fifth of the training split (always the same) replaces the test
    split, which is not even looked for, so that settings are chosen without it.

    Args:
        name: a plug-in, or the path of an image folder.
        size: height and width in pixels.
        root: the folder below which datasets are looked for.
        cache: decoded splits are kept in its folder ``images``.
        download: download a missing dataset, if possible.

    Raises:
        UsageError: there is no such dataset, files are missing or broken, or it has fewer classes.
    """
    parsed = _Name.parse(name)
    k, held_out = parsed.k, parsed.held_out
    dataset, root = find_dataset(parsed.dataset), root.resolve() if root else None
    records = {
        split: dataset.open(split, root=root, download=download)
        for split in (_SPLITS[:1] if held_out else _SPLITS)
    }
    folders = {
        split: cache / "images" / split_key(dataset, split, found, size=size)
        for split, found in records.items()
    }
    num_classes = parsed.num_classes(len(records["train"].classes))

    def load(split: Split) -> LabelledImages:
        kept = "train" if held_out else split
        found = decoded(folders[kept], records[kept], size, description=f"decode {kept} images")
        found = found if k is None else _part(found, found.labels < k, str(k))
        return _in_two(found, split) if held_out else found

    images = load("train")
    info = None if k is not None or held_out else dataset.info
    if info and _is_whole(name, images, num_classes, info):
        mean, std = info.mean, info.std
    else:
        mean, std = pixel_statistics(images.images)
    return Splits(
        train=images,
        _load_test=cached(partial(load, "test")),  # needed for every row
        num_classes=num_classes,
        mean=mean,
        std=std,
    )


def _is_whole(name: str, images: LabelledImages, num_classes: int, info: DatasetInfo) -> bool:
    """Say whether the official training split is complete; warn the user if it is not."""
    whole = (num_classes, len(images.labels)) == (info.num_classes, info.num_train)
    if not whole:
        logging.getLogger(__name__).warning(
            f"{name}: {len(images.labels)} training images of {num_classes} classes, "
            f"expected {info.num_train} of {info.num_classes}: not the whole official dataset"
        )
    return whole


def pixel_statistics(
    images: UInt8[Tensor, "n 3 h w"],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and the standard deviation of each channel, of pixels in [0, 1].

    A constant channel gets the deviation of a single grey level, as images are divided by it.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(3)])
    shares = counts / counts.sum(1, keepdim=True).double()
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    r, g, b = mean.tolist()
    std_r, std_g, std_b = variance.sqrt().clamp(min=1 / 255).tolist()
    return (r, g, b), (std_r, std_g, std_b)

"""CIFAR as downloaded, verified and read by torchvision."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt8
from torchvision.datasets import CIFAR10

from benchmark.datasets._layouts import Layout, image_folder, open_below
from benchmark.datasets._records import Arrays
from benchmark.spec import DatasetInfo, Records, Split, UsageError


class Cifar:
    """``<folder>/{train,test}/<class>/<image>``, or the official Python files.

    Attributes:
        folder: of images, below the data root.
        source: torchvision's own class.
    """

    info: ClassVar[DatasetInfo]
    folder: ClassVar[str]
    source: ClassVar[type[CIFAR10]]

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`."""
        return open_below(
            root,
            split,
            [image_folder(self.folder), _official(self.source, self.info.num_classes)],
            name=self.folder,
            source="use --download, which fetches it to the data root, or give",
            fetch=partial(fetch, self.source) if download else None,
        )


def _official(source: type[CIFAR10], num_classes: int) -> Layout:
    """Return the layout of the official Python files.

    Their classes are in alphabetical order, so an image folder gives the same labels.
    """
    return Layout(
        folder=source.base_folder,
        marker=source.test_list[0][0],
        contents=source.test_list[0][0],
        read=partial(_open_official, source, num_classes),
    )


def fetch(source: type[CIFAR10], root: Path) -> None:
    """Download the official files to `root`.

    Raises:
        UsageError: the download failed, or its checksum is wrong.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        source(root, download=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{root}: cannot download {source.url} ({error})") from error


def _open_official(source: type[CIFAR10], num_classes: int, folder: Path, split: Split) -> Arrays:
    parts = source.train_list if split == "train" else source.test_list
    return Arrays(
        files=[str(folder / file) for file, _ in parts],
        classes=[str(label) for label in range(num_classes)],
        load=partial(_load, source, folder, split),
    )


def _load(
    source: type[CIFAR10], folder: Path, split: Split
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int64[np.ndarray, " n"]]:
    try:
        dataset = source(folder.parent, train=split == "train")
    except RuntimeError as error:  # the files are pickles: torchvision opens only the official ones
        raise UsageError(f"{folder}: expected the files of {source.url}, MD5 differs") from error
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)

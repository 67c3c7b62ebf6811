"""Fashion-MNIST: greyscale images of 10 kinds of clothes; a part ships with the package."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt8

from benchmark.datasets._layouts import image_folder
from benchmark.datasets._records import Arrays
from benchmark.spec import DatasetInfo, Records, Split

__all__ = ["FashionMnist"]

_SHIPPED = Path(__file__).parents[1] / "assets" / "fashion-mnist.npz"


class FashionMnist:
    """The first 5 000 training and 2 000 test images, zero-padded from 28 to 32 pixels.

    An image folder ``fashion-mnist`` below the data root replaces them.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Fashion-MNIST (5 000 images)",
        num_classes=10,
        num_train=5_000,
        num_test=2_000,
        mean=(0.2191, 0.2191, 0.2191),
        std=(0.3329, 0.3329, 0.3329),
        url="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="H. Xiao et al., Fashion-MNIST: a Novel Image Dataset, arXiv:1708.07747, 2017",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`; it is always available."""
        folder = image_folder("fashion-mnist")
        if root and folder.is_below(root):
            return folder.read(root / folder.folder, split)
        return Arrays(
            files=[str(_SHIPPED)],
            classes=[str(label) for label in range(self.info.num_classes)],
            load=partial(_load, split),
        )


def _load(split: Split) -> tuple[UInt8[np.ndarray, "n h w 3"], Int64[np.ndarray, " n"]]:
    with np.load(_SHIPPED) as arrays:
        grey = np.pad(arrays[f"{split}_images"], ((0, 0), (2, 2), (2, 2)))
        return np.repeat(grey[..., None], 3, axis=-1), arrays[f"{split}_labels"].astype(np.int64)

"""Handwritten digits of 8 x 8 pixels, shipped with scikit-learn."""

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt8
from sklearn.datasets import load_digits

from benchmark.datasets._layouts import image_folder
from benchmark.datasets._records import Arrays
from benchmark.spec import DatasetInfo, Records, Split

__all__ = ["Digits"]


class Digits:
    """The first 1 287 images of scikit-learn's copy to train on, the last 510 to test on.

    There is no official split of these 1 797 images. They come in runs of about 128 that begin with
    the same sequence of digits, apparently one run per writer. The split is between two runs, so
    that no writer is on both sides, and both sides are balanced.

    An image folder ``digits`` below the data root replaces them.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Digits",
        num_classes=10,
        num_train=1_287,
        num_test=510,
        # Measured at 32 x 32; at their own 8 x 8 the deviation is 0.3754.
        mean=(0.3061, 0.3061, 0.3061),
        std=(0.3228, 0.3228, 0.3228),
        url="https://archive.ics.uci.edu/dataset/80",
        licence="CC BY 4.0",
        citation="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`; it is always available."""
        folder = image_folder("digits")
        if root and folder.is_below(root):
            return folder.read(root / folder.folder, split)
        cut = self.info.num_train
        part = slice(cut) if split == "train" else slice(cut, None)
        return Arrays(
            files=[str(files("sklearn.datasets") / "data" / "digits.csv.gz")],
            classes=[str(digit) for digit in range(self.info.num_classes)],
            load=partial(_load, part),
        )


def _load(part: slice) -> tuple[UInt8[np.ndarray, "n h w 3"], Int64[np.ndarray, " n"]]:
    digits = load_digits()
    grey = np.rint(digits.images[part] * (255 / 16)).astype(np.uint8)  # their values go up to 16
    return np.repeat(grey[..., None], 3, axis=-1), digits.target[part].astype(np.int64)

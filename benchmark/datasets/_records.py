"""The data of a split: one file per image, or arrays of pixels."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from benchmark.spec import UsageError

_BATCH = 1024  # images decoded per update of the progress bar
# images per thread task, as one task per small image costs more than it gains
_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """A split of one file per image.

    Attributes:
        paths: the image files.
        labels: their indices into `classes`.
        classes: see `spec.Records.classes`.
        lists: files that list the images of the split, if any.
    """

    paths: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]
    lists: Sequence[str] = ()

    @property
    def files(self) -> list[str]:
        """See `spec.Records.files`."""
        return [*self.lists, *self.paths]

    def decode(self, size: int) -> tuple[Int64[Tensor, " n"], Iterator[UInt8[Tensor, "b c h w"]]]:
        """See `spec.Records.decode`."""
        return torch.tensor(self.labels), self._batches(size)

    def _batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(self.paths), _BATCH):
                paths = self.paths[start : start + _BATCH]
                tasks = [
                    paths[first : first + _PER_TASK] for first in range(0, len(paths), _PER_TASK)
                ]
                decoded = threads.map(lambda some: [_read(path, size) for path in some], tasks)
                yield torch.from_numpy(np.stack([image for some in decoded for image in some]))


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A split whose files hold many images each.

    Attributes:
        files: see `spec.Records.files`.
        classes: see `spec.Records.classes`.
        load: returns the RGB pixels and the labels.
    """

    files: Sequence[str]
    classes: Sequence[str]
    load: Callable[[], tuple[UInt8[np.ndarray, "n h w 3"], Int64[np.ndarray, " n"]]]

    def decode(self, size: int) -> tuple[Int64[Tensor, " n"], Iterator[UInt8[Tensor, "b c h w"]]]:
        """See `spec.Records.decode`."""
        pixels, labels = self.load()
        batches = (
            torch.from_numpy(
                np.stack(
                    [fit(Image.fromarray(image), size) for image in pixels[start : start + _BATCH]]
                )
            )
            for start in range(0, len(pixels), _BATCH)
        )
        return torch.from_numpy(labels), batches


def fit(image: Image.Image, size: int) -> UInt8[np.ndarray, "3 h w"]:
    """Return the largest centred square of an image in RGB, resized to `size` with antialiasing.

    The geometry is that of resizing the shorter side and centre-cropping, without rounding the
    longer side to whole pixels in between.
    """
    if image.mode.startswith("I;16"):  # Pillow clips these to 8 bits
        eight_bits = (np.asarray(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(eight_bits.astype(np.uint8))
    square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)


def _read(path: str, size: int) -> UInt8[np.ndarray, "3 h w"]:
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise UsageError(f"{path}: pixels of 32 bits, expected 8 or 16")
            return fit(image, size)
    except UsageError:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise UsageError(f"{path}: not a readable image ({type(error).__name__})") from error

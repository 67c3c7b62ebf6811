"""Make the shipped part of Fashion-MNIST from the original IDX files.

``python -m benchmark.datasets._pack_fashion_mnist FOLDER FILE`` reads the four ``.gz`` files
in FOLDER and writes FILE, that is, ``benchmark/assets/fashion-mnist.npz``.
"""

import gzip
import sys
import zipfile
from pathlib import Path

import numpy as np

_PARTS = {"train": ("train", 5_000), "test": ("t10k", 2_000)}


def pack(folder: Path, file: Path) -> None:
    """Write the first images and labels of both splits of the original files in `folder`.

    LZMA, which NumPy reads but does not write, makes the file a seventh smaller than DEFLATE.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for split, (prefix, count) in _PARTS.items():
            # An IDX file begins with a magic number and its lengths, four bytes each.
            images = _bytes(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
            labels = _bytes(folder / f"{prefix}-labels-idx1-ubyte.gz", 8)
            for name, array in (("images", images[:count]), ("labels", labels[:count])):
                entry = zipfile.ZipInfo(f"{split}_{name}.npy")  # without a date: reproducible bytes
                entry.compress_type = zipfile.ZIP_LZMA
                with archive.open(entry, "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _bytes(file: Path, offset: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=offset)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))

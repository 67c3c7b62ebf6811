"""Stanford Dogs: photographs of 120 breeds, taken from ImageNet."""

from pathlib import Path, PurePath
from typing import ClassVar

import numpy as np
from scipy.io import loadmat

from benchmark.datasets._layouts import Layout, image_folder, inside, labelled, open_below
from benchmark.datasets._records import ImageFiles
from benchmark.spec import DatasetInfo, Records, Split, UsageError

__all__ = ["StanfordDogs"]


class StanfordDogs:
    """``stanford-dogs/Images`` and its lists, or ``stanford-dogs/{train,test}/<class>/<image>``."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Stanford Dogs",
        num_classes=120,
        num_train=12_000,
        num_test=8_580,
        # Measured on centre crops of 64 x 64.
        mean=(0.4801, 0.4404, 0.3802),
        std=(0.2660, 0.2580, 0.2575),
        url="http://vision.stanford.edu/aditya86/ImageNetDogs/",
        licence="that of ImageNet: non-commercial research and education",
        citation="A. Khosla et al., Novel Dataset for Fine-Grained Image Categorization, FGVC 2011",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`; it cannot be downloaded."""
        official = Layout(
            folder="stanford-dogs",
            marker="train_list.mat",
            contents="{Images,train_list.mat,test_list.mat}",
            read=_open_official,
        )
        return open_below(
            root,
            split,
            [official, image_folder("stanford-dogs")],
            name="stanford-dogs",
            source=f"unpack images.tar and lists.tar of {self.info.url} and give",
        )


def _open_official(folder: Path, split: Split) -> ImageFiles:
    """Open the folder by its lists; labels follow the alphabetical order of class folders."""
    file = folder / f"{split}_list.mat"
    names = _names(file)
    paths = inside(folder / "Images", names, listed_in=file)
    train = names if split == "train" else _names(folder / "train_list.mat")
    return labelled(
        [(path, PurePath(name).parent.name) for path, name in zip(paths, names, strict=True)],
        classes=[PurePath(name).parent.name for name in train],
        where=file,
        lists=[file],
    )


def _names(file: Path) -> list[str]:
    """Read the names in a list, a MATLAB file."""
    try:
        names = np.atleast_1d(loadmat(file, squeeze_me=True)["file_list"])
        return [str(name).strip() for name in names]
    except Exception as error:  # a broken file makes SciPy raise nearly anything
        raise UsageError(f"{file}: expected a MATLAB file with 'file_list' ({error})") from error

"""Caltech-UCSD Birds 200-2011: photographs of 200 species of birds."""

from pathlib import Path, PurePath
from typing import ClassVar

from benchmark.datasets._layouts import Layout, image_folder, inside, labelled, open_below
from benchmark.datasets._records import ImageFiles
from benchmark.spec import DatasetInfo, Records, Split, UsageError

__all__ = ["Cub2011"]


class Cub2011:
    """The official ``CUB_200_2011``, or ``cub2011/{train,test}/<class>/<image>``."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CUB-200-2011",
        num_classes=200,
        num_train=5_994,
        num_test=5_794,
        # Those of ImageNet, as torchvision's pretrained weights use them.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        url="https://data.caltech.edu/records/65de6-vp158",
        licence="non-commercial research and education; the photographs belong to their authors",
        citation="C. Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`; it cannot be downloaded."""
        official = [
            Layout(folder=folder, marker="images.txt", contents="images.txt", read=_open_official)
            for folder in ("CUB_200_2011", "cub2011")
        ]
        return open_below(
            root,
            split,
            [*official, image_folder("cub2011")],
            name="cub2011",
            source=f"unpack CUB_200_2011.tgz of {self.info.url} and give",
        )


def _open_official(folder: Path, split: Split) -> ImageFiles:
    """Open the folder by its lists; labels follow the alphabetical order of class folders."""
    names_file, splits_file = folder / "images.txt", folder / "train_test_split.txt"
    labels_file = folder / "image_class_labels.txt"
    names, is_train, numbers = map(_by_image, (names_file, splits_file, labels_file))
    for file, listed in ((splits_file, is_train), (labels_file, numbers)):
        if names.keys() != listed.keys():
            raise UsageError(f"{file}: expected the image ids of {names_file}")
    paths = inside(folder / "images", names.values(), listed_in=names_file)
    wanted = "1" if split == "train" else "0"
    classes = {image: PurePath(name).parent.name for image, name in names.items()}
    pairs = sorted({(classes[image], numbers[image]) for image in names})
    if [number for _, number in pairs] != [str(k + 1) for k in range(len({*classes.values()}))]:
        raise UsageError(f"{labels_file}: expected class numbers in the order of class folders")
    return labelled(
        [
            (path, classes[image])
            for image, path in zip(names, paths, strict=True)
            if is_train[image] == wanted
        ],
        classes=[classes[image] for image in names if is_train[image] == "1"],
        where=splits_file,
        lists=[names_file, splits_file, labels_file],
    )


def _by_image(file: Path) -> dict[str, str]:
    """Read lines of an image id and a value."""
    try:
        lines = file.read_text("utf-8").splitlines()
        return dict(line.strip().split(" ", 1) for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: expected lines of '<image id> <value>' ({error})") from error

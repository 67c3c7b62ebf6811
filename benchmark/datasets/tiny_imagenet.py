"""Tiny ImageNet: 200 classes of ImageNet at 64 x 64."""

from pathlib import Path
from typing import ClassVar

from benchmark.datasets._layouts import (
    Layout,
    image_folder,
    images_by_class,
    inside,
    labelled,
    open_below,
)
from benchmark.datasets._records import ImageFiles
from benchmark.spec import DatasetInfo, Records, Split, UsageError

__all__ = ["TinyImagenet"]

_ANNOTATIONS = "val/val_annotations.txt"


class TinyImagenet:
    """The official ``tiny-imagenet-200``, or ``tiny-imagenet/{train,test}/<class>/<image>``.

    Its test labels are not public: the validation split is our test split, as usual.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Tiny ImageNet",
        num_classes=200,
        num_train=100_000,
        num_test=10_000,
        # The values in common use for it; those of ImageNet differ by less than 0.04.
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        licence="that of ImageNet: non-commercial research and education",
        citation="Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, CS 231N, 2015",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`; it cannot be downloaded."""
        official = [
            Layout(folder=folder, marker=_ANNOTATIONS, contents=_ANNOTATIONS, read=_open_official)
            for folder in ("tiny-imagenet-200", "tiny-imagenet")
        ]
        return open_below(
            root,
            split,
            [*official, image_folder("tiny-imagenet")],
            name="tiny-imagenet",
            source=f"unpack {self.info.url} and give",
        )


def _open_official(folder: Path, split: Split) -> ImageFiles:
    """Open ``train/<wnid>/images/<image>``, or ``val/images`` by the list beside it."""
    train = images_by_class(folder / "train", below="images")
    if split == "train":
        members = [(path, wnid) for wnid, paths in train.items() for path in paths]
        return labelled(members, classes=train, where=folder / "train")
    annotations = folder / _ANNOTATIONS
    wnids = _wnid_by_name(annotations)
    paths = inside(folder / "val" / "images", wnids, listed_in=annotations)
    members = list(zip(paths, wnids.values(), strict=True))
    return labelled(members, classes=train, where=annotations, lists=[annotations])


def _wnid_by_name(file: Path) -> dict[str, str]:
    """Read lines that begin with an image name and a class, separated by tabs."""
    try:
        rows = [line.split("\t") for line in file.read_text("utf-8").splitlines() if line.strip()]
        return {row[0]: row[1] for row in rows}
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"{file}: expected lines of '<image><tab><class>' ({error})") from error

"""Supported layouts of datasets below the data root, and how each is read."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from torchvision.datasets.folder import IMG_EXTENSIONS

from benchmark.datasets._records import ImageFiles
from benchmark.spec import Records, Split, UsageError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One supported arrangement of a dataset's files.

    Attributes:
        folder: its path below the data root.
        marker: path in the folder by which the layout is recognised.
        contents: of the folder, for the error message.
        read: opens a split of such a folder.
    """

    folder: str
    marker: str
    contents: str
    read: Callable[[Path, Split], Records]

    def is_below(self, root: Path) -> bool:
        """Say whether the layout is present."""
        return (root / self.folder / self.marker).exists()


def image_folder(name: str) -> Layout:
    """Return the layout available to every dataset: one folder per class of each split."""
    return Layout(
        folder=name,
        marker="train",
        contents="{train,test}/<class>/<image>",
        read=read_image_folder,
    )


def open_below(
    root: Path | None,
    split: Split,
    layouts: Sequence[Layout],
    *,
    name: str,
    source: str,
    fetch: Callable[[Path], object] | None = None,
) -> Records:
    """Open the first of `layouts` present below `root`, downloading with `fetch` if necessary.

    Raises:
        UsageError: none is present; the message says how to get the dataset (`source`), where it
            was looked for, and which layouts are supported.
    """
    if fetch and root and not any(layout.is_below(root) for layout in layouts):
        fetch(root)
    for layout in layouts:
        if root and layout.is_below(root):
            return layout.read(root / layout.folder, split)
    where = f"not found below {root}" if root else "needs a data root"
    shown = " or ".join(f"DIR/{layout.folder}/{layout.contents}" for layout in layouts)
    raise UsageError(f"{name}: {where}: {source} --data-root DIR with {shown}")


def read_image_folder(folder: Path, split: Split) -> ImageFiles:
    """Open one split of a folder ``{train,test}/<class>/<image>``.

    Classes are the folders of the training split with images, in alphabetical order.

    Raises:
        UsageError: the split is missing or empty, or has a class that is not in the training split.
    """
    train = images_by_class(folder / "train")
    chosen = train if split == "train" else images_by_class(folder / split)
    members = [(path, name) for name, paths in chosen.items() for path in paths]
    return labelled(members, classes=list(train), where=folder / split)


def images_by_class(folder: Path, *, below: str = "") -> dict[str, list[str]]:
    """Return the images of every non-empty class folder, both in alphabetical order.

    The images of a class are in its subfolder `below`.

    Raises:
        UsageError: a folder is missing or cannot be read.
    """
    classes = sorted((entry.name, entry.path) for entry in _entries(folder) if entry.is_dir())
    found = {
        name: sorted(
            entry.path
            for entry in _entries(Path(path, below))
            if entry.name.lower().endswith(IMG_EXTENSIONS)
        )
        for name, path in classes
    }
    return {name: paths for name, paths in found.items() if paths}


def labelled(
    members: Sequence[tuple[str, str]],
    *,
    classes: Iterable[str],
    where: Path,
    lists: Sequence[Path] = (),
) -> ImageFiles:
    """Return the split of `members`, pairs of a path and a class name.

    Raises:
        UsageError: the split at `where` is empty, or has a class that is not in `classes`, those of
            the training split.
    """
    order = {name: label for label, name in enumerate(sorted(set(classes)))}
    if not members:
        raise UsageError(f"{where}: expected <class>/<image> files, found no image")
    for _, name in members:
        if name not in order:
            raise UsageError(f"{where}: class {name!r} is not among those of the training split")
    return ImageFiles(
        paths=[path for path, _ in members],
        labels=[order[name] for _, name in members],
        classes=list(order),
        lists=[str(file) for file in lists],
    )


def inside(folder: Path, names: Iterable[str], *, listed_in: Path) -> list[str]:
    """Return the paths of files in `folder`, given the names in a list.

    Raises:
        UsageError: a name leads outside `folder`, directly or through a symbolic link.
    """
    root = os.path.realpath(folder)
    real_folder = functools.cache(os.path.realpath)
    paths = [os.path.join(root, name) for name in names]  # noqa: PTH118 - tens of thousands
    for name, path in zip(names, paths, strict=True):
        parent, last = os.path.split(path)
        real = os.path.join(real_folder(parent), last)  # noqa: PTH118
        if os.path.islink(real):  # noqa: PTH114
            real = os.path.realpath(real)
        if ".." in PurePath(name).parts or not real.startswith(root + os.sep):
            raise UsageError(f"{listed_in}: {name!r} leads outside {folder}")
    return paths


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder except hidden files."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: expected a folder of images ({error.strerror})") from error

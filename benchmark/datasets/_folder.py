"""A user's own images: a folder, identified by its path."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmark.datasets._layouts import read_image_folder
from benchmark.datasets._records import ImageFiles
from benchmark.spec import Split


@dataclass(frozen=True)
class ImageFolder:
    """The images of ``folder/{train,test}/<class>/<image>``."""

    info: ClassVar[None] = None

    folder: Path

    def open(self, split: Split, *, root: Path | None, download: bool) -> ImageFiles:
        """See `spec.Dataset.open`; `root` and `download` are ignored."""
        return read_image_folder(self.folder, split)

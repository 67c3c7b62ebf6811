"""The pictures of a report: every figure that can be drawn, as files and for a page."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmark import plugins
from benchmark.files import atomic
from benchmark.reporting.figure import Figure
from benchmark.reporting.markdown import escape, inline
from benchmark.reporting.order import rank
from benchmark.reporting.stored_sets import MissingSetError, StoredSets
from benchmark.rows import Row

FOLDER = "figures"  # beside the report

_ORDER = (
    *("accuracy-bytes", "accuracy-seconds", "distilled-images", "image-bases"),
    *("convergence", "approximation"),
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure and its PNG file; `svg` is the drawing for a page if it was drawn just now."""

    figure: Figure
    file: Path
    svg: str | None = None

    @property
    def width(self) -> int:
        """Pixels of the file from left to right."""
        with Image.open(self.file, formats=["PNG"]) as image:
            return image.width

    def markdown(self) -> str:
        """Return it as a Markdown section of a report beside its folder."""
        figure = self.figure
        alt = re.sub(r"([\[\]])", r"\\\1", escape(figure.alt))
        image = f"![{alt}]({FOLDER}/{self.file.name})"
        parts = f"### {escape(figure.title)}", image, inline(figure.notes)
        return "\n\n".join(filter(None, parts))


def figures(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return every figure that the rows can fill; figures of other packages come last."""
    ordered = sorted(plugins.names("figures"), key=lambda name: rank(name, _ORDER))
    return [figure for name in ordered for figure in plugins.load("figures", name)(rows, sets)]


def write(
    folder: Path, drawable: Iterable[Figure], *, beside: Iterable[Path] = ()
) -> tuple[list[Picture], dict[str, str]]:
    """Draw figures into the `figures` folder below `folder`.

    A figure whose distilled sets are in no store keeps the picture that the run itself made, or
    gets a copy from the reports in the folders `beside`, provided that it shows the same sets.

    Returns:
        The pictures, and the reason for each figure left out, by title.
    """
    pictures, left_out = [], {}
    folders = list(dict.fromkeys((folder, *beside)))
    for figure in drawable:
        file = folder / FOLDER / f"{figure.name}.png"
        try:
            rendered = figure.render()
            png, svg = rendered.png, rendered.svg
        except MissingSetError as error:
            old = [place / FOLDER / file.name for place in folders]
            kept = next((other for other in old if _shows(other, figure)), None)
            if kept is None:
                left_out[figure.title] = str(error)
                continue
            png, svg = kept.read_bytes(), None
        with atomic(file) as temporary:
            temporary.write_bytes(png)
        pictures.append(Picture(figure=figure, file=file, svg=svg))
    return pictures, left_out


def _shows(file: Path, figure: Figure) -> bool:
    """Say whether a file is a picture of the distilled sets of `figure`."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return bool(image.info.get("Comment") == " ".join(figure.sets))
    except (OSError, Image.DecompressionBombError):
        return False

"""A figure and how it is rendered."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib import figure, rc_context

from benchmark.reporting.style import INK, STYLE

_DPI = 200  # of PNG files: 660 pixels for a column


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What a figure shows; it is drawn when asked for.

    Attributes:
        name: of its file, without the suffix.
        title: one line.
        notes: what a reader must know.
        alt: alternative text; made from rows alone, like the title.
        draw: draws it; raises a `MissingSetError` if the store lacks what it shows.
        sets: keys of the distilled sets that it is drawn from.
    """

    name: str
    title: str
    notes: str = ""
    alt: str
    draw: Callable[[], figure.Figure]
    sets: tuple[str, ...] = ()

    def render(self) -> "Rendered":
        """Draw it; equal figures give equal files.

        Raises:
            MissingSetError: the store lacks what it shows.
        """
        about = {"Software": None, "Comment": " ".join(self.sets)}
        look = {**STYLE, "svg.hashsalt": self.name}
        with rc_context(look), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
            drawn = self.draw()
            png = _saved(drawn, format="png", dpi=_DPI, metadata=about)
            drawn.set_layout_engine("none")  # laid out by now
            svg = self._inline(drawn)
        return Rendered(png=png, svg=svg)

    def _inline(self, drawn: figure.Figure) -> str:
        """Return an `svg` element with ids prefixed by the figure's name: many share one page."""
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        text = _saved(drawn, format="svg", transparent=True, metadata=nothing).decode()
        element = text[text.index("<svg") :]
        for opening in ('id="', 'xlink:href="#', "url(#"):
            element = element.replace(opening, f"{opening}{self.name}-")
        return element.replace(INK, "currentColor").strip()


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A figure as a file, which holds the keys of its sets, and as part of a page.

    The `svg` element takes its ink and its background from the page around it.
    """

    png: bytes
    svg: str


def _saved(drawn: figure.Figure, **options: Any) -> bytes:
    stream = io.BytesIO()
    drawn.savefig(stream, **options)
    return stream.getvalue()

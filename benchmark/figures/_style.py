"""One look for all figures: sizes, type, and the colour and mark of every method."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

COLUMN, PAGE = 3.4, 7.0  # inches: a column, and the whole width
INK = "#1c2126"  # of text and axes; found by this value where a page gives it its own
FAINT = "#8a9199"  # of grids and single seeds, on light and on dark grounds

_TITLE = 0.22  # inches above a strip of pixels
_SHORT = 60.0  # ratio up to which a logarithmic axis has ticks between the powers of ten

STYLE: Mapping[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: equal files on all machines
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "image.interpolation": "none",  # pixels stay squares, and a page holds each of them once
    "svg.fonttype": "path",
    "text.parse_math": False,  # names are text, whatever signs they hold
}


@dataclass(frozen=True)
class Look:
    """Colour and mark of a method; `line` is the dash pattern of one that is a level."""

    colour: str
    marker: str = "o"
    line: str = "-"


# Okabe and Ito's colours, told apart without colour by their marks, and grey for what is not learnt
_LOOKS: Mapping[str, Look] = {
    "untrained": Look("#8a9199", "_", ":"),
    "random": Look("#8a9199", "o"),
    "random-labels": Look("#8a9199", "X"),
    "random-bytes": Look("#8a9199", "P"),
    "dsa": Look("#009e73", "D"),
    "idm": Look("#cc79a7", "p"),
    "datm": Look("#56b4e9", "v"),
    "krr-st": Look("#0072b2", "s"),
    "pca": Look("#e69f00", "^"),
    "ours": Look("#d55e00", "*"),
    "full": Look("#8a9199", "h", "--"),
    "teacher": Look(INK, "_", "-."),
}
_OTHERS = (Look("#117733", "<"), Look("#882255", ">"), Look("#6a5acd", "d"), Look("#999933", "H"))


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Return the look of each label: always the same for what is known, then those left over."""
    others = cycle(_OTHERS)
    return {label: _LOOKS.get(label) or next(others) for label in labels}


def panels(number: int, *, height: float, columns: int = 2) -> tuple[figure.Figure, list[Axes]]:
    """Return a figure of a page's width with `number` panels, each `height` inches high."""
    columns = min(columns, number)
    lines = -(-number // columns)
    drawn = figure.Figure(figsize=(PAGE, lines * height), layout="constrained")
    axes = [drawn.add_subplot(lines, columns, place + 1) for place in range(number)]
    return drawn, axes


def strips(parts: Mapping[str, np.ndarray]) -> figure.Figure:
    """Return a figure of a page's width with pixels [H W 4] below each title."""
    inches = [_TITLE + PAGE * pixels.shape[0] / pixels.shape[1] for pixels in parts.values()]
    drawn = figure.Figure(figsize=(PAGE, sum(inches)))
    top = sum(inches)
    for height, (title, pixels) in zip(inches, parts.items(), strict=True):
        bottom, whole = top - height, sum(inches)
        frame = drawn.add_axes((0, bottom / whole, 1, (height - _TITLE) / whole))
        frame.set_axis_off()
        frame.set_title(title, fontweight="normal", pad=3)
        frame.imshow(pixels, aspect="auto")
        top = bottom
    return drawn


def logarithmic(
    frame: Axes, which: Literal["x", "y"], values: Iterable[float], *, unit: str = ""
) -> None:
    """Make an axis logarithmic, with ticks such as 200 kB between the given positive values."""
    low, high = min(values := list(values)), max(values)
    frame.set(**{f"{which}scale": "log"})
    axis: Axis = getattr(frame, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _SHORT * low else (1,)))
    axis.set_major_formatter(EngFormatter(unit))
    axis.set_minor_locator(NullLocator())

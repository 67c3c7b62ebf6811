"""One style for all figures: sizes, fonts, and the colour and marker of every method."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib import figure, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator, StrMethodFormatter

COLUMN = 3.3  # inches: the width of a paper's column, so that figures need no scaling
INK = "#1c2126"  # of text and axes; pages replace this value with their own text colour
FAINT = "#8a9199"  # of grids and single seeds, on light and dark backgrounds

_TITLE = 0.19  # inches above a strip of pixels
_LONGEST = 24  # characters of a name; longer ones are cut
_HANDLE, _LINE = 0.34, 0.16  # inches in a legend: of a marker and its spacing, of a row
_TICKS = 6  # at most, on a logarithmic axis

STYLE: Mapping[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: same files on all machines
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
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
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "image.interpolation": "none",  # pixels stay squares, and a page stores each of them once
    "svg.fonttype": "path",
    "text.parse_math": False,  # names are text, whatever characters they have
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of a method; the latter two also work without colour."""

    colour: str
    marker: str = "o"
    line: str = "-"

    @property
    def size(self) -> float:
        """Marker size in points: a star must be wider to look as heavy as the others."""
        return 7.0 if self.marker == "*" else 4.5


# Okabe and Ito's colours; grey for what is not optimised
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
_DASHES = ("-", "--", ":")  # of the first, second and third four of these


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Return the look of each label: fixed for known labels, then the remaining ones in turn."""
    others = cycle(replace(look, line=line) for line in _DASHES for look in _OTHERS)
    return {label: _LOOKS.get(label) or next(others) for label in labels}


def short(name: str) -> str:
    """Return a name on one line, cut to what fits a legend."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def panels(
    number: int, *, height: float, columns: int = 1, sharex: bool = False
) -> tuple[figure.Figure, list[Axes]]:
    """Return a figure of a column's width with `number` panels, each `height` inches high."""
    lines = -(-number // columns)
    drawn = figure.Figure(figsize=(COLUMN, lines * height), layout="constrained")
    grid = drawn.subplots(lines, columns, sharex=sharex, squeeze=False)
    axes: list[Axes] = grid.ravel().tolist()
    for unused in axes[number:]:
        unused.remove()
    return drawn, axes[:number]


def legend(drawn: figure.Figure, handles: Mapping[str, Any]) -> None:
    """Put a legend below a figure, which grows to make room for it."""
    names = list(map(short, handles))
    font = FontProperties(family=rcParams["font.family"], size=rcParams["legend.fontsize"])
    points = [TextPath((0, 0), name, prop=font).get_extents().width for name in names]
    columns = max(1, min(len(names), int(COLUMN / (_HANDLE + max(points) / 72))))
    width, height = drawn.get_size_inches()
    drawn.set_size_inches(width, height + _LINE * -(-len(names) // columns))
    drawn.legend(list(handles.values()), names, loc="outside lower center", ncols=columns)


def strips(parts: Mapping[str, np.ndarray]) -> figure.Figure:
    """Return a figure of a column's width with one image [H W 4] below each title."""
    inches = [_TITLE + COLUMN * pixels.shape[0] / pixels.shape[1] for pixels in parts.values()]
    whole = top = sum(inches)
    drawn = figure.Figure(figsize=(COLUMN, whole))
    for height, (title, pixels) in zip(inches, parts.items(), strict=True):
        bottom = top - height
        frame = drawn.add_axes((0, bottom / whole, 1, (height - _TITLE) / whole))
        frame.set_axis_off()
        frame.set_title(title, fontweight="normal", pad=2.5)
        frame.imshow(pixels, aspect="auto")
        top = bottom
    return drawn


def logarithmic(
    frame: Axes, which: Literal["x", "y"], limits: tuple[float, float], *, unit: str = ""
) -> None:
    """Make an axis logarithmic between positive limits, with ticks such as 200 kB."""
    frame.set(**{f"{which}scale": "log", f"{which}lim": limits})
    axis: Axis = getattr(frame, f"{which}axis")
    axis.set_major_locator(FixedLocator(_round_numbers(*limits)))
    axis.set_major_formatter(EngFormatter(unit) if unit else StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _round_numbers(low: float, high: float) -> Sequence[float]:
    """Return round numbers in an interval: only powers of ten where these are enough."""
    first, last = (math.floor(math.log10(end)) for end in (low, high))
    powers = [10.0**power for power in range(first, last + 1)]
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [power * by for power in powers for by in factors if low <= power * by <= high]
        if len(found) > 2:
            break
    return found[:: 1 + (len(found) - 1) // _TICKS]

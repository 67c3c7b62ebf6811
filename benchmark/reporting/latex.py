"""LaTeX without a template engine: escaped text in booktabs tables, ASCII throughout.

Accents are dropped, and other characters are shown by their code point (U+03BB): pdflatex has no
font for most of them and would stop. Tables are set in 8 pt and never scaled: those wider than a
text line of the class `article` are split by columns, those longer than a page continue.
"""

import re
import unicodedata
from collections.abc import Sequence

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "≈": r"$\approx$",
        "|": r"\textbar{}",
        "[": "{[}",  # at the start of a line it would be an option of the line break before it
        "*": "{*}",
        "<": r"$<$",
        ">": r"$>$",
        **{symbol: rf"\{symbol}" for symbol in "&%$#_{}"},
    }
)
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")  # of a number; a hyphen joins words

_CODE = re.compile(r"`([^`]*)`")

_LINE = 345.0  # points, of a one-column article
_CHARACTER, _GAP = 4.5, 6.0  # points: about the mean of 8 pt type, and what is between columns
# texts with more characters than this are wrapped at this width
_WRAPPED, _WRAPPED_WIDTH = 32, 110.0
_PAGE = 40  # lines, beside a caption


def escape(text: str) -> str:
    """Return `text` so that LaTeX prints it as it is, on one line."""
    plain = " ".join(text.split()).translate(_ESCAPES)
    return _CODE.sub(r"\\texttt{\1}", _MINUS.sub("$-$", "".join(map(_in_ascii, plain))))


def _in_ascii(character: str) -> str:
    if " " <= character <= "~":
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if unicodedata.combining(character):
        return ""
    return plain.translate(_ESCAPES) if plain.isprintable() and plain else f"U+{ord(character):04X}"


def tabulars(
    body: Sequence[Sequence[str]], *, columns: Sequence[str], caption: str, label: str
) -> str:
    r"""Return a table as floats no wider than the text, or as longtables over several pages.

    Every part repeats the columns that identify a row.

    Args:
        body: cells that are LaTeX already.
        columns: headings as plain text; the first column is set flush left, the others right.
        caption: plain text.
        label: for ``\ref``, of the first part; the others have a number after it.
    """
    lines = [list(map(escape, columns)), *body]
    lengths = [max(map(_length, texts)) for texts in zip(*lines, strict=True)]
    parts = _parts(lengths, num_names=_num_names(body))
    texts = []
    for number, part in enumerate(parts, 1):
        first = number == 1
        of = f"{number} of {len(parts)}"
        words = caption if first else f"{caption.partition('.')[0]}, continued."
        texts.append(
            _part(
                [[line[position] for position in part] for line in lines],
                layout="".join(_alignment(lengths[at], is_first=at == 0) for at in part),
                caption=escape(f"{words} Part {of}." if len(parts) > 1 else words),
                label=label if first else f"{label}-{number}",
            )
        )
    packages = "% packages: array, booktabs, longtable"
    return "\n".join([packages, *texts, ""])


def _length(text: str) -> int:
    """Return roughly how many characters LaTeX prints."""
    return len(re.sub(r"\\[a-z]+|[{}$\\]", lambda found: "x" * (len(found[0]) > 1), text))


def _width(length: int) -> float:
    return _GAP + (_WRAPPED_WIDTH if length > _WRAPPED else _CHARACTER * length)


def _alignment(length: int, *, is_first: bool) -> str:
    if length > _WRAPPED:
        return rf">{{\raggedright\arraybackslash}}p{{{_WRAPPED_WIDTH:g}pt}}"
    return "l" if is_first else "r"


def _num_names(body: Sequence[Sequence[str]]) -> int:
    """Return how many leading columns identify all rows; one if none do."""
    counts = range(1, len(body[0]) if body else 1)
    return next((n for n in counts if len({tuple(line[:n]) for line in body}) == len(body)), 1)


def _parts(lengths: Sequence[int], *, num_names: int) -> list[list[int]]:
    """Return the positions of the columns of each part, the first `num_names` in all."""
    names = list(range(num_names))
    taken = sum(_width(lengths[position]) for position in names)
    parts, room = [names], _LINE - taken
    for position in range(num_names, len(lengths)):
        width = _width(lengths[position])
        if width > room and len(parts[-1]) > num_names:
            parts, room = [*parts, names], _LINE - taken
        parts[-1] = [*parts[-1], position]
        room -= width
    return parts


def _part(lines: Sequence[Sequence[str]], *, layout: str, caption: str, label: str) -> str:
    """Return one float or longtable; the first line holds the headings."""
    headings, *body = [" & ".join(line) + r" \\" for line in lines]
    title = rf"\caption{{{caption}}}\label{{{label}}}"
    size = r"\footnotesize\setlength{\tabcolsep}{3pt}"
    head = [r"\toprule", headings, r"\midrule"]
    if len(body) <= _PAGE:
        return "\n".join(
            [
                *(r"\begin{table}", r"\centering", title, size),
                *(rf"\begin{{tabular}}{{{layout}}}", *head, *body, r"\bottomrule"),
                *(r"\end{tabular}", r"\end{table}"),
            ]
        )
    return "\n".join(
        [
            *(r"\begingroup", size + r"\setlength{\LTcapwidth}{\linewidth}"),
            *(rf"\begin{{longtable}}{{{layout}}}", title + r"\\"),
            *(*head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot"),
            *(*body, r"\end{longtable}", r"\endgroup"),
        ]
    )

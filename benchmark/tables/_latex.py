"""LaTeX without a template engine: escaped text in a booktabs table, ASCII throughout.

Letters with accents lose these, and of other characters their number is shown (U+03BB): pdflatex
has no font for most of them, and would stop.
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


def tabular(
    body: Sequence[Sequence[str]], *, columns: Sequence[str], caption: str, label: str
) -> str:
    r"""Return a table float no wider than the text.

    Args:
        body: cells that are LaTeX already.
        columns: headings as plain text; the first column is set flush left, the others right.
        caption: plain text.
        label: for ``\ref``.
    """
    lines = [" & ".join(line) + r" \\" for line in body]
    return "\n".join(
        [
            "% packages: booktabs, graphicx",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )

"""Safe Markdown: text from rows is escaped, whatever characters it has."""

import re

_SPECIAL = re.compile(
    r"""
    [\\`*|~]                  # escapes, code, emphasis, cells, deletions
    | (?<!\w)_ | _(?!\w)      # emphasis: not within a word
    | <(?=[A-Za-z/!?])        # HTML
    | &(?=\#?\w+;)            # entities
    | (?<=\])[(\[:]           # links
    """,
    re.VERBOSE,
)
_CODE = re.compile("(`[^`]*`)")


def escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, on one line."""
    return _escaped(" ".join(text.split()))


def inline(text: str) -> str:
    """Return `text` likewise, but with `code` in backticks."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if _CODE.fullmatch(part) else _escaped(part) for part in parts)


def unquoted(text: str) -> str:
    """Return text of rows for use in notes, where backticks are markup."""
    return text.replace("`", "'")


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)

"""Result rows: one number each, with all that it depends on and all that it cost, as JSON lines."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from textwrap import shorten
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from filelock import FileLock

from benchmark.files import atomic
from benchmark.spec import UsageError

PROTOCOL = 1  # raised when a change of the harness moves numbers; reports do not mix versions


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number.

    Attributes:
        key: of all settings that can change the number.
        context: the part of these that all rows of a report share (data, teacher, recipe).
        suite: whose grid it belongs to.
        label: of the method in tables.
        method, settings: the plug-in and its fields; `student_settings` and `probe_settings`
        likewise. N: the budget, None where none plays a part.
        source, teacher, student, downstream: names; `size` is the side of all images.
        teacher_held_out: accuracies in per cent on a held-out tenth of the teacher's own source.
        recipe: `paper`, `equal-steps` or `own`; `student_steps` is what that came to.
        probe, labels_per_class: which probe, on how many labels (None: all).
        seed: of the whole experiment.
        value: top-1 accuracy in per cent, the mean over `draws` of few labels.
        strength, converged: what the probe chose, and whether it ended as it should.
        num_images, num_views: distilled images that the student saw, and views of each.
        losses: what distillation logged, by name: means over its first and its last quarter.
        changes: by owner, the settings of all that takes part in the number that are not the
            published defaults.
        distilled: key of the distilled set in the store; None where nothing was stored.
        storage: numbers and bytes stored, by component (`spec.COMPONENTS`).
        num_numbers: numbers stored, whatever their type, and `num_bytes` what these take.
        file_bytes: size of the file that holds them, header included; `compressed_bytes` what
            DEFLATE makes of the numbers, a lossless lower figure.
        teacher_seconds, distill_seconds, pretrain_seconds, features_seconds, probe_seconds:
            wall-clock time of this number's stages (all probes of a student on one dataset share
            its features).
        distill_peak_mib, pretrain_peak_mib, features_peak_mib: peak memory of these.
        device, precision: where and how; `provenance` has versions, commit and time.
    """

    key: str
    context: str
    protocol: int = PROTOCOL
    suite: str
    label: str
    method: str
    settings: dict[str, Any]
    N: int | None
    source: str
    size: int
    teacher: str
    teacher_held_out: dict[str, float]
    student: str
    student_settings: dict[str, Any]
    downstream: str
    recipe: str
    probe: str
    probe_settings: dict[str, Any]
    labels_per_class: int | None
    seed: int
    value: float
    draws: list[float]
    strength: float | None
    converged: bool
    num_images: int | None
    num_views: int | None
    distilled: str | None
    storage: dict[str, list[int]]
    num_numbers: int | None
    num_bytes: int | None
    file_bytes: int | None
    compressed_bytes: int | None
    losses: dict[str, list[float]]
    changes: dict[str, Any]
    student_steps: int
    teacher_seconds: float
    distill_seconds: float
    pretrain_seconds: float
    features_seconds: float
    probe_seconds: float
    distill_peak_mib: float | None
    pretrain_peak_mib: float | None
    features_peak_mib: float | None
    device: str
    precision: str
    provenance: dict[str, Any]


def update(file: Path, new: Iterable[Row]) -> list[Row]:
    """Merge `new` rows into those of `file`, which other processes may be doing too; return all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        merged = merge(read(file) if file.exists() else [], new)
        write(file, merged)
    return merged


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write rows to `file`, whole or not at all."""
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read(file: Path) -> list[Row]:
    """Return the rows of `file`.

    Raises:
        UsageError: a line is not a row, or of another protocol; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            raise UsageError(f"{file}, line {number}: {error}") from error
    return rows


def _row(line: str) -> Row:
    """Read one row.

    Raises:
        ValueError: it is none; the message says what would be right.
    """
    try:
        content = json.loads(line, parse_constant=_finite, parse_float=_finite)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
        version = content["protocol"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("not a row of this benchmark") from error
    if version != PROTOCOL:
        raise ValueError(
            f"protocol {version}, expected {PROTOCOL}; "
            "move the file away or report it with the version that wrote it"
        )
    if odd := _TYPES.keys() ^ content.keys():
        raise ValueError(f"missing or unknown fields: {', '.join(sorted(odd))}")
    for name, types in _TYPES.items():
        _expect(name, content[name], _is_one_of(types, content[name]), _in_words(types))
    for name, (is_right, words) in _CONTENTS.items():
        _expect(name, content[name], content[name] is None or is_right(content[name]), words)
    if lacking := {"commit", "torch", "timm", "finished_at"} - content["provenance"].keys():
        raise ValueError(f"provenance lacks {', '.join(sorted(lacking))}")
    return Row(**{name: _as_floats(value, _HINTS[name]) for name, value in content.items()})


def _as_floats(value: Any, hint: Any) -> Any:
    """Return `value` with whole numbers as floats where its type has floats."""
    if hint in (float, float | None) and value is not None:
        return float(value)
    if hint == list[float]:
        return list(map(float, value))
    if get_origin(hint) is dict and (of := get_args(hint)[1]) in (float, list[float]):
        return {name: _as_floats(part, of) for name, part in value.items()}
    return value


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"{text} is no number of a row")
    return number


def _expect(name: str, value: Any, is_right: bool, words: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is {shorten(json.dumps(value), 60)}, expected {words}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_one_of(types: tuple[type, ...], value: Any) -> bool:
    """Say whether a value is of a type: whole numbers are numbers, true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int):
        return type(value) in types
    return int in types or float in types


def _in_words(types: tuple[type, ...]) -> str:
    return " or ".join(_WORDS[each] for each in types)


def _types_of(hint: Any) -> tuple[type, ...]:
    """Return what JSON gives for a type: dict for dict[str, Any], two types for a union."""
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in parts)


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}
_HINTS = get_type_hints(Row)
_TYPES = {name: _types_of(hint) for name, hint in _HINTS.items()}
FIELDS = sorted(_TYPES)  # a row of another shape is another row to the store

_Content = tuple[Callable[[Any], bool], str]
_AMOUNT: _Content = (lambda value: value >= 0, "no less than 0")
_COUNT: _Content = (lambda value: value >= 1, "a whole number from 1, or null")
_CONTENTS: Mapping[str, _Content] = {
    **{name: _AMOUNT for name in FIELDS if name.endswith(("_seconds", "_mib", "_bytes"))},
    **{name: _AMOUNT for name in FIELDS if name.startswith("num_")},
    **{name: _COUNT for name in ("N", "labels_per_class")},
    "value": (lambda value: 0 <= value <= 100, "per cent from 0 to 100"),
    "draws": (lambda values: all(map(_is_number, values)), "a list of numbers"),
    "losses": (
        lambda losses: all(_is_list_of_two(pair, _is_number) for pair in losses.values()),
        "two numbers for each name, the means over the first and the last quarter",
    ),
    "storage": (
        lambda parts: all(
            _is_list_of_two(pair, lambda x: type(x) is int and x >= 0) for pair in parts.values()
        ),
        "two whole numbers for each component, of numbers and of bytes",
    ),
    "teacher_held_out": (
        lambda found: all(map(_is_number, found.values())),
        "a number for each name",
    ),
    "changes": (
        lambda owners: all(isinstance(fields, dict) for fields in owners.values()),
        "an object of settings for each owner",
    ),
    "provenance": (
        lambda facts: all(isinstance(fact, str) for fact in facts.values()),
        "text for each name",
    ),
}


def _is_list_of_two(pair: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(is_right, pair))


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return old rows and, after them, new ones, which replace those of the same place and device.

    The place is key and label; what another device took for it stays.
    """
    merged = {_place(row): row for row in old}
    for row in new:
        merged.pop(_place(row), None)
        merged[_place(row)] = row
    return list(merged.values())


def _place(row: Row) -> tuple[str, str, str]:
    return row.key, row.label, row.device

"""Result rows: one number each, with everything that it depends on and its cost, as JSON lines."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from filelock import FileLock

from benchmark.files import atomic, write_text
from benchmark.row_shape import checked
from benchmark.spec import UsageError

PROTOCOL = 1  # incremented when the harness changes numbers; reports do not mix versions
_REMEDY = "move the file away and repeat the runs, which find finished cells in the store"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number.

    Attributes:
        key: hash of all settings that can change the number.
        context: hash of the part of these that all rows of a report share (data, teacher, recipe).
        suite: that it belongs to.
        label: of the method in tables.
        method, settings: the plug-in and its fields; `student_settings` and `probe_settings`
            likewise.
        N: the budget; None if there is none.
        source, teacher, student, downstream: names; `size` is the side of all images.
        teacher_held_out: accuracies in per cent on a held-out tenth of the teacher's pretraining
            data, or of the source if it was not pretrained here.
        recipe: `paper`, `equal-steps` or `own`; `student_steps` is the resulting number of steps.
        probe, labels_per_class: which probe, on how many labels (None: all).
        seed: of the whole experiment.
        value: top-1 accuracy in per cent, the mean of `draws`: several with few labels.
        strength, converged: the penalty that the probe chose, and whether it converged.
        num_images, num_views: distilled images that the student saw, and views of each.
        losses: values logged by distillation, by name: means over the first and the last quarter.
        changes: the settings behind the number that are not the published defaults, by owner.
        distilled: key of the distilled set in the store; None where nothing was stored.
        storage: numbers and bytes stored, by component (`spec.COMPONENTS`).
        num_numbers: numbers stored, of any type; `num_bytes` is their size.
        file_bytes: size of their file, header included; `compressed_bytes` is the size of the
            numbers after DEFLATE (lossless).
        teacher_seconds, distill_seconds, pretrain_seconds, features_seconds, probe_seconds:
            wall-clock time of this number's stages (all probes of a student on one dataset share
            its features).
        distill_peak_mib, pretrain_peak_mib, features_peak_mib: peak memory of these.
        device, precision: where and how it was computed; `provenance` has layout, versions,
            commit, code and time.
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
    """Merge `new` rows into those of `file`, safely across processes; return all."""
    with _locked(file):
        merged = merge(read(file) if file.exists() else [], new)
        write(file, merged)
    return merged


def append(file: Path, new: Iterable[Row]) -> None:
    """Add rows at the end of `file`, like `update`, but without parsing those already there.

    If several have the same place (see `merge`), `read` uses the last one.
    """
    with _locked(file):
        old = file.read_bytes() if file.exists() else b""
        if old and not old.endswith(b"\n"):
            old += b"\n"
        with atomic(file) as temporary:
            temporary.write_bytes(old + _lines(new).encode())


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write rows to `file` atomically.

    Raises:
        ValueError: a row is invalid; the message says what is expected.
    """
    write_text(file, _lines(rows))


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Lock `file` against other processes during the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        yield


def _lines(rows: Iterable[Row]) -> str:
    """Return rows as lines, after checking that all of them can be read back."""
    lines = [json.dumps(vars(row)) for row in rows]
    for line in lines:
        _row(line)
    return "".join(f"{line}\n" for line in lines)


def read(file: Path) -> list[Row]:
    """Return the rows of `file`, the last one for each place (see `merge`).

    Raises:
        UsageError: a line is not a row, or has another protocol; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({error}): {_REMEDY}") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                rows.append(_row(line))
        except ValueError as error:
            raise UsageError(f"{file}, line {number}: {error}") from error
    return merge([], rows)


def _row(line: str) -> Row:
    """Parse one row.

    Raises:
        ValueError: it is invalid; the message says what is expected.
    """
    try:
        content = json.loads(line)
        json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate is not valid text
        version = content["protocol"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a row of this benchmark: {_REMEDY}") from error
    if version != PROTOCOL:
        raise ValueError(
            f"protocol {version}, expected {PROTOCOL}; "
            "move the file away or report it with the version that wrote it"
        )
    return Row(**checked(content, _TYPES))


_TYPES = get_type_hints(Row)
FIELDS = sorted(_TYPES)  # part of the store's keys: rows with other fields are recomputed


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return old rows followed by new ones, which replace those of the same place and device.

    The place is key, label and dataset; rows of other devices are kept.
    """
    merged = {_place(row): row for row in old}
    for row in new:
        merged.pop(_place(row), None)
        merged[_place(row)] = row
    return list(merged.values())


def _place(row: Row) -> tuple[str, ...]:
    return row.key, row.label, row.downstream, row.device

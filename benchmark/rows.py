"""Result rows: one number each, with all that it depends on and all that it cost, as JSON lines."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from filelock import FileLock

from benchmark.files import atomic
from benchmark.row_shape import checked
from benchmark.spec import UsageError

PROTOCOL = 1  # raised when the harness itself moves numbers; reports do not mix versions


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
        teacher_held_out: accuracies in per cent on a held-out tenth of what the teacher was
            pretrained on; of one that was not pretrained here, of the source.
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
        device, precision: where and how; `provenance` has versions, commit, code and time.
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
    with _locked(file):
        merged = merge(read(file) if file.exists() else [], _readable(new))
        _write(file, merged)
    return merged


def append(file: Path, new: Iterable[Row]) -> None:
    """Add rows at the end of `file` as `update` does, but without a look at those that are there.

    Where some are of the same place (see `merge`), `read` takes the last.
    """
    with _locked(file):
        old = file.read_bytes() if file.exists() else b""
        if old and not old.endswith(b"\n"):
            old += b"\n"
        with atomic(file) as temporary:
            temporary.write_bytes(old + _lines(_readable(new)).encode())


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write rows to `file`, whole or not at all.

    Raises:
        ValueError: one of them could not be read again; the message says what would be right.
    """
    _write(file, _readable(rows))


def _write(file: Path, rows: Iterable[Row]) -> None:
    with atomic(file) as temporary:
        temporary.write_text(_lines(rows), encoding="utf-8")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let no other process write `file` during the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        yield


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def _readable(rows: Iterable[Row]) -> list[Row]:
    """Return rows that are new to a file, all of which can be read again."""
    found = list(rows)
    for row in found:
        _row(json.dumps(asdict(row)))
    return found


def read(file: Path) -> list[Row]:
    """Return the rows of `file`, the last of each place (see `merge`).

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
    return merge([], rows)


def _row(line: str) -> Row:
    """Read one row.

    Raises:
        ValueError: it is none; the message says what would be right.
    """
    try:
        content = json.loads(line)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
        version = content["protocol"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("not a row of this benchmark") from error
    if version != PROTOCOL:
        raise ValueError(
            f"protocol {version}, expected {PROTOCOL}; "
            "move the file away or report it with the version that wrote it"
        )
    return Row(**checked(content, _TYPES))


_TYPES = get_type_hints(Row)
FIELDS = sorted(_TYPES)  # a row of another shape is another row to the store


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return old rows and, after them, new ones, which replace those of the same place and device.

    The place is key, label and dataset; what another device took for it stays.
    """
    merged = {_place(row): row for row in old}
    for row in new:
        merged.pop(_place(row), None)
        merged[_place(row)] = row
    return list(merged.values())


def _place(row: Row) -> tuple[str, ...]:
    return row.key, row.label, row.downstream, row.device

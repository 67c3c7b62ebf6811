"""From the name of a teacher to its file."""

from pathlib import Path

from benchmark import plugins, solo_learn
from benchmark.spec import UsageError, unknown
from benchmark.teacher import shipped_teachers


def teacher_file(name: str) -> Path | None:
    """Return the file of a shipped or a user's teacher; None for a kind, to be pretrained.

    Raises:
        UsageError: there is no such teacher.
    """
    kinds, shipped = plugins.names("teachers"), shipped_teachers()
    if name in kinds:
        return None
    try:
        file = shipped.get(name) or Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"--teacher {name}: there is no such user") from None
    if file.suffix not in (".safetensors", *solo_learn.SUFFIXES):
        raise unknown("teacher", name, [*kinds, *shipped, "FILE.safetensors", "FILE.ckpt"])
    if not file.is_file():
        raise UsageError(f"--teacher {name}: no such file")
    return file


def is_checkpoint(file: Path) -> bool:
    """Say whether a teacher's file is a checkpoint of solo-learn."""
    return file.suffix in solo_learn.SUFFIXES

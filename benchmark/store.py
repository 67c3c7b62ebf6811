"""Where the results of stages are kept: each under a key of all that can change it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a short name for `settings`: the same settings, written the same, have the same."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _plain(value: Any) -> Any:
    raise TypeError(f"{value!r} cannot be part of a key")


@dataclass(frozen=True)
class Store:
    """A folder of stages: ``root/<stage>/<key>/``."""

    root: Path

    def folder(self, stage: str, key: str) -> Path:
        """Return the folder of one stage; `lock` makes it."""
        return self.root / stage / key

    def lock(self, folder: Path) -> FileLock:
        """Return a lock on a stage, so that processes that need the same one make it once."""
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "lock")

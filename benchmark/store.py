"""Storage of stage results, each under a key of everything that can change it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a short hash of `settings`, equal for equal settings."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Store:
    """A folder of stages: ``root/<stage>/<key>/``."""

    root: Path

    def folder(self, stage: str, key: str) -> Path:
        """Return the folder of one stage; `files.lock` makes it."""
        return self.root / stage / key

    def distilled_file(self, key: str) -> Path:
        """Return where a distilled set is kept."""
        return self.folder("distilled", key) / "distilled.safetensors"

    def student_file(self, key: str) -> Path:
        """Return where a pretrained student is kept."""
        return self.folder("students", key) / "student.safetensors"

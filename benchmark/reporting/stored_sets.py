"""Distilled sets in a store, for figures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark import artifacts, plugins
from benchmark.settings import as_tuples, replace
from benchmark.spec import ImageShape, Method, UsageError
from benchmark.store import Store

History = Mapping[str, list[dict[str, float]]]


class MissingSetError(UsageError):
    """A distilled set that rows refer to is not in the store, or cannot be read."""


@dataclass(frozen=True, kw_only=True)
class StoredSet:
    """The stored tensors of a distilled set, and the method that decodes them."""

    tensors: Mapping[str, Tensor]
    method: Method
    shape: ImageShape

    def images(self, most: int) -> Float[Tensor, "m c h w"]:
        """Return at most `most` of its images, evenly spread, with pixels clipped to [0, 1]."""
        try:
            data = self.method.decode(self.tensors, self.shape)
        except (LookupError, TypeError, ValueError, RuntimeError, UsageError) as error:
            # unexpected tensors
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise MissingSetError(f"a distilled set cannot be decoded ({reason})") from error
        if data is None:
            return torch.zeros(0, self.shape.c, self.shape.h, self.shape.w)
        total = data.images.shape[0]
        pixels = data.images[spread(total, most)]
        scale = 1 if pixels.is_floating_point() else 255
        return (pixels.float() / scale).clamp(0, 1)


def spread(total: int, most: int) -> Tensor:
    """Return at most `most` of `total` positions, in order and evenly spread."""
    chosen = min(total, most)
    return torch.arange(chosen) * total // max(1, chosen)


class StoredSets:
    """The distilled sets of stores, by key. Files are data: nothing in them is executed."""

    def __init__(self, *roots: Path) -> None:
        self.roots = roots

    def history(self, key: str | None) -> History:
        """Return what each loop logged while the set was made, with step numbers.

        Raises:
            MissingSetError: it is missing or damaged.
        """
        header = self._read(key, artifacts.read_header)
        history = header.get("history")
        if not (isinstance(history, dict) and all(map(_are_points, history.values()))):
            raise MissingSetError(f"distilled set {key}: its file has no history of numbers")
        return history

    def read(self, key: str | None) -> StoredSet:
        """Return a set.

        Raises:
            MissingSetError: it is missing or damaged, or its method is not known here.
        """
        tensors, header = self._read(key, artifacts.read)
        try:
            method = plugins.load("methods", header["method"])()
            return StoredSet(
                tensors=tensors,
                method=replace(header["method"], method, as_tuples({**header["settings"]})),
                shape=ImageShape(*header["shape"]),
            )
        except (UsageError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise MissingSetError(f"distilled set {key}: cannot be decoded ({error})") from error

    def _read(self, key: str | None, reader: Any) -> Any:
        reason = f"not in {', '.join(map(str, self.roots)) or 'a store'}"
        is_key = key is not None and re.fullmatch("[0-9a-f]+", key) is not None
        for root in self.roots if is_key else ():
            file = Store(root).distilled_file(str(key))
            if file.exists():
                try:
                    return reader(file)
                except UsageError as error:
                    reason = str(error)  # another store may have it intact
        raise MissingSetError(f"distilled set {key}: {reason}")


def _are_points(logged: Any) -> bool:
    """Say whether a loop's log is a list of points: finite numbers by name."""
    return isinstance(logged, list) and all(
        isinstance(point, dict) and all(map(_is_number, point.values())) for point in logged
    )


def _is_number(value: object) -> TypeGuard[float]:
    """Say whether a value from an untrusted file is a finite number."""
    return isinstance(value, int | float) and abs(value) < float("inf")

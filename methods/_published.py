"""Published settings, each for one dataset and one number of images per class (IPC).

A published recipe is called ``<dataset>-ipc<IPC>``, with the dataset as on the command line, such
as ``cifar10-ipc50``. It applies to nothing else unless the user says so, and thus not to other
image sizes or to a subset of the classes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from benchmark.spec import Outline, UsageError

_DATA = {  # side of the images and number of classes of the data that recipes are published for
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "fashion-mnist": (28, 10),
    "tiny-imagenet": (64, 200),
}


@runtime_checkable
class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=_Record)


def resolve(
    method: Any, published: Mapping[str, R], *, owner: str, outline: Outline, ipc: int
) -> R:
    """Return the published recipe for a dataset and an IPC, overridden by the method's fields.

    Args:
        method: its fields override those of the recipe unless they are None; its `recipe` is None,
            the name of another recipe, or a dataset whose recipe for this IPC is used.
        published: recipes by name.
        owner: the method's name on the command line.
        outline: of the problem; its source, image size and classes matter.
        ipc: images per class.

    Raises:
        UsageError: nothing is published and some field is None; the message names the nearest
            recipe.
    """
    recipes = list(published.values())
    own = {field.name: getattr(method, field.name) for field in fields(recipes[0])}
    given = {name: value for name, value in own.items() if value is not None}
    dataset = method.recipe or outline.source
    name = method.recipe if method.recipe in published else f"{dataset}-ipc{ipc}"
    other = "" if method.recipe else _other_data(outline)
    if (name not in published or other) and len(given) < len(own):
        near = _nearest(published, dataset, ipc)
        missing = ", ".join(field for field in own if field not in given)
        raise UsageError(
            f"{owner} has no published recipe for {dataset}{other} at {ipc} per class; the nearest "
            f"is {near}: set {owner}.recipe={near} to use it, or set all of {missing}"
        )
    return replace(published.get(name, recipes[0]), **given)


def expect_recipe(method: Any, published: Iterable[str]) -> None:
    """Raise a UsageError unless `method.recipe` is None, a recipe, or a dataset with recipes."""
    known = list(published)
    datasets = list(dict.fromkeys(_dataset_and_ipc(name)[0] for name in known))
    if method.recipe not in (None, *known, *datasets):
        raise UsageError(
            f"recipe={method.recipe}: expected a dataset ({', '.join(datasets)}) or one of "
            f"{', '.join(known)}"
        )


def _other_data(outline: Outline) -> str:
    """Return in words how the data differ from those published under this name, if at all."""
    side, classes = _DATA.get(outline.source, (outline.shape.h, outline.num_classes))
    parts = []
    if (outline.shape.h, outline.shape.w) != (side, side):
        parts.append(f"of {outline.shape.h}x{outline.shape.w} (published: {side}x{side})")
    if outline.num_classes != classes:
        parts.append(f"with {outline.num_classes} classes (published: {classes})")
    return "".join(f" {part}" for part in parts)


def _nearest(published: Iterable[str], dataset: str, ipc: int) -> str:
    """Return the recipe of the same dataset, if any, with the nearest IPC on a log scale."""
    whole, _, _ = dataset.partition(":")

    def distance(name: str) -> tuple[bool, float]:
        other, at = _dataset_and_ipc(name)
        return other != whole, abs(math.log(at / ipc))

    return min(published, key=distance)


def _dataset_and_ipc(name: str) -> tuple[str, int]:
    dataset, _, ipc = name.rpartition("-ipc")
    return dataset, int(ipc)

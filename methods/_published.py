"""Published settings, each of one dataset at one number of images per class (IPC).

A published recipe is called ``<dataset>-ipc<IPC>``, its dataset as on the command line, such as
``cifar10-ipc50``. It holds for nothing else unless the user says so.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from benchmark.spec import UsageError


@runtime_checkable
class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=_Record)


def resolve(method: Any, published: Mapping[str, R], *, owner: str, source: str, ipc: int) -> R:
    """Return the recipe that is published for a dataset and an IPC, changed by the method's fields.

    Args:
        method: what it has for the fields of a recipe, unless that is None, takes their place; its
            `recipe` is None, or the name of another recipe, or that of a dataset whose recipe for
            this IPC is meant.
        published: recipes by name.
        owner: the method's name on the command line.
        source: the dataset that is distilled.
        ipc: images per class.

    Raises:
        UsageError: nothing is published, and some field is None; the nearest recipe is named.
    """
    recipes = list(published.values())
    own = {field.name: getattr(method, field.name) for field in fields(recipes[0])}
    given = {name: value for name, value in own.items() if value is not None}
    dataset = method.recipe or source
    name = method.recipe if method.recipe in published else f"{dataset}-ipc{ipc}"
    if name not in published and len(given) < len(own):
        near = _nearest(published, dataset, ipc)
        missing = ", ".join(field for field in own if field not in given)
        raise UsageError(
            f"{owner} has no published recipe for {dataset} at {ipc} per class; the nearest "
            f"is {near}: set {owner}.recipe={near} to use it, or set all of {missing}"
        )
    return replace(published.get(name, recipes[0]), **given)


def expect_recipe(method: Any, published: Iterable[str]) -> None:
    """Raise a UsageError unless `method.recipe` is None, a recipe, or a dataset that has some."""
    known = list(published)
    datasets = list(dict.fromkeys(_dataset_and_ipc(name)[0] for name in known))
    if method.recipe not in (None, *known, *datasets):
        raise UsageError(
            f"recipe={method.recipe}: expected a dataset ({', '.join(datasets)}) or one of "
            f"{', '.join(known)}"
        )


def _nearest(published: Iterable[str], dataset: str, ipc: int) -> str:
    """Return the recipe of the same dataset, if any, whose IPC is nearest in proportion."""
    whole, _, _ = dataset.partition(":")

    def distance(name: str) -> tuple[bool, float]:
        other, at = _dataset_and_ipc(name)
        return other != whole, abs(math.log(at / ipc))

    return min(published, key=distance)


def _dataset_and_ipc(name: str) -> tuple[str, int]:
    dataset, _, ipc = name.rpartition("-ipc")
    return dataset, int(ipc)

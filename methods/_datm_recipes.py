"""The published settings of DATM, which differ with the dataset and the images per class (IPC)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.spec import UsageError

InitialImages = Literal["correct", "real"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is published per dataset and IPC; defaults are what most of the settings share.

    Attributes:
        inner_steps: T, SGD steps on the distilled set.
        target_epochs: M, epochs of the expert that these are to match.
        start_epochs: where on the expert's trajectory to start: from the first number on, below the
            second, which grows to the third (see `max_start_epoch`).
        expansion_steps: outer steps of that growth.
        inner_batch: distilled images in an inner step, if there are more.
        image_lr, logit_lr, lr_lr: rates of the images, the label logits and the learned rate.
        threshold: an outer step whose loss is larger changes nothing.
        initial_images: random real ones, or the first random ones that experts classify correctly.
        inner_widths: of the inner model, a block more for larger images; empty for a model that
            has no such setting.
    """

    inner_steps: int = 80
    target_epochs: int = 2
    start_epochs: tuple[int, ...]
    expansion_steps: int = 1
    inner_batch: int = 1000
    image_lr: float
    logit_lr: float = 10.0
    lr_lr: float = 1e-5
    threshold: float = 1.0
    initial_images: InitialImages = "correct"
    inner_widths: tuple[int, ...] = (128, 128, 128)

    def max_start_epoch(self, outer_step: int) -> int:
        """Return the first epoch, at an outer step, that is too late to start from.

        Grows linearly, in whole epochs, from `start_epochs[1]` to `start_epochs[2]`.
        """
        _, initial, final = self.start_epochs
        grown = (final - initial) * outer_step // self.expansion_steps
        return min(final, initial + grown)


_DEEPER = (128, 128, 128, 128)  # for 64x64

# (classes, IPC) -> the released configs/<dataset>/ConvIN/IPC<ipc>.yaml of CIFAR-10, CIFAR-100 and
# Tiny ImageNet; another dataset with as many classes gets the same. CIFAR-100 at IPC 1 has the
# paper's start epochs there since a correction.
PUBLISHED: Mapping[tuple[int, ...], Recipe] = {
    (10, 1): Recipe(
        start_epochs=(0, 4, 4), image_lr=100.0, logit_lr=5.0, lr_lr=1e-7, threshold=1.1
    ),
    (10, 10): Recipe(start_epochs=(0, 10, 20), expansion_steps=1000, image_lr=100.0, logit_lr=2.0),
    (10, 50): Recipe(start_epochs=(0, 20, 40), expansion_steps=2000, image_lr=1000.0, logit_lr=2.0),
    (10, 500): Recipe(inner_steps=40, start_epochs=(40, 60, 60), image_lr=50.0),
    (10, 1000): Recipe(inner_steps=100, start_epochs=(40, 60, 60), image_lr=50.0),
    (100, 1): Recipe(
        inner_steps=40,
        target_epochs=3,
        start_epochs=(0, 10, 20),
        expansion_steps=1000,
        image_lr=1000.0,
    ),
    (100, 10): Recipe(start_epochs=(0, 30, 50), expansion_steps=2000, image_lr=1000.0),
    (100, 50): Recipe(start_epochs=(20, 70, 70), image_lr=1000.0, initial_images="real"),
    (100, 100): Recipe(start_epochs=(30, 70, 70), image_lr=50.0),
    (200, 1): Recipe(
        inner_steps=40,
        start_epochs=(0, 15, 20),
        expansion_steps=2000,
        image_lr=10_000.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
    (200, 10): Recipe(
        inner_steps=40,
        start_epochs=(10, 50, 50),
        inner_batch=500,
        image_lr=100.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
    (200, 50): Recipe(
        inner_steps=20,
        start_epochs=(40, 70, 70),
        image_lr=100.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
}


def resolve(
    problem: tuple[int, int], own: Mapping[str, Any], *, wanted: tuple[int, ...] | None = None
) -> Recipe:
    """Return the published recipe of a problem, changed by what in `own` is not None.

    Args:
        problem: classes and IPC.
        own: a value, or None, for each field of `Recipe`.
        wanted: classes and IPC of the published recipe to use, if not the problem's.

    Raises:
        UsageError: none is published, and `own` does not say everything; or makes no sense.
    """
    if wanted is not None and wanted not in PUBLISHED:
        known = "; ".join(f"{k},{ipc}" for k, ipc in PUBLISHED)
        raise UsageError(f"datm.recipe={','.join(map(str, wanted))}: expected one of {known}")
    given = {name: value for name, value in own.items() if value is not None}
    missing = [name for name in own if name not in given]
    published = PUBLISHED.get(wanted or problem)
    if published is not None:
        given = {name: getattr(published, name) for name in own} | given
    elif missing:
        k, ipc = min(PUBLISHED, key=lambda known: _distance(known, problem))
        raise UsageError(
            f"datm has no published recipe for {problem[0]} classes at {problem[1]} images each; "
            f"the nearest is for {k} at {ipc}: set datm.recipe={k},{ipc} to use it, or set all of "
            + ", ".join(missing)
        )
    recipe = Recipe(**given)
    for name in ("inner_steps", "target_epochs", "expansion_steps", "inner_batch"):
        if getattr(recipe, name) < 1:
            raise UsageError(f"datm.{name}={getattr(recipe, name)}: expected 1 or more")
    if len(recipe.start_epochs) != 3 or not (
        0 <= recipe.start_epochs[0] < recipe.start_epochs[1] <= recipe.start_epochs[2]
    ):
        raise UsageError(
            f"datm.start_epochs={recipe.start_epochs}: expected three epochs, the first below the "
            "second, the second not above the third"
        )
    return recipe


def _distance(known: tuple[int, ...], problem: tuple[int, ...]) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(known, problem, strict=True))

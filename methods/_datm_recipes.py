"""The published settings of DATM, which differ with the dataset and the images per class (IPC)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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

# The released configs/<dataset>/ConvIN/IPC<ipc>.yaml. CIFAR-100 at IPC 1 has the paper's start
# epochs there since a correction.
PUBLISHED: Mapping[str, Recipe] = {
    "cifar10-ipc1": Recipe(
        start_epochs=(0, 4, 4), image_lr=100.0, logit_lr=5.0, lr_lr=1e-7, threshold=1.1
    ),
    "cifar10-ipc10": Recipe(
        start_epochs=(0, 10, 20), expansion_steps=1000, image_lr=100.0, logit_lr=2.0
    ),
    "cifar10-ipc50": Recipe(
        start_epochs=(0, 20, 40), expansion_steps=2000, image_lr=1000.0, logit_lr=2.0
    ),
    "cifar10-ipc500": Recipe(inner_steps=40, start_epochs=(40, 60, 60), image_lr=50.0),
    "cifar10-ipc1000": Recipe(inner_steps=100, start_epochs=(40, 60, 60), image_lr=50.0),
    "cifar100-ipc1": Recipe(
        inner_steps=40,
        target_epochs=3,
        start_epochs=(0, 10, 20),
        expansion_steps=1000,
        image_lr=1000.0,
    ),
    "cifar100-ipc10": Recipe(start_epochs=(0, 30, 50), expansion_steps=2000, image_lr=1000.0),
    "cifar100-ipc50": Recipe(start_epochs=(20, 70, 70), image_lr=1000.0, initial_images="real"),
    "cifar100-ipc100": Recipe(start_epochs=(30, 70, 70), image_lr=50.0),
    "tiny-imagenet-ipc1": Recipe(
        inner_steps=40,
        start_epochs=(0, 15, 20),
        expansion_steps=2000,
        image_lr=10_000.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
    "tiny-imagenet-ipc10": Recipe(
        inner_steps=40,
        start_epochs=(10, 50, 50),
        inner_batch=500,
        image_lr=100.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
    "tiny-imagenet-ipc50": Recipe(
        inner_steps=20,
        start_epochs=(40, 70, 70),
        image_lr=100.0,
        lr_lr=1e-4,
        inner_widths=_DEEPER,
    ),
}


def expect_start_epochs(start_epochs: tuple[int, ...] | None) -> None:
    """Raise a UsageError unless these are None, or three epochs in order, see `Recipe`."""
    if start_epochs is not None and (
        len(start_epochs) != 3 or not 0 <= start_epochs[0] < start_epochs[1] <= start_epochs[2]
    ):
        raise UsageError(
            f"start_epochs={','.join(map(str, start_epochs))}: expected three epochs, the first "
            "below the second, the second not above the third"
        )

"""The published settings of DATM, which depend on the dataset and the images per class (IPC)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmark.spec import UsageError

InitialImages = Literal["correct", "real"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The published settings for a dataset and IPC; defaults are the most common values.

    Attributes:
        inner_steps: T, SGD steps on the distilled set.
        target_epochs: M, epochs of the expert that these steps should match.
        start_epochs: range of start epochs on the expert's trajectory: from the first number to
            below the second, which grows to the third (see `max_start_epoch`).
        expansion_steps: outer steps over which it grows.
        inner_batch: the most distilled images in an inner step.
        image_lr, logit_lr, lr_lr: learning rates of images, label logits and the learned rate.
        threshold: outer steps with a larger loss are skipped.
        initial_images: random real ones, or random ones that experts classify correctly.
        inner_widths: of the inner model, with one more block for larger images; empty for a model
            without this setting.
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
        """Return the exclusive upper bound of start epochs at an outer step.

        Grows linearly, in whole epochs, from `start_epochs[1]` to `start_epochs[2]`.
        """
        _, initial, final = self.start_epochs
        grown = (final - initial) * outer_step // self.expansion_steps
        return min(final, initial + grown)


_DEEPER = (128, 128, 128, 128)  # for 64x64

# The released configs/<dataset>/ConvIN/IPC<ipc>.yaml. For CIFAR-100 at IPC 1 these have had the
# paper's start epochs since a correction.
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

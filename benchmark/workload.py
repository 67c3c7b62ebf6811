"""What a method or a teacher says of itself before it runs: passes of images through networks.

These are counts, not seconds: what they take depends on the device (`benchmark.planning.devices`).
The unit of `Work.training` is one image forwards and backwards for all weights, that is, 3 F - f
operations where F are those of its forward pass and f those of its first layer. What goes backwards
to the image alone counts 2 / 3 of that, what differentiates a gradient once more up to 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.network import Precision

TO_IMAGES = 2 / 3  # of a training pass: forwards, and backwards to the images alone
DRAW = 18  # operators of one augmentation that is drawn, the mean of all six


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to make a network.

    Attributes:
        model: as on the command line.
        num_outputs: of its head.
        settings: of the model, by name.
        precision: of its backbone; None: that of the run.
        default_layout: images are laid out as the framework does, not as the run does.
    """

    model: str
    num_outputs: int
    settings: tuple[tuple[str, Any], ...] = ()
    precision: Precision | None = None
    default_layout: bool = False

    @classmethod
    def of(
        cls,
        model: str,
        num_outputs: int,
        settings: Mapping[str, Any],
        *,
        precision: Precision | None = None,
        default_layout: bool = False,
    ) -> "Architecture":
        """Return a model with these settings; those that are None are left to the model."""
        return cls(
            model=model,
            num_outputs=num_outputs,
            settings=tuple(
                (name, _frozen(value)) for name, value in settings.items() if value is not None
            ),
            precision=precision,
            default_layout=default_layout,
        )


def _frozen(value: Any) -> Any:
    """Return lists, which cannot be part of a key, as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Passes of images through one network, and what else is computed meanwhile.

    Attributes:
        network: that the images pass through.
        forward: images that pass forwards alone.
        training: images forwards and backwards.
        batch: images at once, unless memory is short (`benchmark.memory`).
        splits: whether chunks of `training` hold less than the batch: they do in evaluation mode,
            not where the gradient is differentiated once more; None: as it is in training mode.
        graphs: passes whose graphs are held together.
        represented: images that the teacher represents meanwhile.
        products: operations of matrix products in fp32; those in double precision count twice.
        bf16_products: operations of matrix products in bf16.
        shape: of all these products, rows x inner x columns, if that is far from large and square.
        num_bytes: read and written beside the passes.
        operators: calls of the framework beside the passes, each at least as long as a launch.
    """

    network: Architecture | None = None
    forward: int | float = 0
    training: int | float = 0
    batch: int = 1
    splits: bool | None = None
    graphs: int = 1
    represented: int | float = 0
    products: int | float = 0
    bf16_products: int | float = 0
    shape: tuple[int, int, int] | None = None
    num_bytes: int | float = 0
    operators: int | float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What making a distilled set, or a teacher, will take.

    Attributes:
        work: all of it but for `once`.
        once: by-products that all seeds and budgets of a method share (`spec.Problem.cache`).
        pairs: (image, view) pairs that a student is pretrained on; 0: it is not.
        held: bytes that are held meanwhile, beside source images and the networks of `work`.
        disk: bytes of what `once` leaves behind.
        stored: bytes of the distilled set, where no budget says so.
    """

    work: tuple[Work, ...] = ()
    once: tuple[Work, ...] = ()
    pairs: int = 0
    held: int | float = 0
    disk: int | float = 0
    stored: int | float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOutline:
    """What is known of a teacher before it is pretrained.

    Attributes:
        network: its backbone and head.
        num_features: of the backbone.
        num_images, num_classes: of the source, whose images have `numel` numbers each.
        precision: of the backbone.
    """

    network: Architecture
    num_features: int
    num_images: int
    num_classes: int
    numel: int
    precision: Precision = "fp32"

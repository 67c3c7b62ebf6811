"""Forecasts of methods and teachers before they run: passes of images through networks.

These are counts, not seconds, which depend on the device (`benchmark.planning.devices`). The unit
of `Work.training` is one image's forward and backward pass for all weights, that is, 3 F - f
operations, where F is the count of its forward pass and f that of its first layer. A backward pass
to the image alone makes it 2 / 3 of that; differentiating a gradient again makes it up to 3 times
that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.network import Precision
from benchmark.settings import as_tuples

TO_IMAGES = 2 / 3  # of a training pass: forward, and backward to the images alone
DRAW = 18  # operators of one randomly drawn augmentation, averaged over all six


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to make a network.

    Attributes:
        model: as on the command line.
        num_outputs: of its head.
        settings: of the model, by name.
        precision: of its backbone; None means that of the run.
        default_layout: images have the framework's default layout instead of the run's.
    """

    model: str
    num_outputs: int
    settings: tuple[tuple[str, Any], ...] = ()
    precision: Precision | None = None
    default_layout: bool = False

    @classmethod
    def of(cls, model: str, num_outputs: int, settings: Mapping[str, Any]) -> "Architecture":
        """Return a model with these settings; those that are None are left to the model."""
        return cls(
            model=model,
            num_outputs=num_outputs,
            settings=tuple(
                (name, as_tuples(value)) for name, value in settings.items() if value is not None
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Passes of images through one network, and other computation alongside.

    Attributes:
        network: that the images pass through.
        forward: images in forward passes only, to their features.
        training: images in forward and backward passes.
        batch: images at once, unless memory is limited (`benchmark.memory`).
        splits: whether splitting `training` into chunks saves memory: it does in evaluation mode,
            but not where the gradient is differentiated again; None means as in training mode.
        graphs: number of passes whose graphs are held at the same time.
        represented: images that the teacher represents alongside.
        products: operations of matrix products in fp32; double precision counts twice.
        bf16_products: operations of matrix products in bf16.
        tf32_products: of those that a GPU runs in TF32, and a CPU in fp32 (`benchmark.tf32`).
        shape: rows x inner x columns of these products, unless they are large and roughly square.
        num_bytes: read and written outside the passes.
        operators: operator calls outside the passes, each at least as long as a launch.
        captured: all of this is replayed from a CUDA graph where that is possible.
        launches: operator calls that replaying takes (`benchmark.captured.launches`).
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
    tf32_products: int | float = 0
    shape: tuple[int, int, int] | None = None
    num_bytes: int | float = 0
    operators: int | float = 0
    captured: bool = False
    launches: int | float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The expected cost of making a distilled set, or a teacher.

    Attributes:
        work: everything except `once`.
        once: by-products that all seeds and budgets of a method share (`spec.Problem.cache`).
        pairs: (image, view) pairs that a student is pretrained on; 0 means no pretraining.
        held: bytes held throughout, besides source images and the networks of `work`.
        disk: bytes that `once` leaves on disk.
        stored: bytes of the distilled set, if no budget determines them.
        own_recipe: how the method's own evaluation changes the recipe, as far as that is known.
    """

    work: tuple[Work, ...] = ()
    once: tuple[Work, ...] = ()
    pairs: int = 0
    held: int | float = 0
    disk: int | float = 0
    stored: int | float = 0
    own_recipe: Mapping[str, Any] = field(default_factory=dict)


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

"""Pretrain a teacher on a source dataset, and evaluate it without the test split."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from benchmark.held_out import held_out_accuracy, held_out_tenth
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network, in_mode
from benchmark.provenance import provenance
from benchmark.spec import LabelledImages, Loop, NewNetwork, Storage, Supervision
from benchmark.teacher import Teacher, TeacherHeader, represent_all

_FEW = 10  # labels per class of the few-label probe


@runtime_checkable
class TeacherKind(Protocol):
    """A plug-in of kind `teachers`: a frozen dataclass of hyper-parameters, published defaults.

    Attributes:
        supervision: whether it may see labels.
    """

    supervision: ClassVar[Supervision]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> str:
        """The backbone."""

    @property
    def standardise(self) -> bool:
        """Whether representations are shifted and scaled by their statistics on the source."""

    @property
    def storage(self) -> Storage:
        """Precision of the kept weights."""

    def pretrain(
        self,
        network: Network,
        *,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"] | None,
        probe: Callable[[], float],
        generator: torch.Generator,
        checkpoint: Loop,
    ) -> int:
        """Train the backbone of `network` in place, and return the steps taken.

        `probe` returns the current held-out accuracy.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPlan:
    """Which teacher to make.

    Attributes:
        source: name of the dataset.
        kind: name of the plug-in.
        recipe: the plug-in itself, its fields set.
        model_settings: of the recipe's model.
    """

    source: str
    kind: str
    recipe: TeacherKind
    model_settings: Mapping[str, Any] = field(default_factory=dict)


def pretrain_teacher(
    plan: TeacherPlan,
    source: LabelledImages,
    new_network: NewNetwork,
    *,
    generator: torch.Generator,
    checkpoint: CheckpointedLoop,
) -> Teacher:
    """Pretrain a teacher on the training split of the source.

    A tenth of the split is held out from everything that sees labels: the probes reported in the
    header, and kinds that train with labels. A kind without labels sees all images.

    The teacher's weights are rounded to their storage precision before anything is computed with
    them, so a reloaded teacher gives the same representations.
    """
    recipe, seed = plan.recipe, generator.initial_seed()
    num_classes = int(source.labels.max()) + 1
    network = new_network(recipe.model, num_classes, generator, **plan.model_settings)
    held_out = held_out_tenth(source)
    labelled = recipe.supervision == "labels"
    steps = recipe.pretrain(
        network.train(),
        images=source.images[~held_out] if labelled else source.images,
        labels=source.labels[~held_out] if labelled else None,
        probe=lambda: held_out_accuracy(_features(network, source.images), source.labels, held_out),
        generator=generator,
        checkpoint=checkpoint,
    )
    _round(network, recipe.storage)
    features = _features(network, source.images)
    header = TeacherHeader(
        kind=plan.kind,
        settings=asdict(recipe),
        seed=seed,
        model=recipe.model,
        model_settings=dict(plan.model_settings),
        image_shape=(source.shape.c, source.shape.h, source.shape.w),
        d=network.num_features,
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        source=plan.source,
        fingerprint=source.fingerprint,
        precision=network.precision,
        steps=steps,
        seconds=round(checkpoint.seconds, 1),
        held_out=_held_out_accuracies(features, source, held_out),
        provenance=provenance(source.images.device),
    )
    return Teacher(network, header, _statistics(features) if recipe.standardise else None)


def probe_teacher(teacher: Teacher, source: LabelledImages) -> Teacher:
    """Return the same teacher, its header with accuracies on a held-out tenth of `source`.

    Raises:
        NonFiniteError: a representation is not finite.
    """
    features = represent_all(teacher.network.features, source.images)
    accuracies = _held_out_accuracies(features, source, held_out_tenth(source))
    header = replace(teacher.header, held_out=accuracies)
    return Teacher(teacher.network, header, teacher.statistics)


def _held_out_accuracies(
    features: Float[Tensor, "n p"], source: LabelledImages, held_out: Bool[Tensor, " n"]
) -> dict[str, float]:
    """Return the held-out accuracies for a teacher's header, from features of all source images."""
    return {
        "all_labels": held_out_accuracy(features, source.labels, held_out),
        f"{_FEW}_labels_per_class": held_out_accuracy(features, source.labels, held_out, _FEW),
    }


def _features(network: Network, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """Return the backbone's features of all images, without changing its mode."""
    with in_mode(network, training=False):
        return represent_all(network.features, images)


@torch.no_grad()
def _round(network: Network, storage: Storage) -> None:
    if storage == "fp16":
        for tensor in network.backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def _statistics(
    features: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return mean and standard deviation of each dimension; 1 for nearly constant ones."""
    std, mean = torch.std_mean(features.double(), dim=0, correction=0)
    varies = std > 1e-6 * features.abs().amax(0)
    return mean.to(features.dtype), torch.where(varies, std, 1.0).to(features.dtype)

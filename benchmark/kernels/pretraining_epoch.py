"""One epoch of a student's pretraining on distilled pairs: batched tensors or a DataLoader."""

from copy import deepcopy

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.pretrain import RECIPES, Length, pretrain
from benchmark.spec import ImageShape, TrainingSet

from ._cost import cost_of
from ._plain_training import PairDataset, train_plainly
from ._setting import BareLoop, moved, networks, normal, pixels, stream

__all__ = ["pretraining_epoch"]

_VIEWS = ("identity", "rot90", "rot180", "rot270")


def pretraining_epoch(compute: Compute, *, small: bool = False) -> Kernel:
    """Return an epoch over four views of some images, in batches of up to 256 pairs.

    Operations: three passes of the network for each pair, except that the first layer's input has
    no gradient. Bytes: those of three passes of the backbone.
    """
    m, side, d, widths = (20, 8, 16, (8, 8)) if small else (100, 32, 512, (128, 256, 512))
    images = pixels(m, side, compute)
    targets = normal("targets", len(_VIEWS), m, d, compute=compute)
    data = TrainingSet(images=images, views=_VIEWS, targets=targets, objective="mse")
    recipe = RECIPES["mse"]
    student, twin = networks(compute, side, "convnet", d, widths=widths)

    def fast() -> Outcome:
        trained = deepcopy(student)
        pretrain(
            trained,
            data,
            Length(epochs=1),
            recipe=recipe,
            generator=stream("order", compute.device),
            checkpoint=BareLoop(),
        )
        return moved(student, trained)

    def plain() -> Outcome:
        trained = deepcopy(twin)
        train_plainly(trained, PairDataset(images, targets), recipe)
        return moved(twin, trained)

    cost, pairs = cost_of(student, ImageShape(3, side, side)), len(_VIEWS) * m
    return Kernel(
        shape=f"{m} images of 3x{side}x{side} under {len(_VIEWS)} views, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=cost.training(pairs),
        num_bytes=3 * pairs * cost.num_bytes,
        tolerance=0.05 if compute.precision == "bf16" else 1e-3,
        tried=(
            "One gather per batch on the device instead of loading, rotating and normalising image "
            "by image; bf16 and channels-last where that is faster. Training students of several "
            "seeds at once (torch.func.vmap) does not pay on a CPU, where it makes grouped "
            "convolutions: three ConvNets (32, 64, 128) on 64 images took 0.36 s instead of 0.16 s "
            "one after the other (0.10 s in bf16). torch.compile reduced a step of a ConvNet (32, "
            "64, 128) to 0.82 and of a quarter-width ResNet-18 to 0.77 of its time, after half a "
            "minute of compiling: more than one pretraining would save. On a GPU, pretraining "
            "replays its steps from a CUDA graph, but this epoch of two ends before there is one; "
            "not measured: see the plan for an H100. There torch.compile is untried."
        ),
    )

"""The class matching of DSA: gradients of real and distilled images, class by class."""

from dataclasses import replace

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._gradient_matching import ClassMatching
from benchmark.methods._labelled import RealImages
from benchmark.methods.dsa import Dsa

from ._labelled import labelled_problems, new_classifiers
from ._matching import gradient_matching_operations, image_costs, match_gradients_plainly
from ._setting import normal, stream

__all__ = ["gradient_matching"]


def gradient_matching(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the matching of some classes with one distilled image each.

    With one image per class, an outer step of `dsa` is this matching of all classes: its inner
    models are not trained. With more, see `dsa-step`.

    Operations: see `_matching`. Bytes: those of as many forward passes.
    """
    k, real_batch, side, widths, d = (
        (3, 6, 8, (8, 8), 5) if small else (2, 256, 32, (128, 128, 128), 100)
    )
    problem, _ = labelled_problems(compute, k=k, per_class=real_batch + 1, ipc=1, side=side)
    real = RealImages.of(problem, stream("real images"))
    images = normal("distilled", k, 1, 3, side, side, compute=compute)
    classifier, twin = new_classifiers(compute, side=side, widths=widths, num_outputs=d)
    settings = Dsa(real_batch=real_batch)
    matching = ClassMatching(classifier, real.seen_by(classifier))

    def fast() -> Outcome:
        seen = replace(real, generator=stream("draws", compute.device))
        gradient, distance = settings._outer_gradient(matching, images, seen)
        return gradient, distance

    def plain() -> Outcome:
        seen = replace(real, generator=stream("draws", compute.device))
        return match_gradients_plainly(twin, images, seen, real_batch)

    seen, own = image_costs(compute, k=d, side=side, widths=widths)
    of_real = k * real_batch
    return Kernel(
        shape=f"{k} classes, {real_batch} real images and 1 distilled each, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=gradient_matching_operations(seen, own, of_real=of_real, of_distilled=k),
        num_bytes=3 * of_real * seen.num_bytes + 7 * k * own.num_bytes,
        tolerance=0.2 if compute.precision == "bf16" else 1e-3,
        tried=(
            "With one image per class, an outer step of `dsa` is this for all classes. Real "
            "images, nearly all of the arithmetic, in the run's precision: bf16 changes their "
            "gradient by 1 to 3 %, another batch of real images by 26 to 50. Convolutions are "
            "faster in channels-last, group norms in the default layout, and the latter gain more. "
            "Pooling as a product takes an eighth of its time in bf16. 256 images on one thread "
            "take 1.15 s in fp32 and channels-last, 1.0 in the default layout, 0.89 with that "
            "pooling, 0.48 in bf16. Gradients of biases and norms, which the distance ignores, are "
            "left out, and each class is differentiated separately, so that one graph is held at a "
            "time: that saves memory, but no time. On a CPU with AVX2 alone, neither did batches "
            "of 8 to 128 images, nor norm, ReLU and pooling of a few images at a time while these "
            "are in the cache (0.82 s instead of 0.78 for a class on two threads). On a GPU, the "
            "matching of a class is replayed "
            "from a CUDA graph for each augmentation; not measured: see the plan for an H100."
        ),
    )

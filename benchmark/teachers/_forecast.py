"""Counts of the work of pretraining a teacher."""

import math

from benchmark.held_out import RIDGES
from benchmark.teacher import BATCH
from benchmark.workload import Forecast, TeacherOutline, Work

from ._fit import Training

# Counted: operators of one augmentation of a batch, and numbers read and written per pixel value;
# operators of projector and loss, and numbers per weight (at 256 images).
_RANDOM, _RANDOM_NUMBERS = 134, 75
_SHIFTED, _SHIFTED_NUMBERS = 21, 10
_PROJECTOR, _PROJECTOR_NUMBERS = 88, 23


def barlow_twins_forecast(
    training: Training, outline: TeacherOutline, *, hidden: int, output: int
) -> Forecast:
    """Count two augmentations of each image, the backbone, and the projector.

    The projector's layers take 2 (p h + h h + h o) operations per image, and twice as many
    backward, in the backbone's precision, for two augmentations. The correlation of b projections
    of o numbers takes 6 b o o.
    """
    p, h, o = outline.num_features, hidden, output
    weights = p * h + h * h + h * o
    b, steps = training.batch_size, _steps(training, outline.num_images)
    numbers = 2 * _RANDOM_NUMBERS * b * outline.numel + _PROJECTOR_NUMBERS * weights
    projected, correlated = steps * 12 * b * weights, steps * 6 * b * o * o
    in_bf16 = outline.precision == "bf16"
    passes = Work(
        network=outline.network,
        training=2 * steps * b,
        batch=b,
        products=correlated + (0 if in_bf16 else projected),
        bf16_products=projected if in_bf16 else 0,
        num_bytes=4 * steps * numbers,
        operators=steps * (2 * _RANDOM + _PROJECTOR),
    )
    return Forecast(work=(passes, _looks(training, outline)))


def supervised_forecast(training: Training, outline: TeacherOutline) -> Forecast:
    """Count shifts of each image and the network, on nine tenths of the images."""
    seen = outline.num_images - outline.num_images // 10
    b, steps = training.batch_size, _steps(training, seen)
    passes = Work(
        network=outline.network,
        training=steps * b,
        batch=b,
        num_bytes=4 * steps * _SHIFTED_NUMBERS * b * outline.numel,
        operators=steps * _SHIFTED,
    )
    return Forecast(work=(passes, _looks(training, outline)))


def _steps(training: Training, num_images: int) -> int:
    return training.epochs * (num_images // training.batch_size)


def _looks(training: Training, outline: TeacherOutline) -> Work:
    """Count evaluations of held-out accuracy: representations of all images, ridge classifiers.

    One takes a singular value decomposition of n x p features, about 14 n p p operations, and 2 n p
    k for each ridge. They run on the host: using the device's rate is an error of some seconds per
    evaluation.
    """
    n, p, k = outline.num_images, outline.num_features, outline.num_classes
    looks = math.ceil(training.epochs / training.probe_every) + 1
    return Work(
        network=outline.network,
        forward=looks * n,
        batch=min(n, BATCH),
        products=looks * n * p * (14 * p + 2 * len(RIDGES) * k),
    )

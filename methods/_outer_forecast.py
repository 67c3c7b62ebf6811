"""Counts of the work of the outer loop in `_outer_loop`."""

from benchmark.captured import launches
from benchmark.spec import Problem
from benchmark.workload import TO_IMAGES, Architecture, Forecast, Work

from ._outer_loop import BilevelSettings
from ._supervised_forecast import weight_bytes


def bilevel_forecast(
    settings: BilevelSettings, problem: Problem, *, views: int, m: int, decoding: int | float = 0
) -> Forecast:
    """Count the outer steps on m distilled images under all `views`, and the pool's warm-up.

    The staggered models of a pool are trained to half of `max_age` on average. It is ignored that a
    replaced model skips its step. Representations of augmented copies are computed once for all
    sets, stored and read back. Besides a pass, weights, gradients and momenta of the pool are held,
    and for ridge regression on s support points and b queries, features (with gradients for the
    support) and three linear systems.

    Args:
        settings: of the loop.
        problem: as far as it is known.
        views: that a student sees of each image.
        m: distilled images.
        decoding: operations for one distilled image and its targets.
    """
    steps = settings.outer_steps
    if steps == 0:
        return Forecast(pairs=views * m)
    d = problem.representations("identity").shape[1]
    model = settings.sample_model(problem.new_network)
    shown = views if settings.outer_views == "all" else 1
    s, inner = _pairs(settings, shown, m), _pairs(settings, views, m)
    b, p = shown * settings.real_batch, model.num_features
    of_features, others = ridge_operations(s=s, p=p, b=b, d=d)
    in_tf32 = of_features if problem.precision == "bf16" else 0
    inner_steps = steps + settings.staggered * settings.pool_size * settings.max_age // 2
    copies = 0
    if settings.augment_real:
        copies = views * (settings.augmented_copies or 0) * len(problem.images)
    anew = settings.augment_real and settings.augmented_copies is None
    network = Architecture.of(settings.inner_model, d, settings.inner_settings)
    pool = 3 * settings.pool_size * weight_bytes(model)
    return Forecast(
        work=(
            Work(
                network=network,
                forward=steps * b,
                batch=b,
                represented=steps * b if anew else 0,
                products=steps * (of_features - in_tf32 + others + 3 * decoding * s / shown),
                tf32_products=steps * in_tf32,
            ),
            Work(network=network, training=steps * s * TO_IMAGES, batch=s, splits=True),
            Work(
                network=network,
                training=inner_steps * inner,
                batch=inner,
                products=inner_steps * decoding * inner / views,
                captured=True,
                launches=inner_steps * launches(num_inputs=2, num_outputs=0),
            ),
        ),
        once=(Work(represented=copies),) if copies else (),
        pairs=views * m,
        held=pool + 4 * ((2 * s + b) * p + 3 * s * (s + b)) + 4 * copies * d,
        disk=4 * copies * d,
    )


def ridge_operations(*, s: int, p: int, b: int, d: int) -> tuple[int, int]:
    """Count a prediction and its gradients with respect to support points and targets.

    For s support points, b queries, p features and representations of length d; the first number is
    of products of features, which run in TF32 where networks run in bf16.

    Products: 2 s s p + 2 b s p + 2 b s d forward, and 4 s s p (both factors of the kernel), 2 b s p
    and 4 b s d backward. Triangular solves: 2 s s d forward, twice that backward. Cholesky and its
    gradient: of order s^3.
    """
    return 6 * s * s * p + 4 * b * s * p, 6 * b * s * d + 6 * s * s * d + s**3


def _pairs(settings: BilevelSettings, views: int, m: int) -> int:
    """Return how many (image, view) pairs `Bilevel.distilled_batch` gives."""
    return views * min(m, max(1, settings.distilled_batch // views))

"""Counts of the work of the outer loop in `_outer_loop`."""

from benchmark.captured import launches
from benchmark.spec import Problem
from benchmark.workload import TO_IMAGES, Architecture, Forecast, Work

from ._outer_loop import BilevelSettings
from ._supervised_forecast import weight_bytes


def bilevel_forecast(
    settings: BilevelSettings, problem: Problem, *, views: int, m: int, decoding: int | float = 0
) -> Forecast:
    """Count a loop on m distilled images, of which a student sees `views`; see also `_work`.

    Representations of augmented copies are computed once for all sets, stored and read back.
    """
    copies: int = 0
    if settings.outer_steps and settings.augment_real:
        copies = views * (settings.augmented_copies or 0) * len(problem.images)
    kept = 4 * copies * problem.representations("identity").shape[1]
    return Forecast(
        work=_work(settings, problem, views=views, m=m, decoding=decoding),
        once=(Work(represented=copies),) if copies else (),
        pairs=views * m,
        held=_held_bytes(settings, problem, views=views, m=m) + kept,
        disk=kept,
    )


def _work(
    settings: BilevelSettings, problem: Problem, *, views: int, m: int, decoding: int | float
) -> tuple[Work, ...]:
    """Count the outer steps on m distilled images under all `views`, and the pool's warm-up.

    With s support points, b queries and p features, ridge regression and its gradients take 6 s s p
    + 4 b s p + 6 b s d + 6 s s d + s^3 operations, the first two in TF32 where networks run in
    bf16. The staggered models of a pool are trained to half of `max_age` on average. It is ignored
    that a replaced model skips its step.

    Args:
        settings: of the loop.
        problem: as far as it is known.
        views: that a student sees of each image.
        m: distilled images.
        decoding: operations for one distilled image and its targets.
    """
    steps = settings.outer_steps
    if steps == 0:
        return ()
    d = problem.representations("identity").shape[1]
    shown = _shown(settings, views)
    inner, s = _pairs(settings, views, m), _pairs(settings, shown, m)
    b, p = shown * settings.real_batch, settings.sample_model(problem.new_network).num_features
    kernels, rest = 6 * s * s * p + 4 * b * s * p, 6 * b * s * d + 6 * s * s * d + s**3
    in_tf32 = kernels if problem.precision == "bf16" else 0
    inner_steps = steps
    if settings.staggered:
        inner_steps += settings.pool_size * settings.max_age // 2
    anew = settings.augment_real and settings.augmented_copies is None
    network = Architecture.of(settings.inner_model, d, settings.inner_settings)
    return (
        Work(
            network=network,
            forward=steps * b,
            batch=b,
            represented=steps * b if anew else 0,
            products=steps * (kernels - in_tf32 + rest + 3 * decoding * s / shown),
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
    )


def _held_bytes(settings: BilevelSettings, problem: Problem, *, views: int, m: int) -> int:
    """Return the bytes held besides a pass: the pool, and ridge regression.

    For the models of the pool these are weights, gradients and momenta; for s support points and b
    queries, features (with gradients for the support) and three linear systems.
    """
    if settings.outer_steps == 0:
        return 0
    model = settings.sample_model(problem.new_network)
    shown = _shown(settings, views)
    s, b, p = _pairs(settings, shown, m), shown * settings.real_batch, model.num_features
    pool = 3 * settings.pool_size * weight_bytes(model)
    return pool + 4 * ((2 * s + b) * p + 3 * s * (s + b))


def _shown(settings: BilevelSettings, views: int) -> int:
    """Return how many views a step compares."""
    return views if settings.outer_views == "all" else 1


def _pairs(settings: BilevelSettings, views: int, m: int) -> int:
    """Return how many (image, view) pairs `Bilevel.distilled_batch` gives."""
    return views * min(m, max(1, settings.distilled_batch // views))

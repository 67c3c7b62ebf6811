"""Counts of the work of the parameterised method, including the outer loop."""

from dataclasses import replace

from benchmark.spec import Problem
from benchmark.workload import Forecast, Work

from . import _approximation
from ._outer_forecast import bilevel_forecast
from ._outer_loop import BilevelSettings
from ._storage import Storage

_FITTING = 64  # operators in a step of `_approximation.fit_shifts`, counted


def parameterised_forecast(
    settings: BilevelSettings,
    problem: Problem,
    storage: Storage,
    *,
    views: int,
    fitting_steps: int,
) -> Forecast:
    """Count PCA initialisation, outer steps and the fitting of the approximation networks.

    Principal components of n rows of q numbers take 2 n q q operations, and the eigenvectors of
    their covariance about 9 q^3, both in double precision. Decoding an image from u bases of q
    numbers takes 2 u q, its target under each view 2 V d. A fitting step takes three passes of a
    batch through networks of 2 q hidden weights.
    """
    layout, m, n = storage.layout, storage.m, len(problem.images)
    fitting = Work()
    if (width := layout.approximation_width) is not None:
        code = storage.num_target_bases if layout.basis_shape else layout.d
        numbers = _approximation.num_floats(layout.num_augmentations, code, width)
        fitting = Work(
            products=fitting_steps * 6 * min(m, _approximation._BATCH) * numbers,
            operators=fitting_steps * _FITTING,
        )
    start, decoding = Work(), 0
    if (small := layout.basis_shape) is not None:
        start = Work(
            products=_components(n, small.numel) + _components(views * n, layout.d),
            num_bytes=2 * 8 * n * (small.numel + views * layout.d),
        )
        decoding = 2 * storage.num_image_bases * small.numel
        decoding += 2 * views * storage.num_target_bases * layout.d
    outer = bilevel_forecast(settings, problem, views=views, m=m, decoding=decoding)
    return replace(outer, work=(start, *outer.work, fitting))


def _components(n: int, q: int) -> int:
    return 2 * (2 * n * q * q + 9 * q**3)

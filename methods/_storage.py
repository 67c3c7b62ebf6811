"""How a budget is spent: on bases, on approximation networks, and on the images that remain."""

from dataclasses import dataclass

from benchmark.spec import ImageShape, UsageError

from . import _approximation

MOST_BASES = 200  # U = V = 200 at N = 100 (paper, CIFAR-100)
# At N = 100 these take 73 % of the budget. Smaller budgets shrink the bases so that what images do
# not get stays below this share, and the number of images hardly changes: about 240 at N = 25, 50
# and 100.
LARGEST_SHARE = 0.75


@dataclass(frozen=True)
class Storage:
    """What is stored; `approximation_width` is None where no network is, bases 0 where none are."""

    m: int
    num_image_bases: int
    num_target_bases: int
    basis_shape: ImageShape
    approximation_width: int | None


def fit_budget(
    num_floats: int,
    *,
    shape: ImageShape,
    basis_shape: ImageShape,
    d: int,
    num_augmentations: int,
    approximation_width: int | None,
    bases: tuple[int | None, int | None] | None,
    most_images: int,
) -> Storage:
    """Return the storage that `num_floats` numbers hold; less than one more image remains unspent.

    U and V that are None are chosen: as many as `MOST_BASES`, fewer where bases, means and networks
    would take more than `LARGEST_SHARE` of the budget, never more than the dimensions they span.
    No more than `most_images` images are stored.

    Raises:
        UsageError: not a single image fits (the message names the smallest budget that does), or
            there are more bases than dimensions.
    """

    def overhead(u: int, v: int) -> int:
        code = v if bases else d
        networks = (
            _approximation.num_floats(num_augmentations, code, approximation_width)
            if approximation_width
            else 0
        )
        spans = (u + 1) * basis_shape.numel + (v + 1) * d if bases else 0
        return networks + spans

    def choose(most: int) -> tuple[int, int]:
        given_u, given_v = bases or (0, 0)
        u = min(most, basis_shape.numel) if given_u is None else given_u
        v = min(most, d) if given_v is None else given_v
        return u, v

    choices = [choose(most) for most in range(MOST_BASES, 0, -1)]
    affordable = (uv for uv in choices if overhead(*uv) <= LARGEST_SHARE * num_floats)
    u, v = next(affordable, choices[-1])
    if u > basis_shape.numel or v > d:
        raise UsageError(
            f"{u} image bases and {v} representation bases: expected at most {basis_shape.numel} "
            f"and {d}, the dimensions that they span"
        )
    stored_views = 1 if approximation_width else 1 + num_augmentations
    per_image = u + stored_views * v if bases else shape.numel + stored_views * d
    m = min((num_floats - overhead(u, v)) // per_image, most_images)
    if m < 1:
        pair = shape.numel + d
        smallest = -(-(overhead(u, v) + per_image) // pair)
        raise UsageError(
            f"a budget of {num_floats // pair} holds no image of this method: expected at least "
            f"{smallest}"
        )
    return Storage(m, u, v, basis_shape, approximation_width)

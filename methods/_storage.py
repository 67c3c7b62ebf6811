"""How a budget is spent: on bases and approximation networks, and the rest on images."""

from dataclasses import dataclass

from benchmark.spec import ImageShape, UsageError

from . import _approximation

MOST_BASES = 200  # U = V = 200 at N = 100 (paper, CIFAR-100)
# At N = 100 these take 73 % of the budget. With smaller budgets, bases shrink so that everything
# except images stays below this share, and the number of images hardly changes: 229 at N =
# 25, 227 at 50 and 239 at 100.
LARGEST_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is stored per image, and what besides images.

    Attributes:
        shape: of an image.
        d: length of a representation.
        basis_shape: of an image basis; None: no bases, plain images and representations.
        num_augmentations: views besides the identity.
        approximation_width: of the networks; None: no networks, but the targets of all views.
    """

    shape: ImageShape
    d: int
    basis_shape: ImageShape | None
    num_augmentations: int
    approximation_width: int | None

    def shared(self, u: int, v: int) -> int:
        """Return the count of numbers in u + v bases, their means, and the networks."""
        bases, code = 0, self.d
        if self.basis_shape is not None:
            bases, code = (u + 1) * self.basis_shape.numel + (v + 1) * self.d, v
        if self.approximation_width is None:
            return bases
        networks = _approximation.num_floats(self.num_augmentations, code, self.approximation_width)
        return bases + networks

    def per_image(self, u: int, v: int) -> int:
        """Return the count of numbers per image."""
        views = 1 + (self.num_augmentations if self.approximation_width is None else 0)
        if self.basis_shape is None:
            return self.shape.numel + views * self.d
        return u + views * v


@dataclass(frozen=True)
class Storage:
    """A layout with m images over U image bases and V representation bases."""

    layout: Layout
    m: int
    num_image_bases: int
    num_target_bases: int


def fit_budget(
    num_floats: int, layout: Layout, *, bases: tuple[int | None, int | None], most_images: int
) -> Storage:
    """Return the storage that fits `num_floats` numbers.

    U and V in `bases` are upper limits (None: `MOST_BASES`, or the number of dimensions if
    smaller). Where bases, means and networks would take more than `LARGEST_SHARE` of the budget,
    and not all images fit beside them, the larger of the two shrinks, and then both. At most
    `most_images` images are stored; with fewer, less than one more image remains unused.

    Raises:
        UsageError: not a single image fits (the message names the smallest sufficient budget), or
            there are more bases than dimensions.
    """
    u_limit, v_limit = (layout.basis_shape.numel, layout.d) if layout.basis_shape else (0, 0)
    given_u, given_v = bases if layout.basis_shape else (0, 0)
    most_u = min(MOST_BASES, u_limit) if given_u is None else given_u
    most_v = min(MOST_BASES, v_limit) if given_v is None else given_v
    if most_u > u_limit or most_v > v_limit:
        raise UsageError(
            f"{most_u} image bases and {most_v} representation bases: expected at most {u_limit} "
            f"and {v_limit}, the dimensions that they span"
        )
    choices = [
        (min(most, most_u), min(most, most_v)) for most in range(max(most_u, most_v, 1), 0, -1)
    ]

    def are_affordable(u: int, v: int) -> bool:
        shared, images = layout.shared(u, v), most_images * layout.per_image(u, v)
        return shared <= LARGEST_SHARE * num_floats or shared + images <= num_floats

    u, v = next((uv for uv in choices if are_affordable(*uv)), choices[-1])
    shared, per_image = layout.shared(u, v), layout.per_image(u, v)
    m = min((num_floats - shared) // per_image, most_images)
    if m < 1:
        pair = layout.shape.numel + layout.d
        raise UsageError(
            f"a budget of {num_floats // pair} holds no image of this method: expected at least "
            f"{-(-(shared + per_image) // pair)}"
        )
    return Storage(layout, m, u, v)

import json
import math
from pathlib import Path

import pytest
import scipy.ndimage
import torch
import torchvision.transforms.v2.functional as vision
from safetensors import safe_open

from benchmark.differentiable_augmentation import (
    OPERATIONS,
    Augmentation,
    apply_each,
    draw,
    draw_each,
)
from benchmark.spec import UsageError

RECORDED = Path(__file__).parent / "fixtures" / "augmentation.safetensors"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(b=3, side=16, seed=1):
    return torch.randn(b, 3, side, side, generator=generator(seed), dtype=torch.float64)


def fixed(operation, *rows):
    uniform = torch.tensor(rows, dtype=torch.float64)
    return Augmentation(operation=operation, uniform=uniform)


def test_color_is_brightness_then_saturation_then_contrast():
    x = images(1)
    b, s, c = 0.9, 0.3, 0.8
    expected = x.clone() + (b - 0.5)
    expected = s * 2 * expected + (1 - s * 2) * expected.mean(1, keepdim=True)
    expected = (c + 0.5) * expected + (0.5 - c) * expected.mean()
    torch.testing.assert_close(fixed("color", (b, s, c))(x), expected)


@pytest.mark.parametrize(("u", "shift"), [(0.0, -2), (0.5, 0), (0.99, 2)])
def test_crop_shifts_by_whole_pixels_and_fills_with_zero(u, shift):
    x = images(2)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    expected = padded[:, :, 2 + shift : 18 + shift, 2:18]
    assert torch.equal(fixed("crop", (u, 0.5, 0))(x), expected)
    expected = padded[:, :, 2:18, 2 + shift : 18 + shift]
    assert torch.equal(fixed("crop", (0.5, u, 0))(x), expected)


@pytest.mark.parametrize(
    ("u", "rows"), [(0.0, range(4)), (0.5, range(4, 12)), (0.999, range(12, 16))]
)
def test_cutout_zeroes_a_square_that_the_border_may_cut(u, rows):
    x = images(2)
    expected = x.clone()
    expected[:, :, rows.start : rows.stop, 4:12] = 0
    assert torch.equal(fixed("cutout", (u, 0.5, 0))(x), expected)


def test_flip_takes_half_of_the_draws():
    x = images(1)
    assert torch.equal(fixed("flip", (0.49, 0, 0))(x), x.flip(3))
    assert torch.equal(fixed("flip", (0.5, 0, 0))(x), x)


def test_scale_samples_at_a_multiple_of_the_distance_from_the_centre():
    x = images(1)
    sy, sx = 1.2, 1 / 1.2  # row 0 of the matrix is x: the first number scales the width
    out = fixed("scale", (0.0, 1.0, 0))(x)
    centre = 7.5
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            x[0, channel].numpy(),
            [sy, sx],
            offset=[centre - sy * centre, centre - sx * centre],
            order=1,
            mode="grid-constant",
        )
        torch.testing.assert_close(out[0, channel], torch.from_numpy(expected))


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -15), (0.5, 0), (0.8, 9)])
def test_rotate_turns_about_the_centre(u, degrees):
    x = images(1)
    expected = vision.rotate(x, degrees, interpolation=vision.InterpolationMode.BILINEAR)
    out = fixed("rotate", (u, 0, 0))(x)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("operation", ["scale", "rotate"])
def test_the_corner_convention_does_not_matter_for_square_images(operation):
    x, row = images(1), (0.9, 0.1, 0)
    angle, scales = math.radians(0.8 * 15), [1 / 1.2 + u * (1.2 - 1 / 1.2) for u in row[:2]]
    turn = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
    matrix = [[scales[0], 0, 0], [0, scales[1], 0]] if operation == "scale" else turn
    theta = torch.tensor([matrix], dtype=torch.float64)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    other = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(fixed(operation, row)(x), other)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_siamese_parameters_do_not_depend_on_the_batch(operation):
    x = images(5)
    augment = draw(generator(3), operations=(operation,))
    torch.testing.assert_close(augment(x)[2:3], augment(x[2:3]))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_image_may_have_its_own_parameters(operation):
    x = images(4)
    augment = draw(generator(4), num=4, operations=(operation,))
    alone = [fixed(operation, row.tolist())(x[i : i + 1]) for i, row in enumerate(augment.uniform)]
    torch.testing.assert_close(augment(x), torch.cat(alone))
    assert len(augment.uniform.unique(dim=0)) == 4


@pytest.mark.parametrize("operations", [None, ("flip", "color"), ()], ids=["all", "two", "none"])
def test_augmenting_each_batch_is_augmenting_them_one_by_one(operations):
    sizes = (3, 1, 4, 2, 2, 3, 1, 2)
    batches = [x.requires_grad_() for x in images(sum(sizes)).split(sizes)]
    drawn = draw_each(generator(9), [1] * len(sizes), operations=operations)
    together = apply_each(drawn, batches)
    for batch, augment, augmented in zip(batches, drawn, together, strict=True):
        expected = augment(batch)
        torch.testing.assert_close(augmented, expected)
        up = torch.randn(batch.shape, generator=generator(10)).to(batch)
        gradients = [
            torch.autograd.grad(x, batch, up, retain_graph=True)[0] for x in (augmented, expected)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradient_reaches_the_pixels(operation):
    x = images(2, side=8).requires_grad_()
    augment = draw(generator(5), num=2, operations=(operation,))
    assert torch.autograd.gradcheck(augment, (x,))


def test_one_of_six_equally_likely_operations_per_draw():
    stream = generator(6)
    drawn = [draw(stream).operation for _ in range(3000)]
    for operation in OPERATIONS:
        # 500 expected, deviation sqrt(3000 * 1/6 * 5/6) = 20.4
        assert abs(drawn.count(operation) - 500) < 5 * math.sqrt(3000 * 5 / 36)


def test_drawing_several_at_once_is_drawing_them_one_by_one():
    one_by_one, stream = generator(8), generator(8)
    wanted = [draw(one_by_one, num=num) for num in (1, 4, 2)]
    drawn = draw_each(stream, (1, 4, 2))
    assert [augment.operation for augment in drawn] == [augment.operation for augment in wanted]
    for ours, theirs in zip(drawn, wanted, strict=True):
        assert torch.equal(ours.uniform, theirs.uniform)
    assert torch.equal(stream.get_state(), one_by_one.get_state())


def test_draws_are_reproducible_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = draw(generator(7), num=3), draw(generator(7), num=3)
    assert first.operation == second.operation
    assert torch.equal(first.uniform, second.uniform)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_operations_means_no_augmentation():
    x = images()
    assert draw(generator(), operations=())(x) is x


def test_an_unknown_operation_is_named_and_the_nearest_suggested():
    with pytest.raises(UsageError, match=r"rotation.*'rotate'"):
        draw(generator(), operations=("rotation",))


@pytest.fixture(scope="module")
def recorded():
    with safe_open(RECORDED, "pt") as file:
        assert "53f63a6" in json.loads(file.metadata()["provenance"])["repository"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", ["siamese.101", "siamese.205", "each.7"])
def test_agrees_with_the_released_code(recorded, operation, case):
    expected = recorded[f"{operation}.{case}.out"]
    uniform = recorded[f"{operation}.{case}.uniform"]
    out = Augmentation(operation=operation, uniform=uniform)(recorded["images"])
    torch.testing.assert_close(out[: len(expected)], expected, rtol=1e-6, atol=1e-9)

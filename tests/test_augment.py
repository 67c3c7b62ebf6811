"""Every operation against torchvision's, with parameters that differ between images."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from benchmark import augment
from benchmark.augment import RandomAugmentation
from benchmark.spec import UsageError

FACTORS = (0.0, 0.6, 1.0, 1.37)
NOTHING = RandomAugmentation(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    gamma=0.0,
    grey=0.0,
    solarise=0.0,
)
EVERYTHING = RandomAugmentation(
    crop_scale=(0.08, 1.0),
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    gamma=0.3,
    grey=0.2,
    solarise=0.2,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    colour = torch.rand(4, 3, 8, 8, generator=generator())
    colour[1] = colour[1, :1]  # a grey image has no hue
    colour[2, :, :4] = (colour[2, :, :4] * 3).round() / 3  # ties between channels
    colour[2, :, 4:] = (colour[2, :, 4:] * 1.5).round().clamp(0, 1)  # black, white, pure colours
    return colour


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (augment.adjust_brightness, tv.adjust_brightness),
        (augment.adjust_contrast, tv.adjust_contrast),
        (augment.adjust_saturation, tv.adjust_saturation),
        (augment.adjust_gamma, tv.adjust_gamma),
    ],
)
def test_adjustments_are_those_of_torchvision(images, ours, theirs):
    expected = torch.stack([theirs(x, f) for x, f in zip(images, FACTORS, strict=True)])
    torch.testing.assert_close(ours(images, torch.tensor(FACTORS)), expected)


@pytest.mark.parametrize("shifts", [(-0.5, -0.1, 0.07, 0.5), (0.0, 0.25, -0.31, 0.1)])
def test_hue_is_that_of_torchvision(images, shifts):
    expected = torch.stack([tv.adjust_hue(x, s) for x, s in zip(images, shifts, strict=True)])
    turned = augment.adjust_hue(images, torch.tensor(shifts))
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_greyscale_and_solarisation_are_those_of_torchvision(images):
    grey = augment.luma(images).expand_as(images)
    torch.testing.assert_close(grey, tv.rgb_to_grayscale(images, num_output_channels=3))
    torch.testing.assert_close(augment.solarise(images), tv.solarize(images, threshold=0.5))


def test_resized_crop_is_that_of_torchvision(images):
    boxes = torch.tensor([[0, 0, 8, 8], [2, 1, 3, 6], [7, 7, 1, 1], [0, 3, 5, 2]])
    mirrored = torch.tensor([False, True, False, True])
    expected = [
        tv.resized_crop(x, *box, size=[8, 8], antialias=False)
        for x, box in zip(images, boxes.tolist(), strict=True)
    ]
    expected = [tv.horizontal_flip(x) if m else x for x, m in zip(expected, mirrored, strict=True)]
    cropped = augment.resized_crop(images, boxes, mirrored)
    torch.testing.assert_close(cropped, torch.stack(expected), atol=1e-5, rtol=0)


def test_shifted_is_a_crop_of_the_padded_image(images):
    offsets = [(0, 0), (-4, 4), (3, -1), (-2, -3)]
    padded = tv.pad(images, [4, 4, 4, 4])
    expected = [
        tv.crop(x, 4 + down, 4 + right, 8, 8)
        for x, (down, right) in zip(padded, offsets, strict=True)
    ]
    assert torch.equal(augment.shifted(images, torch.tensor(offsets)), torch.stack(expected))


def test_flipped_flips_the_share_it_should():
    images = torch.rand(1, 3, 4, 4, generator=generator()).expand(4_000, -1, -1, -1)
    flips = (augment.flipped(images, 0.25, generator()) == images.flip(3)).all(dim=(1, 2, 3))
    assert flips.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_boxes_lie_inside_and_follow_the_asked_distribution():
    images = torch.zeros(20_000, 3, 32, 32)
    boxes = augment.draw_boxes(images, (0.25, 0.5), (0.5, 2.0), generator())
    top, left, height, width = boxes.unbind(1)
    assert ((top >= 0) & (left >= 0) & (top + height <= 32) & (left + width <= 32)).all()
    assert (top + height == 32).any() and (left + width == 32).any() and (top == 0).any()
    area = (height * width) / 32**2
    assert area.mean().item() == pytest.approx(0.375, abs=0.005)
    logs = (width / height).log()
    assert logs.mean().item() == pytest.approx(0, abs=0.01)
    assert logs.std().item() == pytest.approx(2 * math.log(2) / math.sqrt(12), abs=0.01)


def test_where_no_crop_fits_the_whole_image_is_taken():
    boxes = augment.draw_boxes(torch.zeros(3, 3, 8, 8), (4.0, 5.0), (1.0, 1.0), generator())
    assert boxes.tolist() == [[0, 0, 8, 8]] * 3


def test_an_augmentation_with_all_strengths_zero_changes_nothing(images):
    torch.testing.assert_close(NOTHING(images, generator()), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("flip", lambda x: x.flip(3)),
        ("grey", lambda x: tv.rgb_to_grayscale(x, num_output_channels=3)),
        ("solarise", lambda x: tv.solarize(x, threshold=0.5)),
    ],
)
def test_a_probability_is_the_share_of_images_changed(field, expected):
    images = torch.rand(1, 3, 4, 4, generator=generator()).expand(4_000, -1, -1, -1)
    augmented = replace(NOTHING, **{field: 0.2})(images, generator())
    changed = (augmented - expected(images)).abs().amax(dim=(1, 2, 3)) < 1e-5
    same = (augmented - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert torch.equal(changed, ~same)
    assert changed.float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_jitter_spares_the_share_it_should_and_draws_factors_in_range():
    images = torch.full((4_000, 3, 2, 2), 0.5)
    factors = replace(NOTHING, brightness=0.4, jitter=0.8)(images, generator())[:, 0, 0, 0] / 0.5
    spared = factors == 1
    assert spared.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert factors.min() >= 0.6 and factors.max() <= 1.4
    assert factors[~spared].std().item() == pytest.approx(0.8 / math.sqrt(12), abs=0.01)


def test_all_of_it_stays_in_range_and_repeats_for_the_same_seed():
    images = torch.rand(64, 3, 32, 32, generator=generator(1))
    state = torch.get_rng_state()
    views = [EVERYTHING(images, generator(s)) for s in (0, 0, 1)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert views[0].min() >= 0 and views[0].max() <= 1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_scale", (0.3,)),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.5, 1.5)),
        ("crop_ratio", (0.0, 1.0)),
        ("flip", 1.5),
        ("hue", -0.1),
        ("gamma", math.nan),
    ],
)
def test_senseless_settings_are_refused(field, value):
    with pytest.raises(UsageError, match=f"^{field}=.*: expected") as error:
        replace(NOTHING, **{field: value})
    assert "\n" not in str(error.value)


@pytest.mark.kernel
def test_speed_of_one_batch(benchmark):
    images = torch.rand(256, 3, 32, 32, generator=generator())
    benchmark(EVERYTHING, images, generator())


def test_shifts_and_flips_are_those_of_padded_crops():
    images = torch.rand(40, 3, 6, 6, generator=generator(2))
    actual = augment.shift_and_flip(images, 2, generator())
    draws = generator()
    offsets = torch.randint(-2, 3, (40, 2), generator=draws)
    flips = torch.rand(40, generator=draws) < 0.5
    for i, image in enumerate(images):
        flipped = tv.horizontal_flip(image) if flips[i] else image
        top, left = (offsets[i] + 2).tolist()
        assert torch.equal(actual[i], tv.pad(flipped, [2] * 4)[:, top : top + 6, left : left + 6])
    assert 10 < flips.sum() < 30
    assert set(offsets.flatten().tolist()) == {-2, -1, 0, 1, 2}

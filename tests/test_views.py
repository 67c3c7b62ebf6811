import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from benchmark import views
from benchmark.spec import UsageError

PIL = {
    "rot90": Image.Transpose.ROTATE_90,
    "rot180": Image.Transpose.ROTATE_180,
    "rot270": Image.Transpose.ROTATE_270,
    "flip": Image.Transpose.FLIP_LEFT_RIGHT,
}


@pytest.fixture
def images():
    stream = torch.Generator().manual_seed(0)
    return torch.randint(256, (4, 3, 5, 5), generator=stream, dtype=torch.uint8)


@pytest.mark.parametrize("view", PIL)
def test_views_are_those_of_pillow(images, view):
    expected = [pil_to_tensor(to_pil_image(image).transpose(PIL[view])) for image in images]
    assert torch.equal(views.apply(view, images), torch.stack(expected))


def test_every_view_is_tested():
    assert set(views.VIEWS) == {"identity", *PIL}


def test_the_identity_copies_nothing(images):
    assert views.apply("identity", images) is images
    assert views.apply_all(["identity"], images) is images


def test_all_views_follow_one_another(images):
    names = ("identity", "rot270", "flip")
    together = views.apply_all(names, images)
    for i, name in enumerate(names):
        assert torch.equal(together[4 * i : 4 * i + 4], views.apply(name, images))


def test_permutations_give_each_image_a_view_of_its_own(images):
    names = list(views.VIEWS)
    permutations = views.permutations(names, 5, 5)
    chosen = torch.tensor([4, 1, 0, 3])
    actual = views.apply_each(permutations[chosen], images)
    for i, view in enumerate(chosen):
        assert torch.equal(actual[i : i + 1], views.apply(names[view], images[i : i + 1]))


def test_an_unknown_view_gets_help():
    with pytest.raises(UsageError, match=r"^unknown view 'rot45': did you mean 'rot.*known: ident"):
        views.apply("rot45", torch.zeros(1, 3, 4, 4))

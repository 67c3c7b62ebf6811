import pytest
import torch

from benchmark.methods import ours
from benchmark.methods._storage import Layout, fit_budget
from benchmark.methods.ours import Ours
from benchmark.spec import Budget, ImageShape, Problem, UsageError

PAIR = 3 * 32 * 32 + 512


def cifar(N, *, n=50_000, side=32, d=512):
    """A problem of CIFAR-100's size whose tensors take no memory."""
    return Problem(
        source="toy",
        images=torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(n, 3, side, side),
        representations=lambda view: torch.zeros(1, 1).expand(n, d),
        teacher=lambda images: torch.zeros(len(images), d),
        labels=None,
        num_classes=None,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        budget=Budget(N),
        new_network=lambda *_, **__: pytest.fail("no inner model is needed here"),
    )


ABLATIONS = {
    "all": {},
    "bases only": {"augmentations": ()},
    "bases and views": {"approximation": False},
    "views only": {"bases": False, "approximation": False},
    "views and networks": {"bases": False},
    "none": {"bases": False, "augmentations": (), "approximation": False},
    "given bases": {"num_image_bases": 16, "num_target_bases": 12},
    "small bases": {"basis_size": 8},
}


def price_of_an_image(method, storage):
    """What one more image costs, by the definition of each setting."""
    views = 1 if method.approximation else 1 + len(method.augmentations)
    if method.bases:
        return storage.num_image_bases + views * storage.num_target_bases
    return 3072 + views * 512


def price(method, storage):
    """All numbers that are stored, by the definition of each setting."""
    u, v = storage.num_image_bases, storage.num_target_bases
    side = method.basis_size or 16
    spans = (u + 1) * 3 * side * side + (v + 1) * 512 if method.bases else 0
    code = v if method.bases else 512
    networks = len(method.augmentations) * ((code + 1) * 4 + (4 + 1) * code)
    networks = networks if method.approximation else 0
    return spans + networks + storage.m * price_of_an_image(method, storage)


@pytest.mark.parametrize("N", [25, 50, 100, 1000, 5000])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_budget_is_filled_to_within_one_image(ablation, N):
    method = Ours(**ABLATIONS[ablation])
    storage = method.storage(cifar(N))
    left = N * PAIR - price(method, storage)
    assert left >= 0
    assert left < price_of_an_image(method, storage) or storage.m == 50_000


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_tensors_that_are_stored_are_as_large_as_planned(monkeypatch, ablation):
    monkeypatch.setattr(
        ours,
        "principal_components",
        lambda chunks, u: (torch.zeros(u, q := next(iter(chunks)).shape[1]), torch.zeros(q)),
    )
    method = Ours(outer_steps=0, approximation_steps=0, **ABLATIONS[ablation])
    problem = cifar(25, n=3000)
    stored = method.distill(problem, generator=torch.Generator(), checkpoint=NoLoop())
    storage = method.storage(problem)
    assert sum(tensor.numel() for tensor in stored.values()) == price(method, storage)
    assert method.decode(stored, problem.shape).images.shape[0] == storage.m


class NoLoop:
    def steps(self, name, total, **state):
        assert total == 0
        return iter(())

    def log(self, step, **values):
        pytest.fail("no step is taken")

    def charge(self, seconds):
        pytest.fail("nothing is shared")


def test_the_published_arithmetic():
    storage = Ours().storage(cifar(100))
    assert (storage.m, storage.num_image_bases, storage.num_target_bases) == (239, 200, 200)
    assert storage.layout.basis_shape == ImageShape(3, 16, 16)
    spent = 153_600 + 102_400 + 768 + 512 + 3 * 1804 + 239 * 400
    assert spent <= 358_400 < spent + 400


@pytest.mark.parametrize(("N", "m"), [(25, 229), (50, 227), (100, 239)])
def test_small_budgets_shrink_the_bases_before_the_number_of_images(N, m):
    storage = Ours().storage(cifar(N))
    assert storage.m == m
    assert storage.num_image_bases == storage.num_target_bases == pytest.approx(2 * N, rel=0.05)


def test_small_budgets_shrink_bases_that_are_given_as_well():
    method = Ours(num_image_bases=150, num_target_bases=64)
    found = {N: method.storage(cifar(N)) for N in (25, 100)}
    assert {N: (s.num_image_bases, s.num_target_bases) for N, s in found.items()} == {
        25: (50, 50),
        100: (150, 64),
    }
    numbers = 51 * 768 + 51 * 512 + 3 * (51 * 4 + 5 * 50)
    assert numbers <= 0.75 * 25 * PAIR < numbers + 768 + 512 + 3 * 9
    assert found[25].m == (25 * PAIR - numbers) // 100


def test_a_large_budget_holds_every_image_but_no_more():
    assert Ours().storage(cifar(5000)).m == (5000 * PAIR - 262_692) // 400
    assert Ours().storage(cifar(5000, n=10_000)).m == 10_000


def test_no_more_bases_than_dimensions():
    storage = Ours(basis_size=4).storage(cifar(100, d=64))
    assert (storage.num_image_bases, storage.num_target_bases) == (48, 64)


def test_width_of_approximation_networks_follows_the_image_size():
    def width(method, **size):
        return method.storage(cifar(100, **size)).layout.approximation_width

    assert width(Ours()) == 4
    assert width(Ours(), side=64) == 16
    assert width(Ours(approximation_width=9)) == 9
    assert width(Ours(augmentations=())) is None


@pytest.mark.parametrize("ablation", set(ABLATIONS) - {"none"})
def test_too_small_a_budget_names_the_smallest_that_works(ablation):
    method = Ours(**ABLATIONS[ablation])
    with pytest.raises(UsageError) as caught:
        method.storage(cifar(0))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    smallest = int(message.rsplit(" ", 1)[1])
    assert message == (f"a budget of 0 holds no image of this method: expected at least {smallest}")
    assert method.storage(cifar(smallest)).m >= 1
    with pytest.raises(UsageError, match=f"a budget of {smallest - 1} .* at least {smallest}$"):
        method.storage(cifar(smallest - 1))


def test_more_bases_than_dimensions_are_refused():
    with pytest.raises(UsageError, match=r"769 image bases .* expected at most 768 and 512"):
        Ours(num_image_bases=769).storage(cifar(1000))
    with pytest.raises(UsageError, match="513 representation bases: expected at most 768 and 512"):
        Ours(num_target_bases=513).storage(cifar(1000))


@pytest.mark.parametrize(
    "name", ["num_image_bases", "num_target_bases", "basis_size", "approximation_width"]
)
def test_nothing_of_no_size(name):
    with pytest.raises(UsageError, match=f"{name}=0: expected 1 or more"):
        Ours(**{name: 0})


SMALL = Layout(
    shape=ImageShape(3, 8, 8),
    d=6,
    basis_shape=ImageShape(3, 4, 4),
    num_augmentations=3,
    approximation_width=4,
)


def test_one_image_more_for_each_time_its_price():
    sizes = [
        fit_budget(numbers, SMALL, bases=(5, 4), most_images=10**9).m
        for numbers in range(1000, 1030)
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] - sizes[0] == 30 // 9


def test_bases_shrink_no_further_than_all_images_need():
    """Twelve images fit beside all bases, though these take more than their share."""
    whole = SMALL.shared(20, 4) + 12 * SMALL.per_image(20, 4)
    assert SMALL.shared(20, 4) > 0.75 * whole
    for numbers, m, u in ((whole, 12, 20), (whole - 1, 12, 19)):
        found = fit_budget(numbers, SMALL, bases=(20, 4), most_images=12)
        assert (found.m, found.num_image_bases) == (m, u)

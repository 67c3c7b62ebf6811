from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import OPERATIONS, Augmentation, draw
from benchmark.loop import CheckpointedLoop
from benchmark.methods import idm
from benchmark.methods._distribution_matching import expand
from benchmark.methods._labelled import RealImages
from benchmark.methods.idm import Idm
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape, UsageError

RECORDED = Path(__file__).parent / "fixtures" / "idm.safetensors"

SMALL = Idm(
    outer_steps=5,
    cross_entropy_weight=0.5,
    real_batch=6,
    birth_interval=2,
    inner_steps=2,
    meter_reset_interval=0,
    start="quarters",
    queue_size=4,
    inner_batch=8,
    inner_widths=(8, 8),
)


class Killed(CheckpointedLoop):
    """A loop whose process dies when it logs step 3."""

    def log(self, step, **values):
        super().log(step, **values)
        if step == 3:
            raise KeyboardInterrupt


def distil(method, problem, *, seed=0, loop=None):
    generator = torch.Generator().manual_seed(seed)
    loop = loop or CheckpointedLoop(None, description="idm")
    return method.distill(problem, generator=generator, checkpoint=loop)["images"]


@pytest.fixture
def _double():
    """Compute in double precision, the pixels and the networks included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def twin(method, problem):
    """A plain twin: one class after the other, one optimizer, features and logits apart."""
    stream = torch.Generator().manual_seed(0)
    real = RealImages.of(problem, stream)
    std, mean = (torch.tensor(x).view(-1, 1, 1) for x in (problem.std, problem.mean))
    k, ipc, half = 3, problem.budget.N // 3, problem.shape.h // 2
    images = torch.zeros(k, ipc, *problem.images.shape[1:])
    for c in range(k):
        for left in (slice(half), slice(half, None)):
            for top in (slice(half), slice(half, None)):
                images[c][:, :, top, left] = torch.nn.functional.avg_pool2d(
                    real.of_class(c, ipc), 2
                )
    images.requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.2, momentum=0.5)
    networks, trainers, right, seen = [], [], [], []

    def push():
        network = problem.new_network("convnet", k, stream, widths=(8, 8), norm="instance")
        networks.append(network)
        trainers.append(
            torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        )
        right.append(0)
        seen.append(0)

    for _ in range(3):
        push()
    weighed = []
    for step in range(method.outer_steps):
        if method.meter_reset_interval and step and step % method.meter_reset_interval == 0:
            right[:], seen[:] = [0] * len(right), [0] * len(seen)
        if step % method.birth_interval == 0:
            for gone in (networks, trainers, right, seen):
                del gone[: max(0, len(gone) - method.queue_size + 1)]
            push()
        chosen = int(torch.randperm(len(networks), generator=stream)[0])
        network = networks[chosen]
        accuracy = 100 * right[chosen] / max(1, seen[chosen])
        weighed.append(accuracy)
        drawn = [draw(stream) for _ in range(k)]
        between = torch.rand(len(problem.labels), generator=stream)  # double precision, as _double
        for c, augment in enumerate(drawn):
            own = (problem.labels == c).nonzero()[:, 0]
            rows = own[between[own].argsort()][:6]
            normalised = (problem.images[rows] / 255 - mean) / std
            batch = augment(normalised) * std + mean
            mine = augment(expand(images[c])) * std + mean
            gap = network.features(batch).detach().mean(0) - network.features(mine).mean(0)
            entropy = cross_entropy(network(mine), torch.full((4 * ipc,), c))
            optimizer.zero_grad(set_to_none=False)
            (gap.square().sum() + 0.5 * accuracy * entropy).backward()
            optimizer.step()
        for i in torch.randperm(len(networks), generator=stream)[:2].tolist():
            for _ in range(2):
                batch, labels = real.of_any_class(8)
                logits = networks[i](batch * std + mean)
                trainers[i].zero_grad()
                cross_entropy(logits, labels).backward()
                trainers[i].step()
                right[i] += int((logits.argmax(1) == labels).sum())
                seen[i] += 8
    return images.detach() * std + mean, weighed


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    ("meter_reset_interval", "group_images"), [(0, 256), (2, 16), (3, 1), (4, 256)]
)
def test_agrees_with_a_plain_loop_over_classes(
    labelled_problem, meter_reset_interval, group_images
):
    problem = labelled_problem(N=6)
    method = replace(
        SMALL,
        outer_steps=9,
        meter_reset_interval=meter_reset_interval,
        group_images=group_images,
    )
    expected, weighed = twin(method, problem)
    assert any(weighed)
    torch.testing.assert_close(distil(method, problem), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("group_images", [1, 16, 256])
def test_three_outer_steps_are_the_released_loops(labelled_problem, monkeypatch, group_images):
    """With the images, augmentations and weights that the released code had."""
    recorded = load_file(RECORDED)
    networks, training_batches = [], iter(range(1, 7))

    def new_network(model, num_outputs, stream, **settings):
        factory = NetworkFactory(shape=ImageShape(3, 16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
        network = factory(model, num_outputs, torch.Generator(), **settings)
        weights = [recorded[name] for name in sorted(recorded) if name.startswith("weight.")]
        with torch.no_grad():
            for parameter, weight in zip(network.parameters(), weights, strict=True):
                parameter.copy_(weight)
        networks.append(network)
        return network

    class Recorded(RealImages):
        def of_class(self, c, most):
            return recorded["loop.start"][c][:most]

        def draw_rows_of_each_class(self, most):
            return [(torch.arange(most) + c) % 6 for c in range(4)]

        def batches(self, rows):
            return [recorded["real"][part] for part in rows]

        def of_any_class(self, most):
            j = next(training_batches)
            rows = torch.arange(j, j + most) % 6
            return recorded["real"][rows], (3 * rows + j) % 4

    augmentations = [
        Augmentation(operation=OPERATIONS[operation], uniform=uniform[None])
        for operation, uniform in zip(
            recorded["loop.operations"].flatten(),
            recorded["loop.uniform"].flatten(0, 1),
            strict=True,
        )
    ]
    first = iter(augmentations + 2 * augmentations[:4])  # at last, two sets are compared
    monkeypatch.setattr(idm, "RealImages", Recorded)
    monkeypatch.setattr(idm, "draw_each", lambda _, nums, **settings: [next(first) for _ in nums])
    problem = replace(
        labelled_problem(N=8, k=4, side=16),
        new_network=new_network,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    method = Idm(
        outer_steps=3,
        cross_entropy_weight=0.1,
        real_batch=3,
        birth_interval=3,
        inner_steps=2,
        meter_reset_interval=0,
        start="whole",
        initial_models=1,
        queue_size=1,
        inner_batch=5,
        group_images=group_images,
        inner_widths=(6, 6, 6),
    )
    loop = CheckpointedLoop(None, description="idm")
    actual = distil(method, problem, loop=loop)
    moved, expected = (x - recorded["loop.start"] for x in (actual, recorded["loop.images"]))
    assert (moved - expected).norm() < 1e-6 * expected.norm()
    logged = loop.history["outer steps"]
    entropies, distances = (
        torch.tensor([point[part] for point in logged])
        for part in ("cross_entropy", "feature_distance")
    )
    torch.testing.assert_close(entropies, recorded["loop.cross_entropies"], rtol=1e-9, atol=0)
    losses = distances + 0.1 * recorded["loop.accuracies"] * entropies
    torch.testing.assert_close(losses, recorded["loop.losses"], rtol=1e-9, atol=0)
    weights = torch.cat([weight.detach().flatten() for weight in networks[-1].parameters()])
    torch.testing.assert_close(weights, recorded["loop.weights"], rtol=1e-9, atol=1e-12)


def test_classes_are_augmented_together_however_many_images_are_asked_for(
    labelled_problem, monkeypatch
):
    """Twelve images a class, of 5 000 asked for at one canvas a class, as published."""
    together, apply = [], idm.apply_each

    def counted(drawn, batches):
        together.append([len(batch) for batch in batches])
        return apply(drawn, batches)

    monkeypatch.setattr(idm, "apply_each", counted)
    distil(replace(SMALL, outer_steps=1, real_batch=5000), labelled_problem(N=3))
    assert together[:2] == [[12] * 3, [4] * 3]  # real images, then views


def test_a_killed_run_goes_on_to_the_same_images(labelled_problem, tmp_path):
    problem = labelled_problem(N=6)
    uninterrupted = distil(SMALL, problem)
    killed = Killed(tmp_path, description="idm", save_every_seconds=-1.0)
    with pytest.raises(KeyboardInterrupt):
        distil(SMALL, problem, loop=killed)
    assert list(tmp_path.iterdir())
    resumed = distil(SMALL, problem, loop=CheckpointedLoop(tmp_path, description="idm"))
    assert torch.equal(resumed, uninterrupted)


def test_same_seed_same_images_and_the_problem_untouched(labelled_problem):
    problem, before = labelled_problem(N=3), torch.get_rng_state()
    pixels = problem.images.clone()
    first = distil(SMALL, problem)
    assert torch.equal(first, distil(SMALL, problem))
    assert not torch.equal(first, distil(SMALL, problem, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(problem.images, pixels)


def test_the_objective_falls(labelled_problem):
    loop = CheckpointedLoop(None, description="idm")
    method = replace(SMALL, outer_steps=60, cross_entropy_weight=0.0, augmentations=())
    distil(method, labelled_problem(N=3), loop=loop)
    values = torch.tensor([entry["feature_distance"] for entry in loop.history["outer steps"]])
    assert values[-15:].mean() < 0.8 * values[:5].mean()


def test_cross_entropy_weighs_nothing_until_a_network_has_trained(labelled_problem):
    problem = labelled_problem(N=3)
    for interval, alike in ((1, True), (0, False)):
        method = replace(SMALL, meter_reset_interval=interval)
        none = distil(replace(method, cross_entropy_weight=0.0), problem)
        assert torch.equal(distil(method, problem), none) is alike


def test_drift_can_be_switched_off(labelled_problem):
    problem = labelled_problem(N=3)
    assert not torch.equal(distil(SMALL, problem), distil(replace(SMALL, drift=False), problem))
    still = replace(SMALL, outer_momentum=0.0)
    assert torch.equal(distil(still, problem), distil(replace(still, drift=False), problem))


def test_starts_from_four_real_images_and_decodes_to_them(labelled_problem):
    problem = labelled_problem(N=6)
    canvases = distil(replace(SMALL, outer_steps=0), problem)
    assert canvases.numel() <= problem.num_floats
    decoded = SMALL.decode({"images": canvases}, problem.shape)
    assert decoded.targets.argmax(2).tolist() == [[0] * 8 + [1] * 8 + [2] * 8]
    assert decoded.objective == "cross-entropy"
    halves = torch.nn.functional.avg_pool2d(problem.images / 255, 2)
    for image, label in zip(decoded.images, decoded.targets[0].argmax(1), strict=True):
        enlarged = torch.nn.functional.interpolate(
            halves[problem.labels == label], scale_factor=2, mode="bilinear"
        )
        assert (enlarged - image).abs().amax((1, 2, 3)).min() < 1e-5


def test_published_recipes_by_dataset_and_images_per_class(labelled_problem):
    problem = labelled_problem(N=10, k=10)
    fields = ("cross_entropy_weight", "real_batch", "birth_interval", "inner_steps")
    published = replace(
        SMALL,
        **dict.fromkeys(fields),
        meter_reset_interval=None,
        start=None,
        recipe="cifar10",
    )
    written = replace(
        SMALL,
        cross_entropy_weight=0.5,
        real_batch=5000,
        birth_interval=5,
        inner_steps=10,
        meter_reset_interval=100,
    )
    assert torch.equal(distil(published, problem), distil(written, problem))


@pytest.mark.parametrize(
    ("changes", "N", "message"),
    [
        ({}, 2, "less than one image for each of 3 classes"),
        ({"real_batch": None}, 6, "nearest is cifar10-ipc1: .* or set all of real_batch$"),
    ],
)
def test_refusals_say_what_would_do(labelled_problem, changes, N, message):
    with pytest.raises(UsageError, match=message):
        distil(replace(SMALL, **changes), labelled_problem(N=N))


def test_odd_images_have_no_quarters(labelled_problem):
    with pytest.raises(UsageError, match="odd side"):
        distil(SMALL, labelled_problem(N=3, side=9))

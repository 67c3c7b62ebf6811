from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import OPERATIONS, Augmentation, draw
from benchmark.loop import CheckpointedLoop
from benchmark.methods import dsa
from benchmark.methods._labelled import RealImages
from benchmark.methods.dsa import PUBLISHED, Dsa
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape, UsageError

RECORDED = Path(__file__).parent / "fixtures" / "dsa.safetensors"

SMALL = Dsa(
    num_inner_models=2,
    outer_steps_per_model=2,
    inner_epochs=2,
    real_batch=6,
    inner_batch=4,
    inner_widths=(8, 8),
)


class Killed(CheckpointedLoop):
    """A loop whose process dies when it logs step 3."""

    def log(self, step, **values):
        super().log(step, **values)
        if step == 3:
            raise KeyboardInterrupt


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distil(method, problem, *, seed=0, loop=None):
    loop = loop or CheckpointedLoop(None, description="dsa")
    return method.distill(problem, generator=generator(seed), checkpoint=loop)["images"]


@pytest.fixture
def _double():
    """Compute in double precision, the pixels and the networks included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def summed_distance(gradient, target):
    """One minus the cosine of each output of each parameter, written out."""
    total = torch.zeros(())
    for g, t in zip(gradient, target, strict=True):
        if g.ndim > 1:
            for row, other in zip(g, t, strict=True):
                product = row.norm() * other.norm()  # of which a dead output has gradient 0
                total = total + 1 - (row * other).sum() / (product + 1e-6)
    return total


def twin(method, problem):
    """The whole loop, plainly: one joint loss, all parameters, torch's own SGD for everything."""
    stream, k, ipc = generator(), 3, problem.budget.N // 3
    real = RealImages.of(problem, stream)
    std, mean = (torch.tensor(x).view(-1, 1, 1) for x in (problem.std, problem.mean))
    images = torch.cat([real.of_class(c, ipc) for c in range(k)]).requires_grad_()
    labels = torch.arange(k).repeat_interleave(ipc)
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)

    def fresh():
        return problem.new_network("convnet", k, stream, widths=(8, 8), norm=method.inner_norm)

    fresh()  # the method's first model only gives the place for those to come
    for _ in range(method.num_inner_models):
        network = fresh()
        trainer = torch.optim.SGD(network.parameters(), lr=0.01)
        for outer_step in range(method.outer_steps_per_model):
            if outer_step:  # between outer steps, so never after the last one
                network.train()
                for _ in range(method.inner_epochs):
                    for rows in torch.randperm(k * ipc, generator=stream).split(4):
                        drawn = draw(stream, num=len(rows))
                        batch = [
                            replace(drawn, uniform=own[None])(image[None])
                            for own, image in zip(drawn.uniform, images.detach()[rows], strict=True)
                        ]
                        trainer.zero_grad()
                        cross_entropy(
                            network(torch.cat(batch) * std + mean), labels[rows]
                        ).backward()
                        trainer.step()
            if method.inner_norm == "batch":
                network.train()
                network(torch.cat([real.of_class(c, 4) for c in range(k)]) * std + mean)
                network.eval()

            def gradient(batch, c, *, graph=False, network=network):
                loss = cross_entropy(network(batch * std + mean), torch.full((len(batch),), c))
                return torch.autograd.grad(loss, list(network.parameters()), create_graph=graph)

            loss = torch.zeros(())
            drawn = [draw(stream) for _ in range(k)]
            for c, augment in enumerate(drawn):
                target = gradient(augment(real.of_class(c, 6)), c)
                mine = gradient(augment(images[labels == c]), c, graph=True)
                loss = loss + summed_distance(mine, target)
            (images.grad,) = torch.autograd.grad(loss, [images])
            optimizer.step()
    return (images.detach() * std + mean).unflatten(0, (k, ipc))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    ("num_inner_models", "outer_steps", "inner_epochs", "norm"),
    [(1, 1, 0, "instance"), (2, 3, 2, "instance"), (2, 2, 1, "batch")],
)
def test_agrees_with_a_plain_loop(
    labelled_problem, num_inner_models, outer_steps, inner_epochs, norm
):
    method = replace(
        SMALL,
        num_inner_models=num_inner_models,
        outer_steps_per_model=outer_steps,
        inner_epochs=inner_epochs,
        inner_norm=norm,
        batch_norm_images=4,
    )
    problem = labelled_problem(N=6)
    actual = distil(method, problem)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, twin(method, problem), rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("_double")
def test_three_outer_steps_are_the_released_loops(labelled_problem, monkeypatch):
    """With the images, augmentations and weights that the released code had."""
    recorded = load_file(RECORDED)
    networks = []

    def new_network(model, num_outputs, stream, **settings):
        factory = NetworkFactory(shape=ImageShape(3, 16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
        network = factory(model, num_outputs, generator(), **settings)
        weights = [recorded[name] for name in sorted(recorded) if name.startswith("weight.")]
        with torch.no_grad():
            for parameter, weight in zip(network.parameters(), weights, strict=True):
                parameter.copy_(weight)
        networks.append(network)
        return network

    class Recorded(RealImages):
        def of_class(self, c, most):
            return recorded["loop.start"][c] if most == 2 else recorded["real"].roll(-c, 0)[:most]

    orders, augmentations = generator(), []
    for step in range(3):
        for c in range(4):
            chosen, uniform = (recorded[f"loop.{x}"][step, c] for x in ("operations", "uniform"))
            augmentations.append(Augmentation(operation=OPERATIONS[chosen], uniform=uniform[None]))
        for epoch in range(2 if step < 2 else 0):
            chosen, uniform = (
                recorded[f"loop.inner_{x}"][step, epoch] for x in ("operations", "uniform")
            )
            order = torch.randperm(8, generator=orders)
            augmentations.append(Augmentation(operation=OPERATIONS[chosen], uniform=uniform[order]))
    monkeypatch.setattr(dsa, "RealImages", Recorded)
    monkeypatch.setattr(
        dsa, "draw_each", lambda _, nums, **settings: [augmentations.pop(0) for _ in nums]
    )
    problem = replace(
        labelled_problem(N=8, k=4, side=16),
        new_network=new_network,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    method = Dsa(
        num_inner_models=1,
        outer_steps_per_model=3,
        inner_epochs=2,
        real_batch=3,
        inner_widths=(6, 6, 6),
    )
    loop = CheckpointedLoop(None, description="dsa")
    actual = distil(method, problem, loop=loop)
    assert not augmentations
    losses = torch.tensor([point["distance"] for point in loop.history["outer steps"]])
    torch.testing.assert_close(losses, recorded["loop.losses"], rtol=1e-9, atol=0)
    moved, expected = (x - recorded["loop.start"] for x in (actual, recorded["loop.images"]))
    assert (moved - expected).norm() < 1e-6 * expected.norm()
    weights = torch.cat([weight.detach().flatten() for weight in networks[0].parameters()])
    torch.testing.assert_close(weights, recorded["loop.weights"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_killed_run_goes_on_to_the_same_images(labelled_problem, tmp_path, norm):
    problem, method = (
        labelled_problem(N=6),
        replace(SMALL, outer_steps_per_model=3, inner_norm=norm),
    )
    uninterrupted = distil(method, problem)
    killed = Killed(tmp_path, description="dsa", save_every_seconds=-1.0)
    with pytest.raises(KeyboardInterrupt):
        distil(method, problem, loop=killed)
    assert list(tmp_path.iterdir())
    resumed = distil(method, problem, loop=CheckpointedLoop(tmp_path, description="dsa"))
    assert torch.equal(resumed, uninterrupted)


def test_same_seed_same_images_and_the_problem_untouched(labelled_problem):
    problem, before = labelled_problem(N=3), torch.get_rng_state()
    pixels = problem.images.clone()
    first = distil(SMALL, problem)
    assert torch.equal(first, distil(SMALL, problem))
    assert not torch.equal(first, distil(SMALL, problem, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(problem.images, pixels)


def test_the_distance_falls(labelled_problem):
    loop = CheckpointedLoop(None, description="dsa")
    method = replace(SMALL, num_inner_models=50, outer_steps_per_model=1, outer_lr=1.0)
    distil(method, labelled_problem(N=3), loop=loop)
    (history,) = loop.history.values()
    values = torch.tensor([entry["distance"] for entry in history])
    assert values[-15:].mean() < 0.8 * values[:5].mean()


def test_the_last_outer_step_is_not_followed_by_training(labelled_problem):
    problem = labelled_problem(N=6)
    once, twice = (replace(SMALL, outer_steps_per_model=steps) for steps in (1, 2))
    assert torch.equal(
        distil(once, problem), distil(replace(once, inner_epochs=9, inner_lr=1.0), problem)
    )
    assert not torch.equal(distil(twice, problem), distil(replace(twice, inner_lr=1.0), problem))


def test_starts_from_real_pixels_and_decodes_class_by_class(labelled_problem):
    problem = labelled_problem(N=6)
    images = distil(replace(SMALL, num_inner_models=0), problem)
    decoded = SMALL.decode({"images": images}, problem.shape)
    assert decoded.objective == "cross-entropy"
    assert decoded.views == ("identity",)
    assert decoded.targets.argmax(2).tolist() == [[0, 0, 1, 1, 2, 2]]
    for image, label in zip(decoded.images, [0, 0, 1, 1, 2, 2], strict=True):
        of_class = problem.images[problem.labels == label] / 255
        assert (of_class - image).abs().amax((1, 2, 3)).min() < 1e-6


@pytest.mark.parametrize(("ipc", "outer_steps"), [(1, 1), (10, 10)])
def test_the_published_schedule_follows_from_the_images_per_class(
    labelled_problem, ipc, outer_steps
):
    problem = labelled_problem(N=3 * ipc)
    method = replace(
        SMALL,
        recipe="cifar100",
        num_inner_models=2,
        outer_steps_per_model=None,
        inner_epochs=0,
    )
    loop = CheckpointedLoop(None, description="dsa")
    distil(method, problem, loop=loop)
    assert len(loop.history["outer steps"]) == 2 * outer_steps
    assert PUBLISHED[f"cifar100-ipc{ipc}"].outer_steps_per_model == outer_steps


@pytest.mark.parametrize(
    ("changes", "N", "message"),
    [
        ({}, 2, "less than one image for each of 3 classes; the smallest .* is 3"),
        ({}, 7, "nearest budgets that give it are 6 and 9"),
        ({}, 39, "class 0 has 12"),
        ({"inner_epochs": None}, 12, "no published recipe for toy at 4 .* is cifar10-ipc10: set"),
        ({"outer_steps_per_model": 0}, 3, "outer_steps_per_model=0: expected 1 or more"),
    ],
)
def test_refusals_say_what_would_do(labelled_problem, changes, N, message):
    with pytest.raises(UsageError, match=message):
        distil(replace(SMALL, **changes), labelled_problem(N=N))

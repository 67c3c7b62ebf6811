from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import draw
from benchmark.loop import CheckpointedLoop
from benchmark.methods._labelled import RealImages
from benchmark.methods.dsa import PUBLISHED, Dsa
from benchmark.spec import UsageError

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


def test_one_step_follows_the_summed_distance_of_all_parameters(labelled_problem):
    """A plain twin: one joint loss, per-output cosines written out, torch's own SGD."""
    problem = labelled_problem(N=6)
    method = replace(SMALL, num_inner_models=1, outer_steps_per_model=1)
    stream = generator()
    real = RealImages.of(problem, stream)
    images = torch.stack([real.of_class(c, 2) for c in range(3)]).requires_grad_()
    settings = {"widths": (8, 8), "norm": "instance"}
    problem.new_network("convnet", 3, stream, **settings)
    network = problem.new_network("convnet", 3, stream, **settings)
    std, mean = (torch.tensor(x).view(-1, 1, 1) for x in (problem.std, problem.mean))

    def gradient(batch, c, *, graph=False):
        labels = torch.full((len(batch),), c)
        loss = cross_entropy(network(batch * std + mean), labels)
        return torch.autograd.grad(loss, list(network.parameters()), create_graph=graph)

    loss = torch.zeros(())
    for c in range(3):
        augment = draw(stream)
        target = gradient(augment(real.of_class(c, 6)), c)
        for g, t in zip(gradient(augment(images[c]), c, graph=True), target, strict=True):
            if g.ndim > 1:
                for row, other in zip(g, t, strict=True):
                    product = (row**2).sum().sqrt() * (other**2).sum().sqrt()
                    loss = loss + 1 - (row * other).sum() / (product + 1e-6)
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)
    loss.backward()
    optimizer.step()
    expected = images.detach() * std + mean
    torch.testing.assert_close(distil(method, problem), expected, rtol=1e-4, atol=1e-5)


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
    method = replace(SMALL, num_inner_models=2, outer_steps_per_model=None, inner_epochs=0)
    loop = CheckpointedLoop(None, description="dsa")
    distil(method, problem, loop=loop)
    assert len(loop.history["outer steps"]) == 2 * outer_steps
    assert PUBLISHED[ipc][0] == outer_steps


def test_inner_models_may_compute_in_float64(labelled_problem):
    problem = labelled_problem(N=6)

    def new_network(*args, **settings):
        return problem.new_network(*args, **settings).double()

    precise = distil(SMALL, replace(problem, new_network=new_network))
    torch.testing.assert_close(distil(SMALL, problem), precise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "N", "message"),
    [
        ({}, 2, "less than one image for each of 3 classes; the smallest .* is 3"),
        ({}, 7, "nearest budgets that give it are 6 and 9"),
        ({}, 39, "class 0 has 12"),
        ({"inner_epochs": None}, 12, "no published schedule, the nearest is that of 1 "),
        ({"outer_steps_per_model": 0}, 3, "outer_steps_per_model=0"),
    ],
)
def test_refusals_say_what_would_do(labelled_problem, changes, N, message):
    with pytest.raises(UsageError, match=message):
        distil(replace(SMALL, **changes), labelled_problem(N=N))

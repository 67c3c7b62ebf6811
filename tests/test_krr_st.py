import dataclasses

import pytest
import torch

from benchmark.loop import CheckpointedLoop
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.random import Random
from benchmark.spec import UsageError

TINY = KrrSt(
    outer_steps=8, outer_lr=0.01, real_batch=16, pool_size=2, max_age=3, inner_widths=(4, 6)
)


def distil(method, problem, *, seed=0, loop=None):
    return method.distill(
        problem,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=loop or CheckpointedLoop(None, description="toy"),
    )


def test_starts_as_the_control_random(toy_problem):
    """Before its first step: N different real images and the teacher's representations of them."""
    problem = toy_problem()
    start = distil(dataclasses.replace(TINY, outer_steps=0), problem)
    random = distil(Random(), problem)
    assert torch.equal(start["images"], random["images"] / 255)
    assert torch.equal(start["targets"], random["targets"])
    assert len(start["images"].flatten(1).unique(dim=0)) == 8
    torch.testing.assert_close(start["targets"], problem.teacher(start["images"]))


def test_optimising_lowers_the_loss_on_all_real_images(toy_problem):
    """Judged by a ridge regression of its own, on features of networks that no pool has seen."""
    problem = toy_problem(n=200)
    method = dataclasses.replace(TINY, outer_steps=80, real_batch=64, max_age=20)
    start = distil(dataclasses.replace(method, outer_steps=0), problem)
    end = distil(method, problem)

    def error(stored):
        total = 0.0
        for seed in range(5):
            generator = torch.Generator().manual_seed(100 + seed)
            network = problem.new_network("convnet", 6, generator, widths=(4, 6)).eval()
            with torch.no_grad():
                support = network.features(stored["images"]).double()
                queries = network.features(problem.images / 255).double()
            kernel = support @ support.T + 1
            kernel += 1e-6 * kernel.trace() * torch.eye(8)
            weights = torch.linalg.solve(kernel, stored["targets"].double())
            predicted = (queries @ support.T + 1) @ weights
            total += float((predicted - problem.representations("identity")).square().mean())
        return total

    assert error(end) < 0.8 * error(start)


def test_images_and_targets_both_move(toy_problem):
    problem = toy_problem()
    start, end = distil(dataclasses.replace(TINY, outer_steps=0), problem), distil(TINY, problem)
    for name in ("images", "targets"):
        moved = (end[name] - start[name]).abs()
        assert 0 < moved.max() < 8 * 0.01 * 1.5  # Adam's steps are hardly longer than its rate


def test_decodes_to_the_pairs(toy_problem):
    problem = toy_problem()
    stored = distil(TINY, problem)
    decoded = TINY.decode(stored, problem.shape)
    assert torch.equal(decoded.images, stored["images"])
    assert torch.equal(decoded.targets[0], stored["targets"])
    assert sum(x.numel() for x in stored.values()) == problem.num_floats


def test_more_images_than_the_source_has_are_refused(toy_problem):
    with pytest.raises(UsageError, match="needs 61 images, but the source has only 60"):
        distil(TINY, toy_problem(N=61))

from dataclasses import replace

import pytest
import torch

from benchmark.loop import CheckpointedLoop
from benchmark.methods.random_bytes import RandomBytes
from benchmark.spec import Budget, UsageError


def distil(problem):
    loop = CheckpointedLoop(None, description="random-bytes")
    generator = torch.Generator().manual_seed(0)
    return RandomBytes().distill(problem, generator=generator, checkpoint=loop)


def test_fills_the_bytes_of_the_budget_and_not_more(labelled_problem):
    problem = labelled_problem(N=5)
    stored = distil(problem)
    num_bytes = sum(t.numel() * t.element_size() for t in stored.values())
    one_more = 3 * 8 * 8 + 2 * 5
    allowed = 4 * 5 * (3 * 8 * 8 + 5)
    assert allowed - one_more < num_bytes <= allowed


def test_pairs_are_real_images_with_their_representations(labelled_problem):
    problem = labelled_problem(N=5)
    decoded = RandomBytes().decode(distil(problem), problem.shape)
    found = [
        (problem.images == image).flatten(1).all(1).nonzero().item() for image in decoded.images
    ]
    assert len(set(found)) == len(found)
    expected = problem.representations("identity")[found]
    torch.testing.assert_close(decoded.targets[0], expected, rtol=2**-11, atol=0)


def test_never_more_than_the_source_has(labelled_problem):
    problem = replace(labelled_problem(N=5), budget=Budget(1000))
    assert len(distil(problem)["images"]) == len(problem.images)


def test_representations_beyond_float16_are_refused(labelled_problem):
    problem = labelled_problem(N=5)
    large = problem.representations("identity") + 1e6
    with pytest.raises(UsageError, match="float16"):
        distil(replace(problem, representations=lambda view: large))

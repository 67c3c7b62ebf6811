from dataclasses import replace

import pytest
import torch

from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from tests.mortal import DeathError, Mortal

CHEAP = {
    "outer_steps": 9,
    "outer_lr": 0.01,
    "real_batch": 12,
    "pool_size": 2,
    "max_age": 3,
    "inner_widths": (4, 6),
}
METHODS = {
    "krr-st": KrrSt(**CHEAP, distilled_batch=5),
    "krr-st as released": KrrSt(**CHEAP, augment_real=True, raw_distilled=True, restart=False),
    "krr-st with copies": KrrSt(**CHEAP, augment_real=True, augmented_copies=2),
    "ours": Ours(**CHEAP, approximation_steps=6, outer_views="one"),
}


def distil(method, problem, loop):
    generator = torch.Generator().manual_seed(3)
    return method.distill(problem, generator=generator, checkpoint=loop)


DEATHS = [
    ("pool warm-up", 0),
    ("pool warm-up", 2),
    ("outer steps", 0),
    ("outer steps", 1),
    ("outer steps", 7),
    ("approximation networks", 4),
]


@pytest.mark.parametrize("name", METHODS)
def test_killed_again_and_again_a_method_gives_the_same_numbers(
    toy_problem, tmp_path, saved_at_every_step, name
):
    problem, method = toy_problem(), METHODS[name]
    whole_loop = Mortal(None)
    whole = distil(method, problem, whole_loop)

    taken = []
    for death in [death for death in DEATHS if death in whole_loop.taken]:
        loop = Mortal(tmp_path, death)
        with pytest.raises(DeathError):
            distil(method, problem, loop)
        taken += loop.taken
    last = Mortal(tmp_path)
    resumed = distil(method, problem, last)

    assert taken + last.taken == whole_loop.taken  # no step was taken twice
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[part], whole[part]) for part in whole)
    assert last.history == whole_loop.history


@pytest.mark.parametrize("name", METHODS)
def test_the_pool_restarts_while_all_that_happens(toy_problem, name):
    born, problem = [], toy_problem()

    def new_network(*arguments, **settings):
        born.append(settings)
        return problem.new_network(*arguments, **settings)

    distil(METHODS[name], replace(problem, new_network=new_network), Mortal(None))
    assert len(born) > METHODS[name].pool_size + 1

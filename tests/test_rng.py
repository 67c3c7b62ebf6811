import random

import numpy as np
import torch

from benchmark import rng


def test_seeds_are_the_same_on_every_machine():
    """The first eight bytes of ``printf krr-st | sha256sum``, less the sign."""
    assert rng.seed("krr-st") == int("a8a4fc10baf0982d", 16) >> 1
    assert rng.seed("krr-st", "cifar100", 0) == rng.seed("krr-st", "cifar100", "0")


def test_each_name_has_a_stream_of_its_own():
    names = [("a",), ("b",), ("a", 0), ("a", 1), ("a0",), ("a", "b"), ("b", "a"), ("ab",)]
    assert len({rng.seed(*name) for name in names}) == len(names)
    assert all(0 <= rng.seed(*name) < 2**63 for name in names)


def test_a_generator_begins_its_stream_anew():
    def draw(*names):
        return torch.rand(5, generator=rng.generator(*names))

    assert torch.equal(draw("outer", 1), draw("outer", 1))
    assert not torch.equal(draw("outer", 1), draw("outer", 2))


def test_global_states_are_left_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    torch.rand(5, generator=rng.generator("anything"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


def test_what_takes_no_generator_follows_one():
    before, stream = torch.get_rng_state(), rng.generator("layers")
    with rng.seeded(stream):
        first = torch.nn.Linear(2, 3).weight
    with rng.seeded(stream):
        second = torch.nn.Linear(2, 3).weight
    with rng.seeded(rng.generator("layers")):
        again = torch.nn.Linear(2, 3).weight
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())

"""Trajectory matching holds as many graphs as a memory budget allows."""

import pytest
import torch

from benchmark import memory
from benchmark.memory import Chunks, peak_bytes
from benchmark.methods._graphs_at_once import graphs_at_once
from benchmark.methods._trajectory import FlatNetwork, SoftLabelLoss, SoftSet, match
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape

BATCH = (12, 3, 16, 16)
T = 25  # in segments of ten at most


def network(max_memory=None, precision="fp32"):
    factory = NetworkFactory(
        shape=ImageShape(*BATCH[1:]),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        precision=precision,
        max_memory=max_memory,
    )
    stream = torch.Generator().manual_seed(0)
    return FlatNetwork(factory("convnet", 5, stream, widths=(8, 16), norm="instance"))


def peak(network, keep_every):
    """Match random images under random augmentations, without chunks."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(2 * BATCH[0], *BATCH[1:], generator=stream)
    loss = SoftLabelLoss.draw(
        network, BATCH[0], m=len(images), num_steps=T, generator=torch.Generator().manual_seed(0)
    )
    start = network.weights
    given = SoftSet(images=images, logits=torch.randn(len(images), 5), lr=torch.tensor(0.01))
    return peak_bytes(
        lambda: match(
            given,
            inner_loss=loss,
            start=start,
            target=start + 0.01,
            num_steps=T,
            keep_every=keep_every,
        )
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kept", [1, 2, 5, 9])
def test_as_many_graphs_are_held_as_fit(kept, precision):
    """Half of a budget is for them; what random augmentations take is not foreseen."""
    enough = 2.1 * peak(network(precision=precision), kept)
    found = graphs_at_once(network(int(enough), precision), BATCH, num_steps=T)
    assert kept <= found <= kept + 1


def test_no_budget_and_a_large_one_hold_twice_the_square_root_of_all_steps():
    assert graphs_at_once(network(), BATCH, num_steps=T) == 10
    assert graphs_at_once(network(2**40), BATCH, num_steps=T) == 10
    assert graphs_at_once(network(2**40), BATCH, num_steps=3) == 3


def test_one_graph_is_held_however_small_the_budget():
    assert graphs_at_once(network(1), BATCH, num_steps=T) == 1


def test_measuring_does_not_settle_how_the_network_is_split(monkeypatch):
    made = network(2**40)
    monkeypatch.setattr(memory.Chunks, "__call__", None)
    assert graphs_at_once(made, BATCH, num_steps=T) == 10
    assert isinstance(made.network.chunks, Chunks)

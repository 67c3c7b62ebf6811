"""What a network costs, against hand counts; nothing is computed and nothing is drawn."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.kernels._cost import cost_of
from benchmark.network_factory import NetworkFactory
from benchmark.operators import operators_of
from benchmark.planning.network_cost import network_cost
from benchmark.spec import ImageShape

SHAPE = ImageShape(3, 16, 16)


def network(model, precision="fp32", memory_format=torch.channels_last, **settings):
    # channels-last, as in the default layout a ConvNet pools by products, which hands do not count
    factory = NetworkFactory(
        shape=SHAPE,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        precision=precision,
        memory_format=memory_format,
    )
    return factory(model, 5, torch.Generator().manual_seed(0), **settings)


@pytest.mark.parametrize(
    ("model", "precision", "settings"),
    [
        ("convnet", "fp32", {"widths": (8, 16)}),
        ("convnet", "bf16", {"widths": (8, 16)}),
        ("mobilenet", "fp32", {"width": 0.125, "stem_stride": 2}),  # grouped convolutions
    ],
)
def test_operations_are_those_counted_by_hand(model, precision, settings):
    made = network(model, precision, **settings)
    by_hand = cost_of(made, SHAPE)
    forward, training = (network_cost(made, SHAPE, training=training) for training in (False, True))
    for batch in (2, 4, 7):
        without_head = by_hand.times(backbone=batch * by_hand.forward)
        assert {"matrix product fp32": 0, **forward.at(batch).operations} == without_head
        assert training.at(batch).operations == by_hand.training(batch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_only_a_cpu_pools_by_products(norm, precision):
    """Elsewhere there are none but the head's."""
    made = network("convnet", precision, torch.contiguous_format, widths=(8, 16), norm=norm)
    by_hand = cost_of(made, SHAPE).training(4)
    assert network_cost(made, SHAPE, training=True).at(4).operations != by_hand
    counted = network_cost(made, SHAPE, training=True, elsewhere=True).at(4)
    assert counted.operations == by_hand
    assert len(counted.operators) < len(network_cost(made, SHAPE, training=True).at(4).operators)
    assert made(torch.zeros(2, 3, 16, 16)).is_contiguous()  # nothing is hidden afterwards


def test_a_pass_agrees_with_torchs_own_counter():
    made = network("convnet", widths=(8, 16))
    with FlopCounterMode(display=False) as counter:
        made(torch.zeros(6, 3, 16, 16)).sum().backward()
    counted = network_cost(made, SHAPE, training=True).at(6).operations
    assert sum(counted.values()) == counter.get_total_flops()


def test_bytes_are_those_of_the_tensors():
    a, b = torch.ones(4, 6), torch.ones(6, 5)
    (product,) = operators_of(lambda: (a @ b).view(20))  # a view moves nothing
    assert product.num_bytes == 4 * (4 * 6 + 6 * 5 + 4 * 5)
    assert (product.operations, product.rate) == (2 * 4 * 6 * 5, "matrix product fp32")


def test_the_graph_holds_the_inputs_of_each_layer():
    """Once each, without weights: normalised and convolved images, statistics, and what follows."""
    made = network("convnet", widths=(8,), norm="none")
    image, hidden, pooled = 3 * 16 * 16, 8 * 16 * 16, 8 * 8 * 8
    per_image = 4 * (image + hidden + pooled + 5)  # input, rectified, head's input, outputs
    few, more = (network_cost(made, SHAPE, training=True).at(batch).saved for batch in (2, 6))
    assert more - few == 4 * per_image
    assert 2 * per_image <= few < 2 * per_image + 200  # and constants


def test_counting_changes_nothing():
    made = network("convnet", widths=(4, 4))
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = torch.get_rng_state()
    made.train()
    network_cost(made, SHAPE, training=True)
    assert made.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_images_are_where_the_network_is(monkeypatch):
    """Fake images on another device than the weights would be refused, on every GPU."""
    made, empty, seen = network("convnet", widths=(4, 4)), torch.empty, []

    def spy(*size, **options):
        seen.append((size, options.get("device")))
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", spy)
    network_cost(made, SHAPE, training=False)
    assert {device for size, device in seen if size[1:] == (3, 16, 16)} == {made.mean.device}

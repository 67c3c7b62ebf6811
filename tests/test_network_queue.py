import copy

import pytest
import torch

from benchmark.methods._network_queue import NetworkQueue, QueuedModel
from benchmark.network import Network


def new_model(generator):
    backbone = torch.nn.Flatten()
    network = Network(backbone, 12, 3, mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(3, 12, generator=generator))
        network.head.bias.zero_()
    return QueuedModel(network, lr=0.1, momentum=0.9, weight_decay=5e-4)


def batch(seed=0, b=10):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(b, 3, 2, 2, generator=generator),
        torch.randint(3, (b,), generator=generator),
    )


def test_accuracy_counts_what_was_right_before_each_step():
    model = new_model(torch.Generator().manual_seed(0))
    assert float(model.accuracy) == 0
    right = seen = 0
    for seed in range(3):
        images, labels = batch(seed)
        right += int((model.network(images).argmax(1) == labels).sum())
        seen += len(labels)
        model.train(images, labels)
        assert float(model.accuracy) == pytest.approx(100 * right / seen)
    model.reset_meter()
    assert float(model.accuracy) == 0


def test_training_is_momentum_sgd_with_weight_decay():
    model = new_model(torch.Generator().manual_seed(0))
    weight, velocity = model.network.head.weight.detach().clone(), 0
    for seed in range(3):
        images, labels = batch(seed)
        bias = model.network.head.bias.detach()
        x = images.flatten(1)
        residual = (x @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(labels, 3)
        velocity = 0.9 * velocity + residual.T @ x / len(x) + 5e-4 * weight
        weight = weight - 0.1 * velocity
        model.train(images, labels)
        torch.testing.assert_close(model.network.head.weight.detach(), weight)
    assert not model.network.training


def test_the_oldest_leaves_a_full_queue():
    queue = NetworkQueue(new_model, initial=2, size=3, generator=torch.Generator())
    first, second = queue.models
    queue.push()
    assert queue.models[:2] == [first, second]
    queue.push()
    assert len(queue.models) == 3
    assert queue.models[0] is second


def test_choices_are_different_models_and_each_equally_likely():
    queue = NetworkQueue(new_model, initial=4, size=9, generator=torch.Generator().manual_seed(0))
    assert {id(model) for model in queue.choose(9)} == {id(model) for model in queue.models}
    counts = [0] * 4
    for _ in range(1000):
        first, second = queue.choose(2)
        assert first is not second
        counts[queue.models.index(first)] += 1
    assert all(abs(count - 250) < 5 * 13.7 for count in counts)  # sqrt(1000 * 1/4 * 3/4) = 13.7


def test_a_restored_queue_goes_on_alike():
    stream = torch.Generator().manual_seed(0)
    queue = NetworkQueue(new_model, initial=2, size=5, generator=stream)
    for seed in range(2):
        queue.push()
        queue.models[seed].train(*batch(seed))
    state = stream.get_state()
    other = NetworkQueue(new_model, initial=1, size=5, generator=torch.Generator())
    other.load_state_dict(copy.deepcopy(queue.state_dict()))
    assert torch.equal(stream.get_state(), state)
    for mine, theirs in zip(queue.models, other.models, strict=True):
        mine.train(*batch(7))
        theirs.train(*batch(7))
        assert torch.equal(mine.network.head.weight, theirs.network.head.weight)
        assert torch.equal(mine.accuracy, theirs.accuracy)

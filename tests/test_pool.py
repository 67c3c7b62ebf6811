import copy
from itertools import count

import pytest
import torch
from torch import nn

from benchmark.methods._pool import InnerModel, Pool
from benchmark.network import Network


def new_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        network = Network(backbone, 4 * 4, 2, mean=(0.5,) * 3, std=(0.2,) * 3)
    return InnerModel(network, lr=0.05, momentum=0.9, weight_decay=0.01)


def batch(seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(6, 3, 4, 4, generator=stream), torch.randn(6, 2, generator=stream)


def new_pool(size=2, *, restart=True, **settings):
    births = count()
    return Pool(size, lambda: new_model(next(births)), restart=restart, **settings)


def test_a_step_is_sgd_with_momentum_and_decay_on_the_mean_squared_error_in_train_mode():
    model, twin = new_model(), new_model().network.train()
    velocity = [torch.zeros_like(p) for p in twin.parameters()]
    for seed in range(3):
        images, targets = batch(seed)
        model.step(images, targets)
        loss = ((twin(images) - targets) ** 2).sum() / targets.numel()
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, v, g in zip(twin.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g + 0.01 * p)
                p.sub_(0.05 * v)
    for name, value in twin.state_dict().items():  # running statistics included
        torch.testing.assert_close(model.network.state_dict()[name], value, msg=name)
    assert model.age == 3


def test_between_steps_a_model_is_in_eval_mode():
    model = new_model()
    assert not any(module.training for module in model.network.modules())
    model.step(*batch())
    assert not any(module.training for module in model.network.modules())
    before = copy.deepcopy(model.network.state_dict())
    model.network.features(batch(1)[0])
    assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())


def visit(pool, index, visits):
    """Visit a slot as the outer loop does; say at which visits its model was replaced."""
    replaced = []
    for number in range(visits):
        if pool.renew_if_old(index):
            replaced.append(number)
        else:
            pool[index].step(*batch())
    return replaced


def test_an_old_model_is_replaced_by_a_newborn_that_grows_old_again():
    pool = new_pool(max_age=3)
    first, other = pool[0], pool[1]
    assert visit(pool, 0, 4) == [3]
    assert pool[0] is not first
    assert pool[0].age == 0
    assert pool[1] is other
    assert other.age == 0
    assert visit(pool, 0, 8) == [3, 7]


def test_without_restart_a_slot_is_replaced_at_every_visit_and_never_trains_again():
    pool = new_pool(max_age=3, restart=False)
    assert visit(pool, 0, 8) == [3, 4, 5, 6, 7]
    newborn = new_model(6).network.state_dict()  # two at the start, five later
    assert all(torch.equal(newborn[k], v) for k, v in pool[0].network.state_dict().items())


def test_a_restored_pool_goes_on_exactly_where_it_was_saved():
    pool = new_pool(max_age=3)
    visit(pool, 0, 6)
    visit(pool, 1, 2)
    restored = new_pool(max_age=3)
    restored.load_state_dict(copy.deepcopy(pool.state_dict()))
    assert [model.age for model in restored.models] == [2, 2]
    for index in range(len(pool)):
        pool[index].step(*batch(7))
        restored[index].step(*batch(7))
        actual = restored[index].network.state_dict()
        assert all(torch.equal(actual[k], v) for k, v in pool[index].network.state_dict().items())


def test_a_pool_of_another_size_is_not_restored():
    with pytest.raises(ValueError, match=r"argument 2 is (longer|shorter)"):
        new_pool(3, max_age=3).load_state_dict(new_pool(2, max_age=3).state_dict())

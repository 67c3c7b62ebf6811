"""A plan holds what a run of the same budget would hold: the same chunks, as many draws at once."""

from dataclasses import replace

import pytest
import torch

from benchmark.grid import cells, recipe_of
from benchmark.loop import CheckpointedLoop
from benchmark.memory import GIB, _LiveBytes
from benchmark.methods._trajectory import FlatNetwork
from benchmark.network_factory import NetworkFactory
from benchmark.planning.devices import NamedDevice
from benchmark.planning.networks import Networks
from benchmark.planning.planner import _Planner, predict
from benchmark.planning.probe_cost import Probed, probe_bytes
from benchmark.probes import fair, paper
from benchmark.probes.fair import FairProbe
from benchmark.probes.paper import PaperProbe
from benchmark.probing import NUM_DRAWS
from benchmark.spec import ImageShape
from benchmark.workload import Architecture, Work

SHAPE = ImageShape(3, 16, 16)
BATCH = 40
INSTANCE = Architecture.of("convnet", 5, {"widths": (4, 8), "norm": "instance"})
WITH_BATCH_NORM = Architecture.of("convnet", 5, {"widths": (4, 8), "norm": "batch"})


def networks(max_memory):
    factory = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.2,) * 3, max_memory=max_memory)
    return Networks(factory)


def passed(network, *, training, splits):
    """Return the largest number of images that a pass of a whole batch gives the first layer."""
    given = []
    network.train(training and not splits)
    images = torch.rand(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(bool(splits))
    with torch.set_grad_enabled(training):
        network.features(images)  # finds out what fits
        hook = network.backbone[0].register_forward_hook(lambda *call: given.append(len(call[2])))
        features = network.features(images)
        if training:
            features.sum().backward()
    hook.remove()
    return max(given)


@pytest.mark.parametrize("max_memory", [2**18, 2**19, GIB])
@pytest.mark.parametrize(
    ("architecture", "training", "splits"),
    [
        (WITH_BATCH_NORM, False, None),
        (WITH_BATCH_NORM, True, None),
        (WITH_BATCH_NORM, True, True),
        (INSTANCE, True, None),
    ],
)
def test_chunks_are_planned_as_they_are_taken(architecture, training, splits, max_memory):
    made = networks(max_memory)
    work = Work(network=architecture, batch=BATCH, splits=splits, **{_kind(training): BATCH})
    planned = made.at_once(architecture, work)
    assert planned == passed(made.of(architecture), training=training, splits=splits)
    whole = max_memory == GIB or (architecture, training, splits) == (WITH_BATCH_NORM, True, None)
    assert (planned == BATCH) == whole


def _kind(training):
    return "training" if training else "forward"


def test_graphs_keep_the_memory_of_the_largest_captured_pass(toy_suite, monkeypatch):
    device = NamedDevice("h100", toy_suite)
    memory = _Planner(toy_suite, device).memory
    eager, large, small = (
        Work(network=INSTANCE, training=num, batch=num, captured=captured)
        for num, captured in ((8, False), (20, True), (4, True))
    )
    assert memory([eager, large, small]) == memory([eager]) + memory([large])
    monkeypatch.setattr(NamedDevice, "captures", False)
    assert memory([eager, large, small]) == memory([large])


def test_steps_of_students_are_replayed_and_cost_more_without_graphs(toy_suite):
    device = NamedDevice("h100", toy_suite)
    planner = _Planner(toy_suite, device)
    recipe = recipe_of(toy_suite, "mse")
    steps, gathering = planner._steps(INSTANCE, 3 * recipe.batch_size, recipe)
    num = steps.training / steps.batch
    assert num > 1
    assert (steps.captured, steps.launches) == (True, num * 4)  # two in, one out, the graph
    assert (gathering.captured, gathering.operators) == (False, num * 20)
    eager = planner.seconds([Work(network=INSTANCE, training=steps.training, batch=steps.batch)])
    assert planner.eager_seconds([steps]) == eager > planner.seconds([steps])
    assert planner.eager_seconds([gathering]) is None


def test_what_is_differentiated_twice_is_held_whole():
    work = Work(network=INSTANCE, training=BATCH, batch=BATCH, splits=False)
    assert networks(1).at_once(INSTANCE, work) == BATCH


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_step_that_is_differentiated_again_holds_the_graphs_of_two_passes_at_most(norm):
    architecture = Architecture.of("convnet", 5, {"widths": (16, 32), "norm": norm})
    made = networks(None)
    flat = FlatNetwork(made.of(architecture))
    images = torch.rand(BATCH, 3, 16, 16)
    held = []
    for steps in (1, 3):
        weights = flat.weights.requires_grad_()
        live = _LiveBytes()
        with live:
            for _ in range(steps):
                loss = flat(weights, images).square().mean()
                (slope,) = torch.autograd.grad(loss, weights, create_graph=True)
                weights = weights - 0.1 * slope
        held.append(live.now)
    saved = made.cost(architecture, BATCH, training=True).training_memory
    assert 1.0 < (held[1] - held[0]) / 2 / saved <= 2.0


def test_planning_chunks_changes_nothing():
    made = networks(1)
    network = made.of(INSTANCE)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    for splits in (None, True):
        made.at_once(INSTANCE, Work(network=INSTANCE, training=8, batch=8, splits=splits))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("max_memory", [None, 1, 250_000, 10**7])
@pytest.mark.parametrize("kind", [FairProbe(max_steps=2), PaperProbe(steps=2, batch=16)])
@pytest.mark.parametrize("p", [5, 40])  # fewer and more than the 30 images of a draw
def test_draws_are_planned_as_they_are_solved(kind, p, max_memory, monkeypatch):
    asked = []
    module = fair if isinstance(kind, FairProbe) else paper

    def spy(num, *, each, max_memory):
        found = num_at_once(num, each=each, max_memory=max_memory)
        asked.append(each * found)
        return found

    num_at_once = module.num_at_once
    monkeypatch.setattr(module, "num_at_once", spy)
    stream = torch.Generator().manual_seed(0)
    subsets = torch.stack([torch.randperm(20, generator=stream)[:10] for _ in range(NUM_DRAWS)])
    kind.fit(
        torch.randn(60, p, generator=stream),
        torch.arange(60) % 3,
        subsets=torch.cat([3 * subsets, 3 * subsets + 1, 3 * subsets + 2], dim=1),
        num_classes=3,
        generator=stream,
        checkpoint=CheckpointedLoop(None, description="toy"),
        max_memory=max_memory,
    )
    sizes = Probed(n=60, num_test=24, p=p, k=3, labels_per_class=10)
    assert [probe_bytes(kind, sizes, max_memory=max_memory)] == [4 * (60 + 24) * p + asked[0]]


@pytest.fixture
def held(toy_suite):
    """Return what each line of a plan holds, by stage and line."""

    def plan(max_memory):
        suite = replace(toy_suite, methods=("krr-st",), controls=(), ablation=(), seeds=(0,))
        device = NamedDevice("h100", suite, max_memory=max_memory)
        assert device.networks.max_memory
        found = predict(suite, cells(suite), device)
        return {(task.stage, task.line): task.memory for task in found.tasks}

    return plan


def test_less_memory_is_planned_where_less_is_allowed(held):
    """In all stages but that of students, which batch normalisation keeps whole."""
    whole, little = held(None), held(1)
    assert set(whole) == set(little)
    shorter = {stage for (stage, line), found in whole.items() if little[stage, line] < found}
    assert {stage for stage, _ in whole} - shorter == {"pretraining"}
    assert all(little[place] <= found for place, found in whole.items())


def test_a_named_device_pools_as_no_cpu_does(toy_suite):
    """Whatever the layout: the inner models of supervised methods have one of their own."""
    made = NamedDevice("h100", replace(toy_suite, precision="bf16")).networks
    architecture = replace(INSTANCE, default_layout=True)
    operations = made.cost(architecture, 8, training=True).operations
    assert set(operations) == {"convolution bf16", "matrix product fp32"}


def test_a_named_device_lends_three_quarters_of_its_memory(toy_suite):
    assert NamedDevice("h100", toy_suite).networks.max_memory == 60e9
    assert NamedDevice("h100", toy_suite, max_memory=GIB).networks.max_memory == GIB

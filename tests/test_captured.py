"""Graphs by the rules of CUDA, on the CPU (`tests.tape`), and on a GPU where there is one."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from benchmark import captured, plugins
from benchmark.captured import CapturedStep, tensors_of
from benchmark.kernel import deviation
from benchmark.loop import CheckpointedLoop
from benchmark.memory import Chunks
from benchmark.methods._outer_loop import Bilevel
from benchmark.methods._pool import InnerModel
from benchmark.methods.dsa import Dsa
from benchmark.methods.krr_st import KrrSt
from benchmark.network_factory import NetworkFactory
from benchmark.pretrain import Length, Recipe, pretrain
from benchmark.probes.paper import PaperProbe
from benchmark.spec import ImageShape, TrainingSet
from tests import tape
from tests.tape import Tapes

GPUS = ["cuda"] if torch.cuda.is_available() else []
NARROW = {
    "convnet": {"widths": (8, 8)},
    "vit": {"width": 0.25, "depth": 2},
    **{name: {"width": 0.125} for name in ("vgg11", "resnet18", "alexnet", "mobilenet")},
}


@pytest.fixture(autouse=True)
def _hopeful(monkeypatch):
    monkeypatch.setattr(captured, "_given_up", False)


@pytest.fixture
def tapes(monkeypatch):
    """Capture by tape."""
    found = Tapes()
    monkeypatch.setattr(captured, "capture_on", lambda device: found)
    return found


@pytest.fixture
def both(monkeypatch):
    """Return what a function makes eagerly, and with tapes, with their counter."""

    def make(run):
        eager, tapes = run(), Tapes()
        with monkeypatch.context() as patches:
            patches.setattr(captured, "capture_on", lambda device: tapes)
            return eager, run(), tapes

    return make


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(network, batches, *, lr=0.1, new_step=CapturedStep):
    """Take a step of SGD with momentum on each batch; return losses and weights."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, fused=True)

    def run(images, targets):
        loss = mse_loss(network(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    step = new_step(run, partial(tensors_of, network, optimizer))
    losses = torch.stack([step(*batch)[0] for batch in batches])
    return [losses, *network.state_dict().values()]


def perceptron(*layers, device="cpu"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 7), *layers, nn.Linear(7, 2)).to(device)


def inner_model():
    factory = NetworkFactory(shape=ImageShape(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
    network = factory("convnet", 2, generator(), widths=(4, 4))
    return InnerModel(network, lr=0.1, momentum=0.9, weight_decay=1e-3)


def some_batches(*sizes, device="cpu"):
    draw = partial(torch.randn, generator=generator())
    return [(draw(size, 5).to(device), draw(size, 2).to(device)) for size in sizes]


def equal(found, expected):
    return all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_steps_are_replayed_from_the_third_on(both):
    batches = some_batches(*[6] * 5)
    expected, found, tapes = both(lambda: trained(perceptron(nn.BatchNorm1d(7)), batches))
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (1, 3)


def test_each_shape_has_a_graph_of_its_own(both):
    batches = some_batches(*[6, 4] * 5)
    expected, found, tapes = both(lambda: trained(perceptron(), batches))
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (2, 6)


def test_each_type_has_a_graph_of_its_own(tapes):
    double = CapturedStep(lambda x: (2 * x,))
    for dtype in (torch.float32, torch.float64) * 4:
        (found,) = double(torch.ones(3, dtype=dtype))
        assert found.dtype == dtype
    assert tapes.captures == 2


def test_parameters_are_compared_apart_from_what_moves_more():
    """A parameter that stays behind, beside a buffer and a counter that move by far."""
    weight = torch.zeros(3).requires_grad_()
    before = [weight, torch.zeros(3), torch.tensor(0)]
    after = [x + 1 for x in before]
    after[0] = (weight.detach() + 1e-3).requires_grad_()
    after[1] = after[1] * 1e6
    assert captured._state_agrees(after, after, before)
    for i in range(3):
        assert not captured._state_agrees([*after[:i], before[i], *after[i + 1 :]], after, before)
    hurried = [*after[:2], torch.tensor(2)]
    assert not captured._state_agrees(hurried, after, before)


def test_dropout_draws_anew_from_the_stream_of_an_eager_run(both):
    def run():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            return trained(perceptron(nn.Dropout(0.5)), some_batches(*[6] * 6))

    expected, found, tapes = both(run)
    assert equal(found, expected)
    assert tapes.replays == 4


def test_a_step_that_is_not_finite_is_not_kept_and_ends_nothing(tapes, caplog):
    double = CapturedStep(lambda x: (2 * x,))
    for value in (1.0, 1.0, float("nan"), 1.0, 1.0):
        (found,) = double(torch.full((3,), value))
        torch.testing.assert_close(found, torch.full((3,), 2 * value), equal_nan=True)
    assert not caplog.records
    assert (tapes.captures, tapes.replays) == (2, 3)


def test_no_graph_outlives_a_failed_capture(tapes, caplog):
    double, bad = CapturedStep(lambda x: (2 * x,)), CapturedStep(lambda x: (x * float(x.sum()),))
    for _ in range(4):
        double(torch.ones(3))
    assert len(double._graphs) == 1
    for _ in range(3):
        bad(torch.ones(3))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    double(torch.ones(3))
    assert not double._graphs


def test_outputs_do_not_change_with_the_next_call(tapes):
    double = CapturedStep(lambda x: (2 * x,))
    kept = [double(torch.full((3,), float(i)))[0] for i in range(6)]
    assert torch.equal(torch.stack(kept)[:, 0], 2.0 * torch.arange(6))
    assert tapes.replays == 4


def waits(x):
    return (x * float(x.sum()),)


def draws_elsewhere(x):
    return (x + torch.rand(x.shape, generator=generator()),)


@pytest.mark.parametrize("run", [waits, draws_elsewhere])
def test_what_cannot_be_captured_stays_eager_and_says_so_once(run, tapes, caplog):
    inputs = [torch.full((2,), float(i)) for i in range(6)]
    for _ in range(2):
        step = CapturedStep(run)
        found = [step(x)[0] for x in inputs]
        assert equal(found, [run(x)[0] for x in inputs])
    assert tapes.captures == 1
    (record,) = caplog.records
    assert record.message.startswith("steps are not replayed as CUDA graphs: ")
    assert "not permitted when stream is capturing" in record.message


@pytest.mark.parametrize("broken", ["nothing happens", "garbage"])
def test_a_graph_that_computes_something_else_is_dropped(broken, monkeypatch, caplog):
    def capture(run, inputs):
        replay, outputs = tape.capture(run, inputs)

        def wrong():
            replay()
            outputs[0].mul_(1.012)

        return (lambda: None) if broken == "nothing happens" else wrong, outputs

    batches = some_batches(*[6] * 5)
    expected = trained(perceptron(), batches)
    monkeypatch.setattr(captured, "capture_on", lambda device: capture)
    assert equal(trained(perceptron(), batches), expected)
    assert [record.message for record in caplog.records] == [
        "steps are not replayed as CUDA graphs: its results differ"
    ]


def test_a_state_that_is_left_behind_is_noticed(monkeypatch, caplog):
    """The graph's outputs are right, but the weights stay where they were."""

    def capture(run, inputs):
        replay, outputs = tape.capture(run, inputs)

        def stuck():
            before = network[0].weight.detach().clone()
            replay()
            with torch.no_grad():
                network[0].weight.copy_(before)

        return stuck, outputs

    def take(network):
        def run(x):
            with torch.no_grad():
                network[0].weight.mul_(0.999)
            return (x + 1,)

        step = CapturedStep(run, lambda: [network[0].weight])
        for _ in range(5):
            step(torch.ones(2))
        return network[0].weight

    expected = take(perceptron())
    network = perceptron()
    monkeypatch.setattr(captured, "capture_on", lambda device: capture)
    assert torch.equal(take(network), expected)
    assert "results differ" in caplog.text


@pytest.mark.parametrize("model", NARROW)
def test_no_weights_of_a_student_can_be_left_behind(model):
    """Nor their momenta; some biases and scales move so little that it would pass for rounding."""
    factory = NetworkFactory(shape=ImageShape(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    network = factory(model, 3, generator(), **NARROW[model]).train()
    batch = torch.rand(6, 3, 32, 32, generator=generator()), torch.eye(3).repeat(2, 1)
    states = []

    def recorded(run, state):
        def take(*inputs):
            outputs = run(*inputs)
            states.append([x.detach().clone().requires_grad_(x.requires_grad) for x in state()])
            return outputs

        return take

    trained(network, [batch] * 8, lr=0.005, new_step=recorded)
    before, after = states[-2:]
    assert captured._state_agrees(after, after, before)
    moving = [i for i, x in enumerate(after) if x.ndim > 1 and not torch.equal(x, before[i])]
    assert len(moving) == 2 * sum(x.ndim > 1 for x in network.parameters())
    for i in moving:
        stuck = [*after[:i], before[i], *after[i + 1 :]]
        assert not captured._state_agrees(stuck, after, before)


def test_no_graph_of_a_parameter_is_alive_during_a_capture(monkeypatch):
    """Its node would belong to the stream of eager steps: see the test of inner steps below."""
    network, alive = perceptron(), []

    def node(parameter):
        return torch.autograd.graph.get_gradient_edge(parameter).node.metadata

    def capture(run, inputs):
        for parameter in network.parameters():
            node(parameter)["mine"] = True  # gone with the node, unless someone holds it
            alive.append("mine" in node(parameter))
        return tape.capture(run, inputs)

    monkeypatch.setattr(captured, "capture_on", lambda device: capture)
    trained(network, some_batches(*[6] * 4))
    assert alive == [False] * 4


@pytest.mark.parametrize(
    ("failed", "said"),
    [(RuntimeError("no memory\nat all"), "no memory"), (AssertionError(), "AssertionError")],
)
def test_a_failed_capture_leaves_modes_and_streams_as_they_were(failed, said, monkeypatch, caplog):
    def capture(run, inputs):
        with torch.random.fork_rng(devices=[]):
            run(*inputs)
        try:
            raise failed
        finally:  # as when a graph is ended in which something failed
            raise RuntimeError("the capture is invalid")

    def run():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            return trained(perceptron(nn.Dropout(0.5)), some_batches(*[6] * 6))

    expected = run()
    monkeypatch.setattr(captured, "capture_on", lambda device: capture)
    assert equal(run(), expected)
    assert [record.message for record in caplog.records] == [
        f"steps are not replayed as CUDA graphs: {said}"
    ]


def test_an_inner_model_whose_step_fails_is_in_eval_mode():
    model = inner_model()
    with pytest.raises(UserWarning, match="target size"):
        model.step(torch.rand(6, 3, 8, 8), torch.rand(6, 1))
    assert not any(module.training for module in model.network.modules())


def test_rounding_is_no_difference(monkeypatch, caplog):
    def capture(run, inputs):
        replay, outputs = tape.capture(run, inputs)

        def rounding():
            replay()
            outputs[0].mul_(1 + 1e-4)

        return rounding, outputs

    monkeypatch.setattr(captured, "capture_on", lambda device: capture)
    step = CapturedStep(lambda x: (x + 1,))
    for _ in range(4):
        (found,) = step(torch.ones(3))
    assert torch.equal(found, 2 * torch.full((3,), 1 + 1e-4))
    assert not caplog.records


def test_a_cpu_captures_nothing():
    assert captured.capture_on(torch.device("cpu")) is None


# What is captured in earnest


def pretrained(
    model,
    recipe,
    objective="mse",
    *,
    settings=None,
    precision="fp32",
    chunks=None,
    device="cpu",
):
    factory = NetworkFactory(
        shape=ImageShape(3, 32, 32),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        precision=precision,
        device=torch.device(device),
    )
    student = factory(model, 3, generator(), **{**NARROW[model], **(settings or {})})
    student.chunks = chunks
    stream = generator(1)
    views = ("identity", "rot90", "rot180")
    images = torch.randint(256, (5, 3, 32, 32), generator=stream, dtype=torch.uint8)
    targets = torch.randn(len(views), 5, 3, generator=stream).to(device)
    data = TrainingSet(
        images=images.to(device),
        views=views,
        targets=targets if objective == "mse" else targets.softmax(2),
        objective=objective,
    )
    loop = CheckpointedLoop(None, description="toy")
    stream = torch.Generator(device).manual_seed(2)
    pretrain(student, data, Length(steps=12), recipe=recipe, generator=stream, checkpoint=loop)
    losses = [entry["loss"] for entry in loop.history["pretraining"]]
    return [torch.tensor(losses), *student.state_dict().values()]


MSE = Recipe(lr=0.005, weight_decay=1e-3, batch_size=8)  # of 15 pairs: batches of 8 and 7
DECAYING = Recipe(lr=0.01, weight_decay=5e-4, batch_size=16, decay_at=0.5, augment=True)


@pytest.mark.parametrize("model", NARROW)
def test_students_are_pretrained_as_eagerly(model, both):
    expected, found, tapes = both(lambda: pretrained(model, MSE))
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (2, 8)


def test_every_student_is_tried():
    assert {*plugins.names("models")} - {*NARROW} <= {"resnet-small"}


def test_the_rate_of_a_graph_decays(both):
    """Augmentation is drawn outside of the graph; after the decay, another one is captured."""
    expected, found, tapes = both(
        lambda: pretrained("convnet", DECAYING, "cross-entropy", settings={"norm": "instance"})
    )
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (2, 8)


@pytest.mark.parametrize("num_bytes", [1, 1_500_000])
def test_passes_in_chunks_and_in_bf16_are_captured(num_bytes, both):
    expected, found, tapes = both(
        lambda: pretrained(
            "convnet",
            MSE,
            settings={"norm": "instance"},
            precision="bf16",
            chunks=Chunks(num_bytes),
        )
    )
    assert equal(found, expected)
    assert tapes.replays == 8


def test_inner_models_of_the_pool_learn_as_eagerly(both, toy_problem):
    def run():
        method = KrrSt(
            outer_steps=14,
            real_batch=12,
            pool_size=2,
            max_age=6,
            inner_widths=(4, 4),
            restart=True,
            staggered=True,
        )
        loop = CheckpointedLoop(None, description="toy")
        made = method.distill(toy_problem(), generator=generator(), checkpoint=loop)
        return [*made.values()]

    expected, found, tapes = both(run)
    assert equal(found, expected)
    assert tapes.captures > 2  # a fresh model is captured anew
    assert tapes.replays > tapes.captures


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_no_graph_of_an_outer_step_is_alive_in_an_inner_one(norm, monkeypatch, toy_problem):
    """Its nodes belong to the stream of eager steps, and a capture fails where it meets them."""
    ages = []

    def nodes(model):
        parameters = [*model.network.backbone.parameters()]
        return [torch.autograd.graph.get_gradient_edge(p).node.metadata for p in parameters]

    def outer_loss(self, model, shown):
        loss = original(self, model, shown)
        for metadata in nodes(model):
            metadata["outer step"] = True
        return loss

    def step(self, images, targets):
        assert not any("outer step" in metadata for metadata in nodes(self))
        ages.append(self.age)

    original = Bilevel.outer_loss
    monkeypatch.setattr(Bilevel, "outer_loss", outer_loss)
    monkeypatch.setattr(InnerModel, "step", step)
    problem = toy_problem()
    factory = partial(problem.new_network, norm=norm)
    method = KrrSt(outer_steps=3, real_batch=12, pool_size=1, inner_widths=(4, 4), staggered=False)
    loop = CheckpointedLoop(None, description="toy")
    method.distill(replace(problem, new_network=factory), generator=generator(), checkpoint=loop)
    assert len(ages) == 3


def test_a_restored_inner_model_is_captured_anew(both):
    def run():
        model = inner_model()
        stream = generator(3)
        batch = torch.rand(6, 3, 8, 8, generator=stream), torch.randn(6, 2, generator=stream)
        for _ in range(4):
            model.step(*batch)
        model.load_state_dict(model.state_dict())
        for _ in range(4):
            model.step(*batch)
        return [*model.network.state_dict().values()]

    expected, found, tapes = both(run)
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (2, 4)


def test_classes_are_matched_as_eagerly(both, labelled_problem):
    """One graph for each augmentation, whatever the inner model that is being matched."""

    def run():
        method = Dsa(
            num_inner_models=10,
            outer_steps_per_model=1,
            inner_epochs=1,
            real_batch=6,
            inner_widths=(4, 4),
        )
        loop = CheckpointedLoop(None, description="toy")
        made = method.distill(labelled_problem(N=3), generator=generator(), checkpoint=loop)
        return [made["images"]]

    expected, found, tapes = both(run)
    assert equal(found, expected)
    assert tapes.captures == 6
    assert tapes.replays == 10 * 3 - 6 * 2


@pytest.mark.parametrize("q", [40, 6])
def test_a_paper_probe_is_fitted_as_eagerly(q, both):
    stream = generator()
    features, labels = torch.randn(60, 8, generator=stream), torch.arange(60) % 3
    subsets = torch.stack([torch.randperm(60, generator=stream)[:q] for _ in range(2)])

    def run():
        fitted = PaperProbe(steps=20, batch=16).fit(
            features,
            labels,
            subsets=subsets,
            num_classes=3,
            generator=generator(5),
            checkpoint=CheckpointedLoop(None, description="toy"),
        )
        return [fitted.weights, fitted.biases]

    expected, found, tapes = both(run)
    assert equal(found, expected)
    assert (tapes.captures, tapes.replays) == (1, 18)


# Where there is a GPU


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("layer", [partial(nn.BatchNorm1d, 7), partial(nn.Dropout, 0.5)])
def test_a_gpu_replays_what_it_computes_eagerly(layer, device, monkeypatch):
    """Twice, as the first step's graphs are gone when the second is captured."""
    batches = some_batches(*[6, 4] * 5, device=device)
    num_graphs = []

    def new_step(*args):
        step = CapturedStep(*args)

        def take(*batch):
            outputs = step(*batch)
            num_graphs.append(len(step._graphs))
            return outputs

        return take

    def run():
        torch.cuda.manual_seed(5)
        network = perceptron(layer(), device=device)
        return [x.clone() for x in trained(network, batches, new_step=new_step)]

    found = [run() for _ in range(2)]
    assert num_graphs[9] == num_graphs[19] == 2
    monkeypatch.setattr(captured, "capture_on", lambda device: None)
    expected = run()
    assert all(deviation(one, expected) < 1e-3 for one in found)


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("model", NARROW)
def test_a_gpu_pretrains_students_as_eagerly(model, device, monkeypatch):
    found = pretrained(model, MSE, device=device)
    assert not captured._given_up
    monkeypatch.setattr(captured, "capture_on", lambda device: None)
    expected = pretrained(model, MSE, device=device)
    assert deviation([x.cpu() for x in found], [x.cpu() for x in expected]) < 1e-2

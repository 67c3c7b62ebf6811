"""A memory budget is kept: passes in chunks give what whole ones give, and hold less at once."""

import logging
import math
import subprocess
import sys
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmark import cli, memory
from benchmark import execute as execute_module
from benchmark.commands import _suite
from benchmark.compute import Compute
from benchmark.cost import measure
from benchmark.experiment import Experiment
from benchmark.grid import cells
from benchmark.loop import CheckpointedLoop
from benchmark.memory import (
    GIB,
    Chunks,
    default_memory,
    is_out_of_memory,
    keeps_images_apart,
    num_at_once,
)
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.network import Network
from benchmark.network_factory import NetworkFactory
from benchmark.probes.fair import FairProbe, bytes_of_draw
from benchmark.probes.paper import PaperProbe
from benchmark.probing import extract, probe
from benchmark.spec import ImageShape
from benchmark.stages import probing
from benchmark.store import Store

CPU = torch.device("cpu")
SHAPE = ImageShape(3, 8, 8)
TINY = 1  # byte: one image at a time


class Recorded(nn.Module):
    """Linear layers of 10, 20 and 30 features that remember how many images they were given."""

    def __init__(self, most=math.inf, error="CUDA out of memory"):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(10, 20), nn.Linear(20, 30))
        self.given, self.most, self.error = [], most, error

    def forward(self, x):
        self.given.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError(self.error)
        return self.layers(x)


def new_loop():
    return CheckpointedLoop(None, description="toy")


def recorded(max_memory, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Recorded(**settings), 30, 2, mean=(0.0,), std=(1.0,)).eval()
    network.chunks = Chunks(max_memory)
    return network


def new(model, max_memory, num_outputs=4, **settings):
    factory = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.2,) * 3, max_memory=max_memory)
    network = factory(model, num_outputs, torch.Generator().manual_seed(0), **settings)
    return network.double()


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


MODELS = [
    ("convnet", {"widths": (4, 6)}),
    ("resnet-small", {"widths": (4, 8)}),
    ("vit", {"width": 0.25, "depth": 1, "patch_size": 4}),
]


@pytest.mark.parametrize(
    ("num_images", "measured", "sizes"),
    [(5, [1], [5]), (11, [1, 2, 2, 4], [4, 4, 3]), (40, [1, 2, 2, 4], [5] * 8)],
)
def test_chunks_are_as_large_as_fits(num_images, measured, sizes):
    """Alive at once are the 20 and 30 outputs of an image, 200 bytes: half the budget holds 5."""
    network = recorded(2 * 5 * 200)
    images = torch.rand(num_images, 1, 2, 5)
    with torch.no_grad():
        network.features(images)
        assert network.backbone.given == [*measured, *sizes]
        network.features(images)
    assert network.backbone.given == [*measured, *sizes, *sizes]


def test_a_batch_that_is_sure_to_fit_does_not_decide_for_larger_ones():
    network = recorded(2 * 5 * 200)
    with torch.no_grad():
        for num_images in (3, 5, 7, 5):
            network.features(torch.rand(num_images, 1, 2, 5))
    assert network.backbone.given == [1, 3, 1, 5, 1, 2, 2, 4, 4, 3, 5]


@pytest.mark.parametrize("before", [[], ["bf16"]], ids=["nothing", "bf16"])
def test_a_pass_in_bf16_does_not_decide_for_one_in_fp32(before):
    """Methods see one network, and thus its chunks, in either."""
    images, passed = torch.rand(64, 3, 8, 8), []
    network = new("convnet", 2**20, widths=(8, 16)).float().eval()
    for precision in (*before, "fp32"):
        seen = copy(network)
        seen.precision = precision
        seen.features(images)
    network.backbone.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    network.features(images)
    assert passed == [32, 32]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("model", "width"), [("convnet", None), ("resnet18", 0.5)])
def test_weights_cast_to_bf16_do_not_hide_what_maps_take(model, width, training):
    """With two images casts are most of what a pass holds, with as many as fit they are little."""
    share = 2**26
    factory = NetworkFactory(
        shape=ImageShape(3, 32, 32),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        precision="bf16",
        max_memory=2 * share,
    )
    settings = {} if width is None else {"width": width}
    network = factory(model, 4, torch.Generator().manual_seed(0), **settings).eval()
    with torch.set_grad_enabled(training):
        size = network.num_at_once(torch.rand(2, 3, 32, 32))
        live = memory._LiveBytes()
        with live:
            features = network._pass(network.backbone, torch.rand(size, 3, 32, 32))
            if training:
                torch.autograd.grad(features.sum(), list(network.backbone.parameters()))
    assert 0.5 * share < live.most < 1.1 * share


@pytest.mark.parametrize(("model", "settings"), MODELS)
def test_features_do_not_depend_on_chunks(model, settings, monkeypatch):
    whole, chunked = (new(model, budget, **settings).eval() for budget in (None, TINY))
    images = uniform(5, 3, 8, 8)
    before = torch.get_rng_state()
    with torch.inference_mode():
        torch.testing.assert_close(chunked.features(images), whole.features(images))
    pixels = (255 * images).to(torch.uint8)
    expected = extract(whole.float(), pixels, checkpoint=new_loop())
    monkeypatch.setattr("benchmark.probing.BATCH", 3)
    torch.testing.assert_close(extract(chunked.float(), pixels, checkpoint=new_loop()), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("model", "settings"), MODELS)
def test_first_and_second_derivatives_do_not_depend_on_chunks(model, settings):
    found = []
    for budget in (None, TINY):
        network = new(model, budget, **settings).eval()
        images = uniform(3, 3, 8, 8).requires_grad_()
        inputs = [images, *network.parameters()]
        loss = network(images).tanh().square().sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        size = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(size, inputs, allow_unused=True)
        found.append((*first, *(x for x in second if x is not None)))
    assert len(found[0]) == len(found[1]) > 3
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, whole)


def test_a_network_that_was_lent_weights_is_differentiated_with_those():
    """The graph of a chunk is made again when the module has its own weights back."""
    slopes = []
    for budget in (None, TINY):
        network = new("convnet", budget, widths=(4, 6), norm="instance").eval()
        names = [name for name, _ in network.named_parameters()]
        lent = [2 * weight.detach() for weight in network.parameters()]
        flat = [weight.requires_grad_() for weight in lent]
        weights = dict(zip(names, flat, strict=True))
        outputs = torch.func.functional_call(network, weights, (uniform(4, 3, 8, 8),))
        slopes.append(torch.autograd.grad(outputs.tanh().sum(), flat))
    for whole, chunked in zip(*slopes, strict=True):
        torch.testing.assert_close(chunked, whole)


def test_batch_norm_in_training_sees_its_whole_batch():
    networks = [new("convnet", budget, widths=(4, 6)) for budget in (None, TINY)]
    outputs = [network.train()(uniform(5, 3, 8, 8)) for network in networks]
    torch.testing.assert_close(*outputs)
    for whole, chunked in zip(
        *(network.state_dict().values() for network in networks), strict=True
    ):
        torch.testing.assert_close(chunked, whole)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0) if self.training else x


@pytest.mark.parametrize(
    ("layers", "apart"),
    [
        ([nn.Conv2d(3, 3, 1), nn.GroupNorm(3, 3), nn.ReLU(), nn.AvgPool2d(2)], True),
        ([nn.BatchNorm2d(3)], False),
        ([nn.BatchNorm2d(3).eval()], True),
        ([nn.Dropout(0.5)], False),
        ([Centred()], False),
        ([Centred().eval()], True),
    ],
)
def test_what_may_be_split_in_training(layers, apart):
    assert keeps_images_apart(nn.Sequential(*layers)) == apart
    assert keeps_images_apart(nn.Sequential(*layers).eval())


def test_instance_norm_in_training_is_split_and_gives_the_same():
    settings = {"widths": (4, 6), "norm": "instance"}
    whole, chunked = (new("convnet", budget, **settings).train() for budget in (None, TINY))
    given = []
    chunked.backbone[0].register_forward_hook(lambda *call: given.append(len(call[2])))
    torch.testing.assert_close(chunked(uniform(4, 3, 8, 8)), whole(uniform(4, 3, 8, 8)))
    assert given == [1, 2, 1, 1, 1, 1]


def test_running_out_of_memory_halves_chunks_for_good_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(memory, "_said", False)
    network, other = recorded(GIB, most=3), recorded(GIB, most=2)
    images = torch.rand(16, 1, 2, 5)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        found = network.features(images)
        torch.testing.assert_close(found, network.backbone.layers(images))
        assert network.backbone.given == [1, 16, 8, 4, *[2] * 8]
        network.features(images)
        assert network.backbone.given[-8:] == [2] * 8
        other.features(images)
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory: 8 images at once instead of 16"
    ]


@pytest.mark.parametrize(("enough", "budgets"), [(16, [64, 32, 16]), (2, [64, 32, 16, 8, 4])])
def test_a_stage_that_runs_out_of_memory_goes_on_with_half_of_it(
    monkeypatch, caplog, toy_suite, tmp_path, enough, budgets
):
    """Whatever ran out: the way back through a graph, the probes, a pass that cannot be split."""
    monkeypatch.setattr(memory, "_said", False)
    experiment = Experiment(
        toy_suite,
        store=Store(tmp_path),
        compute=Compute(CPU, "fp32", max_memory=64),
    )
    tried = []

    def run_cell(cell, experiment):
        budget = experiment.compute.max_memory
        tried.append(budget)
        assert experiment.new_network.max_memory == budget
        if budget > enough:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return []

    monkeypatch.setattr(execute_module, "run_cell", run_cell)
    first = cells(toy_suite)[0]
    with caplog.at_level(logging.WARNING):
        outcome = execute_module.execute([first], experiment, jobs=1, done=lambda rows: None)
    assert tried == budgets
    assert (outcome.failed == {}) == (enough >= budgets[-1])
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["out of memory: stages continue with half as much"]


def test_features_that_do_not_fit_as_a_whole_are_an_error_before_most_are_computed(monkeypatch):
    network, new_empty = recorded(2**30, most=32), torch.Tensor.new_empty

    def bounded(self, *size, **how):
        if size[0] == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return new_empty(self, *size, **how)

    monkeypatch.setattr(torch.Tensor, "new_empty", bounded)
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        network.features(torch.ones(64, 1, 2, 5))
    assert sum(network.backbone.given) < 3 * 64  # first chunks alone, each half as large


def test_one_chunk_is_held_beside_the_whole():
    def doubled(backbone, chunk):
        return 2 * chunk

    images = torch.rand(64, 3, 8, 8)
    run = partial(memory._in_chunks, doubled, nn.Identity(), images, size=4, graph=False)
    assert torch.equal(run(), 2 * images)
    assert memory.peak_bytes(run) == images.nbytes * (1 + 4 / 64)


@pytest.mark.parametrize("graph", [False, True])
def test_one_image_that_does_not_fit_is_an_error(graph):
    network = recorded(GIB, most=0)
    with torch.set_grad_enabled(graph), pytest.raises(torch.OutOfMemoryError):
        network.features(torch.rand(4, 1, 2, 5))
    assert network.backbone.given[-1] == 1


def test_where_two_images_do_not_fit_one_is_taken_at_a_time():
    network = recorded(GIB, most=1)
    with torch.no_grad():
        network.features(torch.rand(4, 1, 2, 5))
    assert network.backbone.given == [1, 4, 2, 1, 1, 1, 1]


def test_batch_norm_in_training_that_does_not_fit_is_an_error():
    network = recorded(GIB, most=3)
    network.backbone.layers.insert(3, nn.BatchNorm1d(30))
    with pytest.raises(torch.OutOfMemoryError):
        network.train().features(torch.rand(4, 1, 2, 5))
    assert network.backbone.given == [4]


def test_other_errors_go_on():
    network = recorded(GIB)
    with pytest.raises(RuntimeError, match="shape"):
        network.features(torch.rand(4, 1, 2, 6))
    assert len(network.backbone.given) == 1


def test_many_images_pass_a_cpu_a_few_at_a_time_if_there_is_no_graph():
    network, images = new("convnet", 64 * GIB, widths=(2, 3)).eval(), uniform(600, 3, 8, 8)
    given = []
    network.backbone[0].register_forward_hook(lambda *call: given.append(len(call[2])))
    whole = network.features(images)
    with torch.no_grad():
        given.clear()
        torch.testing.assert_close(network.features(images), whole)
        assert given[-3:] == [200, 200, 200]
        network.train()  # batch norm sees the batch as a whole
        network.features(images)
        assert given[-1] == 600


def test_errors_of_the_hosts_allocator_are_known():
    with pytest.raises(RuntimeError) as no_memory:
        torch.empty(2**60)
    assert is_out_of_memory(no_memory.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"))
    assert is_out_of_memory(
        RuntimeError("GET was unable to find an engine to execute this computation")
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive"))  # of oneDNN
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_room_is_made_although_a_cache_cannot_be_emptied(monkeypatch, caplog):
    """As on CUDA with older versions of torch, once a capture has failed."""
    asked = []

    def empty_cache():
        asked.append(1)
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "empty_cache", empty_cache)
    monkeypatch.setattr(memory, "_said", False)
    memory.make_room("one image at once")
    assert asked
    assert [record.message for record in caplog.records] == ["out of memory: one image at once"]


STARVED = """
import resource, torch
from benchmark.memory import Chunks
from benchmark.network import Network

torch.set_num_threads(1)
layers = torch.nn.Sequential(
    torch.nn.Conv2d(3, 64, 1), torch.nn.AvgPool2d(32), torch.nn.Flatten()
)
network = Network(layers, 64, 1, mean=(0.5,) * 3, std=(0.2,) * 3).eval()
network.chunks = Chunks(2**40)
images = torch.rand(512, 3, 32, 32)
with torch.no_grad():
    few = network.features(images[:4])
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26,) * 2)
    torch.testing.assert_close(network.features(images)[:4], few)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited there")
def test_a_process_without_enough_memory_goes_on():
    """With the host's own allocator: a pass over all images wants 128 MiB, of 64 that are left."""
    ended = subprocess.run(
        [sys.executable, "-c", STARVED], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("out of memory: 256 images at once instead of 512")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can tell")
@pytest.mark.parametrize("graph", [False, True])
def test_a_small_budget_is_kept(graph):
    """The resident set of the process: as a whole, a pass over 64 images holds 128 MiB."""
    peaks = {}
    images = torch.rand(64, 3, 64, 64)
    for budget in (None, 2**23):
        factory = NetworkFactory(
            shape=ImageShape(3, 64, 64), mean=(0.5,) * 3, std=(0.2,) * 3, max_memory=budget
        )
        network = factory("convnet", 1, torch.Generator(), widths=(64, 8)).eval()
        with measure(CPU) as before:
            pass
        with measure(CPU) as spent, torch.set_grad_enabled(graph):
            features = network.features(images)
            if graph:
                features.sum().backward()
        peaks[budget] = spent.peak_memory_mib - before.peak_memory_mib
    assert peaks[None] > 100
    assert peaks[2**23] < 40


@pytest.mark.parametrize(
    "method",
    [
        partial(KrrSt, distilled_batch=6),
        partial(Ours, num_image_bases=4, num_target_bases=2, approximation=False, basis_size=4),
    ],
)
def test_bilevel_steps_do_not_depend_on_chunks(toy_problem, method):
    problem = toy_problem(N=8)
    stored = []
    for budget in (None, TINY):
        new_network = replace(problem.new_network, max_memory=budget)
        tensors = method(
            outer_steps=3,
            outer_lr=0.01,
            real_batch=10,
            ridge=1e-2,  # less, with more pairs than features, makes much of rounding
            pool_size=2,
            max_age=3,
            inner_widths=(4, 4),
        ).distill(
            replace(problem, new_network=new_network),
            generator=torch.Generator().manual_seed(0),
            checkpoint=new_loop(),
        )
        stored.append(tensors)
    for name, whole in stored[0].items():
        torch.testing.assert_close(stored[1][name], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [FairProbe(strengths=(1.0, 0.1), tolerance=1e-6), PaperProbe(steps=30, batch=16)]
)
@pytest.mark.parametrize("p", [5, 40])  # fewer and more than the 24 images of a draw
def test_probes_do_not_depend_on_how_many_draws_are_solved_at_once(kind, p):
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, p, generator=stream)
    features[:, 0] += labels
    subsets = torch.stack([torch.randperm(30, generator=stream)[:8] for _ in range(5)])
    subsets = torch.cat([3 * subsets, 3 * subsets + 1, 3 * subsets + 2], dim=1)
    whole, chunked = (
        kind.fit(
            features,
            labels,
            subsets=subsets,
            num_classes=3,
            generator=torch.Generator().manual_seed(1),
            checkpoint=new_loop(),
            max_memory=budget,
        )
        for budget in (None, TINY)
    )
    assert (chunked.strength, chunked.converged) == (whole.strength, whole.converged)
    torch.testing.assert_close(chunked.weights, whole.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(chunked.biases, whole.biases, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(whole.weights[0], whole.weights[1], rtol=0.1)


@pytest.mark.parametrize(("q", "p", "k"), [(800, 200, 3), (400, 350, 20), (200, 500, 10)])
def test_what_probes_expect_to_hold_for_a_draw_is_about_what_they_hold(q, p, k):
    """Three draws at once, counted tensor by tensor; a QR decomposition's own is not seen."""
    features = torch.randn(3 * q, p, generator=torch.Generator().manual_seed(0))
    fair, paper = FairProbe(max_steps=15, min_held_out=1), PaperProbe(steps=4, batch=128)
    expected = {fair: bytes_of_draw(q, p, k), paper: paper.bytes_of_subset(q, p, k)}
    for kind, each in expected.items():
        live = memory._LiveBytes()
        with live:
            kind.fit(
                features,
                torch.arange(3 * q) % k,
                subsets=torch.arange(3 * q).view(3, q),
                num_classes=k,
                generator=torch.Generator().manual_seed(1),
                checkpoint=new_loop(),
            )
        assert 0.4 * each < live.most / 3 < 1.5 * each


def test_tasks_at_once_fill_half_of_the_budget():
    assert num_at_once(10, each=100, max_memory=800) == 4
    assert num_at_once(3, each=100, max_memory=800) == 3
    assert num_at_once(10, each=100, max_memory=TINY) == 1
    assert num_at_once(10, each=100, max_memory=None) == 10


def test_the_budget_reaches_the_probes(toy_suite, tmp_path, monkeypatch):
    """A cell of the toy suite, from the source to its row, whose key does not depend on it."""
    seen = []

    def spy(*arguments, max_memory, **settings):
        seen.append(max_memory)
        return probe(*arguments, max_memory=max_memory, **settings)

    monkeypatch.setattr(probing, "probe", spy)
    suite = replace(toy_suite, teacher="supervised", probes=("paper",), labels_per_class=(None,))
    rows = {}
    for budget in (None, GIB):
        experiment = Experiment(
            suite,
            store=Store(tmp_path / str(budget)),
            compute=Compute(CPU, "fp32", max_memory=budget),
        )
        cell = next(cell for cell in cells(suite) if cell.variant.method == "krr-st")
        (rows[budget],) = execute_module.run_cell(cell, experiment)
    assert set(seen) == {None, GIB}
    assert (rows[None].key, rows[None].draws) == (rows[GIB].key, rows[GIB].draws)


@pytest.mark.parametrize("words", ["0", "-1", "lots", "nan", "inf", "1e308", "1,2", ""])
@pytest.mark.parametrize("command", [("run",), ("teacher", "--output", "teacher.safetensors")])
def test_a_budget_that_is_none_is_told_in_one_line(capsys, command, words):
    assert cli.main([*command, f"--max-memory={words}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--max-memory: {words}: expected positive GiB, such as 8 or 0.5" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("--max-memory", "0.5", "--jobs", "3"), 2**29), (("--jobs", "3"), 3_000), ((), 2_000)],
)
def test_networks_get_the_budget_of_the_command_line(monkeypatch, tmp_path, words, expected):
    monkeypatch.setattr(_suite, "default_memory", lambda device, jobs: 1_000 * jobs)
    monkeypatch.setattr(_suite, "_THREADS", 2)
    words = ("run", "--device", "cpu", "--precision", "fp32", "--store", str(tmp_path), *words)
    arguments = cli.new_parser().parse_args(words)
    threads = torch.get_num_threads()
    experiment = _suite.experiment_of(_suite.suite_of(arguments), arguments)
    torch.set_num_threads(threads)
    assert experiment.compute.max_memory == expected
    assert not any("memory" in name for name in experiment.compute.settings)
    monkeypatch.setattr(
        type(experiment),
        "splits",
        lambda self, name: SimpleNamespace(
            train=SimpleNamespace(shape=SHAPE), mean=(0.5,) * 3, std=(0.2,) * 3
        ),
    )
    assert experiment.new_network.max_memory == expected


def test_the_default_is_three_quarters_of_the_device_in_equal_parts(monkeypatch):
    monkeypatch.setattr(memory, "_host_memory", lambda: 16 * GIB)
    assert default_memory(CPU, jobs=1) == 12 * GIB
    assert default_memory(CPU, jobs=2) == 6 * GIB
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (1, 80 * GIB))
    assert default_memory(torch.device("cuda"), jobs=1) == 60 * GIB


def test_a_device_that_does_not_say_how_large_it_is_has_no_limit(monkeypatch):
    def unsaid(device):
        raise RuntimeError("not supported")

    monkeypatch.setattr(memory, "_host_memory", lambda: None)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", unsaid)
    assert default_memory(CPU, jobs=1) is None
    assert default_memory(torch.device("mps"), jobs=1) is None


def test_this_machine_has_memory():
    assert 2**26 < memory._host_memory() < 2**50


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        (
            "0::/a/b\n",
            {"memory.max": "90", "a/memory.max": "70", "a/b/memory.max": "max"},
            {90, 70},
        ),
        ("0::/elsewhere\n", {"memory.max": "50"}, {50}),  # in a container
        (
            "5:cpu:/x\n4:memory:/x\n0::/\n",
            {"memory/memory.limit_in_bytes": "80", "memory/x/memory.limit_in_bytes": "60"},
            {80, 60},
        ),
        ("", {}, set()),
    ],
)
def test_limits_of_control_groups(tmp_path, membership, files, limits):
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    told = tmp_path / "membership"
    told.write_text(membership)
    assert set(memory._group_limits(tmp_path / "groups", told)) == limits
    assert not set(memory._group_limits(tmp_path / "groups", tmp_path / "no file"))

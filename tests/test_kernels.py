"""Every kernel and its plain twin agree; with `-m kernel`, both are timed at full size."""

import inspect
import json
import math
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.flop_counter import FlopCounterMode

from benchmark import plugins, timing
from benchmark.allocation import keep_freed_memory
from benchmark.cli import main
from benchmark.commands import time as time_command
from benchmark.compute import Compute, find_device
from benchmark.convolutions import choose
from benchmark.kernel import Floor, Kernel, Measurement, deviation, measure
from benchmark.kernels import dsa_step, idm_step
from benchmark.kernels._labelled import new_classifiers
from benchmark.models._instance_norm import InstanceNorm
from benchmark.operators import operations_of
from benchmark.probes.fair import FairProbe
from benchmark.reporting import kernel_report
from benchmark.tf32 import choose_tf32
from benchmark.timing import Clock, Rates, interleaved
from tests.convolved import Convolutions

REPORTS = Path(__file__).parents[1] / "reports"
NAMES = plugins.names("kernels")
CPU = torch.device("cpu")
ITERATIVE = {"fair-probe", "student-evaluation"}  # end within a tolerance, after steps as needed
EXACT = {"basis-decode", "paper-probe", "ridge-solve", "siamese-augmentation", "view-expansion"}
ROUNDED = {*NAMES} - EXACT  # by networks, or by features
ROUNDING = 1e-4  # of float32 in small kernels; full-size ones add up more of it


def kernel(name, precision="fp32", **options):
    return plugins.load("kernels", name)(Compute(CPU, precision), **options)


def operations(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.fixture
def rates(monkeypatch):
    """Have the command find these rates, in no time."""
    rates = Rates(
        operations=dict.fromkeys(get_args(timing.Rate), 1e11),
        copied=1e10,
    )
    monkeypatch.setattr(time_command, "measure_rates", lambda clock: rates)

    def chosen(*_, precision, layout):
        return precision or "fp32", layout or "channels-last"

    monkeypatch.setattr(time_command, "choose", chosen)


def test_only_twins_are_made_of_layers_of_the_framework():
    """Also where the library runs in the precision and layout of twins."""
    compute = Compute(CPU, "fp32", "contiguous")
    fast, twin = new_classifiers(compute, side=8, widths=(4, 4), num_outputs=3)
    assert any(isinstance(layer, InstanceNorm) for layer in fast.backbone.children())
    modules = {type(layer).__module__.split(".")[0] for layer in twin.backbone.children()}
    assert modules == {"torch"}


@pytest.mark.parametrize("name", NAMES)
def test_fast_and_plain_agree_and_start_from_the_same_place_again(name):
    before = torch.get_rng_state()
    tiny = kernel(name, small=True)
    first, twin = tiny.fast(), tiny.plain()
    assert deviation(first, twin) <= (tiny.tolerance if name in ITERATIVE else ROUNDING)
    assert any(x.abs().sum() > 0 for x in twin)
    assert deviation(tiny.fast(), first) == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_agrees_within_its_tolerance(name):
    """With more difference than fp32 may have, where it is used."""
    tiny, exact = (kernel(name, precision, small=True) for precision in ("bf16", "fp32"))
    rounds = dict(tiny.operations) != dict(exact.operations)
    found = deviation(tiny.fast(), tiny.plain())
    assert found <= tiny.tolerance
    if name not in ITERATIVE:
        assert rounds == (found > exact.tolerance)
        assert not rounds or tiny.tolerance < 6 * found
    assert rounds == (name in ROUNDED)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ITERATIVE])
def test_operations_are_those_that_run(name, monkeypatch):
    # Pooling counts as bytes alone, also where a product does it.
    monkeypatch.setattr(torch.Tensor, "is_contiguous", lambda self: False)
    tiny = kernel(name, small=True)
    run = tiny.plain if name == "paper-probe" else tiny.fast  # in place, they are not counted
    counted, formula = operations(run), sum(tiny.operations.values())
    assert formula == pytest.approx(counted, rel=0.06 if name != "krr-st-step" else 0.1)


@pytest.mark.parametrize(
    ("changes", "predicted"),
    [
        ({}, 4 / (1 / 2 + 1)),  # 4 seconds of fp32 against half a second of bf16 and one of fp32
        ({"twin_is_counted": False}, None),
        ({"operations": {}}, None),
    ],
)
def test_the_ratio_that_operations_alone_would_give(changes, predicted):
    product = Kernel(
        shape="10 x inner x 10",
        fast=lambda: (torch.ones(10, 4) @ torch.ones(4, 10),),
        plain=lambda: (torch.ones(10, 4) @ torch.ones(4, 10),),
        operations={"matrix product bf16": 200, "matrix product fp32": 200},
        num_bytes=1,
        tolerance=0.0,
    )
    rates = Rates(
        operations={"matrix product fp32": 200.0, "matrix product bf16": 400.0}, copied=1.0
    )
    found = measure("product", replace(product, **changes), clock=Clock(device=CPU))
    assert found.predicted(rates) == predicted


def test_medians_are_compared_with_each_other_and_with_the_floor():
    fast, plain = (9.0, 1.0, 2.0), (5.0, 90.0, 8.0)
    product = Kernel(
        shape="",
        fast=tuple,
        plain=tuple,
        operations={"matrix product fp32": 20},
        num_bytes=1,
        tolerance=0.0,
    )
    found = Measurement(
        name="product", kernel=product, fast=fast, plain=plain, of_twin={}, deviation=0.0
    )
    assert found.ratio == 4
    assert found.times_floor(Rates(operations={"matrix product fp32": 40.0}, copied=10.0)) == 4


def test_twins_run_in_fp32_and_the_default_layout():
    """Images and weights of every convolution, forward and backward."""
    for name in ("krr-st-step", "pretraining-epoch", "gradient-matching", "feature-extraction"):
        twin = plugins.load("kernels", name)(Compute(CPU, "bf16"), small=True).plain
        with Convolutions() as watch:
            twin()
        assert watch.seen["convolution"]
        assert {one for seen in watch.seen.values() for one in seen} == {(torch.float32, False)}


def test_the_twin_of_the_fair_probe_fits_each_strength_once_and_the_best_again(monkeypatch):
    fits, fit = [], LogisticRegression.fit
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda self, *given: fits.append(1) or fit(self, *given)
    )
    twin = kernel("fair-probe", small=True).plain
    twin()
    assert len(fits) == len(FairProbe().strengths) + 1


# Of twins, over those of kernels: a pass of the teacher (far wider than a small ConvNet), a second
# pass of the views, gradients of biases, no second unroll of a segment.
OPERATIONS = {
    **{"krr-st-step": 10.28, "ours-step": 9.87, "distribution-matching": 1.72, "idm-step": 1.55},
    **{"dsa-step": 1.07, "gradient-matching": 1.07, "ridge-solve": 0.97, "trajectory-unroll": 0.91},
}


@pytest.mark.parametrize("name", sorted({*NAMES} - ITERATIVE))
def test_twins_do_what_they_are_said_to_do_and_no_more(name):
    tiny = kernel(name, small=True)
    counted = sum(operations_of(tiny.plain)[0].values())
    assert counted == operations(tiny.plain)
    if tiny.twin_is_counted and counted:
        times = OPERATIONS.get(name, 1.0)
        assert counted / sum(tiny.operations.values()) == pytest.approx(times, abs=0.006)


@pytest.mark.parametrize("twin", [dsa_step._Plain, idm_step._Plain])
def test_twins_of_outer_steps_replace_what_there_is(twin):
    own = {name for name, value in vars(twin).items() if inspect.isfunction(value)}
    replaced = {name for name in own if name in vars(twin.__base__) and not name.startswith("__")}
    assert replaced == {"_outer_gradient"}


def test_a_deviation_is_relative_to_what_is_expected():
    x = torch.tensor([3.0, 4.0])
    assert deviation((x, 2 * x), (x, x)) == 1
    assert deviation((x * torch.nan,), (x,)) == math.inf
    assert deviation((0 * x,), (0 * x,)) == 0
    with pytest.raises(ValueError, match="differ in shape"):
        deviation((x,), (x, x))
    with pytest.raises(ValueError, match="differ in shape"):
        deviation((x[:1],), (x,))


def test_runs_take_turns_until_the_time_is_over(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])

    def run(name, seconds):
        def work():
            order.append(name)
            now[0] += seconds

        return partial(Clock(device=CPU).seconds, work)

    fast, plain = interleaved((run("f", 1), run("p", 2)), seconds=10.0)
    assert order == ["f", "p"] * 4
    assert (fast, plain) == ((1,) * 4, (2,) * 4)
    assert len(interleaved((run("f", 1),), seconds=0.0)[0]) == 3
    assert len(interleaved((run("f", 1),), seconds=99.0)[0]) == 30


def test_a_twin_runs_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(plugins, "load", None)  # of this process
    with time_command._twin("view-expansion", Compute(CPU, "fp32")) as timer:
        assert all(0 < timer() < 60 for _ in range(2))


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        ((), "in processes of their own, which do not keep freed memory"),
        (("--twins-here",), "in the same process, which keeps freed memory"),
    ],
)
def test_where_twins_run_is_told(flags, where, rates, monkeypatch, tmp_path, capsys):
    started, start = [], time_command._twin
    monkeypatch.setattr(time_command, "_twin", lambda *given: started.append(1) or start(*given))
    line = ["time", "--only", "view-expansion", "--device", "cpu", "--store", str(tmp_path)]
    assert main([*line, *flags]) == 0
    assert len(started) == (not flags)
    assert f"twins in fp32 and {where}; " in capsys.readouterr().out


def test_one_thread_is_timed_by_its_processor_alone():
    clock, threads = Clock(device=CPU), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert clock.name == "processor"
        assert clock.seconds(lambda: time.sleep(0.2)) < 0.1
        torch.set_num_threads(2)
        assert clock.name == "wall"
        assert clock.seconds(lambda: time.sleep(0.2)) >= 0.2
    finally:
        torch.set_num_threads(threads)


def test_the_floor_is_the_longer_of_arithmetic_and_memory():
    rates = Rates(operations={"matrix product fp32": 10.0, "convolution bf16": 40.0}, copied=5.0)

    def floor(num_bytes):
        both = {"matrix product fp32": 20.0, "convolution bf16": 40.0}
        return Kernel(
            shape="",
            fast=tuple,
            plain=tuple,
            operations=both,
            num_bytes=num_bytes,
            tolerance=0.0,
        ).floor(rates)

    assert floor(10.0) == Floor(seconds=3.0, bound="arithmetic")
    assert floor(20.0) == Floor(seconds=4.0, bound="memory")


def test_floors_are_of_the_faster_rates_before_and_after(monkeypatch, tmp_path, capsys):
    def rates(speed):
        return Rates(operations=dict.fromkeys(get_args(timing.Rate), speed), copied=1e18)

    found = iter([rates(1e6), rates(2e6)])
    monkeypatch.setattr(time_command, "measure_rates", lambda clock: next(found))
    file = tmp_path / "kernels.json"
    line = ["time", "--only", "basis-decode", "--small", "--device", "cpu", "--json", str(file)]
    assert main([*line, "--precision", "fp32", "--layout", "contiguous"]) == 0
    (measured,) = json.loads(file.read_text("utf-8"))["kernels"]
    assert measured["floor_seconds"] == sum(measured["operations"].values()) / 2e6
    assert "(rates were disturbed)" in capsys.readouterr().out


def test_rates_are_what_is_done_over_how_long_it_takes(monkeypatch):
    """A product of sides 1 024, 32 images through a 3x3 convolution at 16x16, a copy of 64 MiB."""
    monkeypatch.setattr(timing, "_fastest", lambda run, argument, clock: 0.5)
    rates = timing.measure_rates(Clock(device=CPU))
    product, convolution = 2 * 1024**3, 2 * 32 * 16 * 16 * 128 * 256 * 3 * 3
    assert rates.operations == {
        "matrix product fp32": product / 0.5,
        "matrix product bf16": product / 0.5,
        "convolution fp32": convolution / 0.5,
        "convolution bf16": convolution / 0.5,
    }
    assert rates.copied == 2 * 2**26 / 0.5


def test_rates_are_those_of_the_shortest_of_several_runs():
    class Prepared(Clock):
        def seconds(self, run):
            run()
            return next(taken)

    runs, taken = [], iter([0.125, 1.0, 0.25, 3.0, 2.0])  # the first warms up
    assert timing._fastest(runs.append, torch.ones(1), Prepared(device=CPU)) == 0.25
    assert len(runs) == 5


@pytest.mark.parametrize(("device", "num_runs"), [("cpu", 1), ("cuda", 5)])
def test_what_takes_long_is_run_once_for_its_rate_but_not_on_a_gpu(device, num_runs):
    class Prepared(Clock):
        def seconds(self, run):
            run()
            return next(taken)

    runs, taken = [], iter([2.0, 0.5, 0.25, 0.5, 0.5])  # a GPU may have loaded libraries first
    fastest = timing._fastest(runs.append, torch.ones(1), Prepared(device=torch.device(device)))
    assert fastest == (2.0 if num_runs == 1 else 0.25)
    assert len(runs) == num_runs


def test_a_gpu_is_timed_between_events_with_nothing_else_running(monkeypatch):
    order = []

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            order.append("event")

        def elapsed_time(self, end):
            order.append("read")
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = Clock(device=torch.device("cuda"))
    assert clock.seconds(lambda: order.append("run")) == 0.25
    assert order == ["wait", "event", "run", "event", "wait", "read"]


def test_a_disturbed_measurement_is_told(rates, monkeypatch, tmp_path, capsys):
    line = ["time", "--only", "basis-decode", "--small", "--device", "cpu"]
    line += ["--store", str(tmp_path), "--json", str(record := tmp_path / "kernels.json")]
    assert main(line) == 0
    shown, told = capsys.readouterr()
    assert "busy" not in told
    assert "before and after alike to a factor of 1.00" in shown
    slower = Rates(operations=dict.fromkeys(get_args(timing.Rate), 4e10), copied=1e10)
    found = iter([time_command.measure_rates(None), slower])
    monkeypatch.setattr(time_command, "measure_rates", lambda clock: next(found))
    assert main(line) == 0
    assert "differ by a factor of 2.50: was the machine busy" in capsys.readouterr().err
    assert json.loads(record.read_text())["rates_factor"] == 2.5


def test_rates_are_of_this_world():
    rates = timing.measure_rates(Clock(device=CPU))
    assert rates.operations.keys() == set(get_args(timing.Rate))
    assert all(1e8 < rate < 1e14 for rate in rates.operations.values())
    assert 1e8 < rates.copied < 1e13


def test_the_command_prints_a_table_and_writes_what_it_measured(rates, tmp_path, capsys):
    files = {kind: tmp_path / f"kernels.{kind}" for kind in ("json", "md")}
    line = ["time", "--only", "view-expansion,ridge-solve", "--small", "--device", "cpu"]
    line += ["--json", str(files["json"]), "--report", str(files["md"])]
    line += ["--precision", "fp32", "--layout", "contiguous"]
    assert main([*line, "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    found = json.loads(files["json"].read_text("utf-8"))
    assert [kernel["name"] for kernel in found["kernels"]] == ["view-expansion", "ridge-solve"]
    for measured in found["kernels"]:
        assert measured["ratio"] == measured["plain"]["median"] / measured["fast"]["median"]
        assert re.search(rf"^\| {measured['name']} .*{measured['ratio']:.2f}", out, re.M)
    assert found["machine"]["threads"] == torch.get_num_threads()
    document = files["md"].read_text("utf-8")
    assert document == kernel_report.document(found)
    command = (
        "python -m benchmark time --small --device cpu --precision fp32 --layout contiguous "
        "--only view-expansion,ridge-solve"
    )
    assert f"Made by `{command}`." in document
    assert "backbones in fp32 and contiguous, " in document


def test_a_wrong_name_is_said_before_anything_is_timed(capsys):
    assert main(["time", "--only", "view-expansion,ridge"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("benchmark: unknown kernel 'ridge': did you mean 'ridge-solve'?")


def test_outcomes_that_differ_too_much_are_a_failure(rates, monkeypatch, capsys, tmp_path):
    strayed = Kernel(
        shape="one number",
        fast=lambda: (torch.ones(1),),
        plain=lambda: (torch.full((1,), 2.0),),
        operations={},
        num_bytes=8.0,
        tolerance=0.1,
    )
    monkeypatch.setattr(plugins, "load", lambda kind, name: lambda compute, small: strayed)
    assert main(["time", "--only", "stray", "--small", "--store", str(tmp_path)]) == 1
    assert "0.5 (too much)" in capsys.readouterr().out


@pytest.mark.parametrize("record", sorted(REPORTS.glob("kernels*.json")), ids=lambda r: r.stem)
def test_a_committed_report_follows_from_its_record(record):
    found = json.loads(record.read_text("utf-8"))
    assert record.with_suffix(".md").read_text("utf-8") == kernel_report.document(found)


DEVICE = find_device("auto")
CLOCK = Clock(device=DEVICE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return the device with its measured precision and layout, and its rates."""
    keep_freed_memory()  # as every command does
    choose_tf32()
    precision, layout = choose(DEVICE, tmp_path_factory.mktemp("store"))
    return Compute(DEVICE, precision, layout), timing.measure_rates(CLOCK)


@pytest.fixture(scope="module")
def full(request, machine):
    return plugins.load("kernels", request.param)(machine[0])


MEDIANS = {}


@pytest.mark.kernel
@pytest.mark.benchmark(
    min_rounds=3,
    max_time=2.0,
    timer=time.process_time if CLOCK.name == "processor" else time.perf_counter,
)
@pytest.mark.parametrize("full", NAMES, indirect=True, scope="module")
@pytest.mark.parametrize("form", ["fast", "plain"])
def test_speed(benchmark, request, machine, full, form):
    """Both in one process; on a CPU with one thread processor time, otherwise wall-clock time."""
    compute, rates = machine
    name = benchmark.group = request.node.callspec.params["full"]

    def run():
        getattr(full, form)()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)

    run()
    benchmark(run)
    MEDIANS[name, form] = median = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "precision": compute.precision,
        "layout": compute.layout,
        "operations": dict(full.operations),
        "bytes": full.num_bytes,
        "floor_seconds": full.floor(rates).seconds,
        "times_floor": median / full.floor(rates).seconds,
    }
    if {(name, "fast"), (name, "plain")} <= MEDIANS.keys():
        benchmark.extra_info["ratio"] = MEDIANS[name, "plain"] / MEDIANS[name, "fast"]

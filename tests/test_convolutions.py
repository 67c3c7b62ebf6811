import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmark import convolutions, timing
from benchmark.convolutions import choose
from benchmark.operators import operators_of
from benchmark.planning.devices import Roofline
from benchmark.planning.network_cost import PassCost
from benchmark.planning.sheets import SHEETS
from tests.convolved import Convolutions

CPU = torch.device("cpu")
LAST, CONTIGUOUS = "channels-last", "contiguous"
SECONDS = {
    "fp32 channels-last": 1.0,
    "fp32 contiguous": 1.0,
    "bf16 channels-last": 0.5,
    "bf16 contiguous": 0.5,
}


@pytest.fixture
def timings(monkeypatch):
    """Pretend that convolutions take so long, and list the choices that were measured."""

    def pretend(seconds):
        asked = []

        def measure(device, names):
            asked.append(sorted(names))
            return {name: seconds[name] for name in names}

        monkeypatch.setattr(convolutions, "_measure", measure)
        return asked

    return pretend


@pytest.mark.parametrize(("bf16", "expected"), [(0.82, "bf16"), (0.85, "fp32"), (3.0, "fp32")])
def test_bf16_only_where_it_is_clearly_faster(tmp_path, timings, bf16, expected):
    timings({**SECONDS, "bf16 channels-last": bf16, "bf16 contiguous": bf16})
    assert choose(CPU, tmp_path) == (expected, LAST)


@pytest.mark.parametrize(
    ("contiguous", "expected"), [(0.41, CONTIGUOUS), (0.42, LAST), (1.0, LAST)]
)
def test_channels_last_unless_the_other_is_clearly_faster(tmp_path, timings, contiguous, expected):
    timings({**SECONDS, "bf16 contiguous": contiguous})
    assert choose(CPU, tmp_path) == ("bf16", expected)


def test_the_layout_is_that_of_the_chosen_precision(tmp_path, timings):
    timings({**SECONDS, "fp32 contiguous": 0.7, "bf16 contiguous": 0.6})
    assert choose(CPU, tmp_path) == ("bf16", LAST)
    assert choose(CPU, tmp_path, precision="fp32") == ("fp32", CONTIGUOUS)


def test_what_is_given_is_not_chosen(tmp_path, timings):
    asked = timings({**SECONDS, "bf16 contiguous": 0.1})
    assert choose(CPU, tmp_path, precision="fp32", layout="contiguous") == ("fp32", CONTIGUOUS)
    assert not asked
    assert choose(CPU, tmp_path) == ("bf16", CONTIGUOUS)
    assert choose(CPU, tmp_path, precision="fp32") == ("fp32", LAST)
    assert choose(CPU, tmp_path, layout="channels-last") == ("bf16", LAST)
    assert asked == [
        sorted(SECONDS),
        ["fp32 channels-last", "fp32 contiguous"],  # not what would take seconds for nothing
        ["bf16 channels-last", "fp32 channels-last"],
    ]


def test_a_machine_is_measured_once(tmp_path, timings):
    asked = timings(SECONDS)
    choose(CPU, tmp_path)
    asked_again = timings({**SECONDS, "bf16 channels-last": 2.0, "bf16 contiguous": 2.0})
    assert choose(CPU, tmp_path) == ("bf16", LAST)
    assert choose(CPU, tmp_path / "other") == ("fp32", LAST)
    assert asked == asked_again == [sorted(SECONDS)]
    timings({**SECONDS, "fp32 contiguous": 0.1})
    assert choose(CPU, tmp_path, precision="fp32") == ("fp32", CONTIGUOUS)
    timings(SECONDS)
    assert choose(CPU, tmp_path, precision="fp32") == ("fp32", CONTIGUOUS)


def test_runs_that_begin_together_choose_alike(tmp_path, monkeypatch):
    faster = iter([{**SECONDS, "bf16 channels-last": 0.1}, {**SECONDS, "fp32 contiguous": 0.1}])

    def measure(device, names):
        time.sleep(0.2)
        return next(faster)

    monkeypatch.setattr(convolutions, "_measure", measure)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: choose(CPU, tmp_path), range(2))
    assert first == second == ("bf16", LAST)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[1]", "null", '"text"', '{"MACHINE": "fp32"}', '{"MACHINE": [1.0]}'),
        '{"MACHINE": {"fp32 channels-last": 1.0}}',
        json.dumps({"MACHINE": {**SECONDS, "bf16 contiguous": None}}),
        json.dumps({"MACHINE": {**SECONDS, "bf16 contiguous": -1.0}}),
    ],
)
def test_a_record_that_makes_no_sense_is_measured_anew(tmp_path, timings, content, monkeypatch):
    monkeypatch.setattr(convolutions, "device_name", lambda device: "MACHINE")
    machine = f"MACHINE, torch {torch.__version__}"
    (tmp_path / "convolutions.json").write_text(content.replace("MACHINE", machine))
    timings(SECONDS)
    assert choose(CPU, tmp_path) == ("bf16", LAST)
    assert json.loads((tmp_path / "convolutions.json").read_text()) == {machine: SECONDS}


@pytest.mark.parametrize("choice", convolutions._CHOICES.values())
def test_what_is_timed_has_the_layout_and_precision_of_its_choice(choice):
    """Forward and backward, images and weights alike."""
    precision, layout = choice
    run = convolutions._convolution(CPU, *choice)
    with Convolutions() as watch:
        run()
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision], layout == LAST
    forward, backward = watch.seen.values()
    assert forward == [expected] * 2
    assert backward == [expected] * 3


def test_the_shortest_time_counts_and_what_is_hopeless_on_few_images_is_timed_on_no_more(
    monkeypatch,
):
    few = [(1.0,), (2.0, 9.0), (4.0, 3.0), (8.0,)]  # the last two take three times the first
    all_ = [(9.0, 5.0, 7.0), (6.0, 8.0, 9.0)]
    rounds = iter([few, all_])

    def interleaved(timers, **repeated):
        prepared = next(rounds)
        assert len(timers) == len(prepared)
        return prepared

    monkeypatch.setattr(convolutions, "interleaved", interleaved)
    assert convolutions._measure(CPU, SECONDS) == dict(
        zip(SECONDS, (5.0, 6.0, 16 * 3.0, 16 * 8.0), strict=True)
    )


def test_what_is_timed_is_warm_and_timed_more_than_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        convolutions, "_convolution", lambda device, *choice, fewer: partial(calls.append, choice)
    )
    convolutions._shortest(CPU, SECONDS, seconds=0.0)
    assert calls == 4 * list(convolutions._CHOICES.values())  # once before, then three times


def test_few_images_are_a_sixteenth_of_all():
    operations = [
        sum(
            one.operations
            for one in operators_of(convolutions._convolution(CPU, "fp32", LAST, fewer=fewer))
        )
        for fewer in (convolutions._FEWER, 1)
    ]
    assert operations[1] == 16 * operations[0] > 0


def test_the_real_measurement_takes_time_and_draws_from_no_global_stream():
    before = torch.default_generator.get_state()
    found = convolutions._measure(CPU, SECONDS)
    assert found.keys() == SECONDS.keys()
    assert min(found.values()) > 0
    assert torch.equal(torch.default_generator.get_state(), before)


@pytest.mark.parametrize("name", SHEETS)
def test_a_gpu_is_measured_by_more_than_launches(name):
    """As far as the plan's model tells, bf16 comes out clearly faster on every card it knows."""
    device = Roofline.of(SHEETS[name])
    times = timing._IMAGES_OF_A_GPU // timing._IMAGES
    seconds = {}
    for precision in ("fp32", "bf16"):
        few = operators_of(convolutions._convolution(CPU, precision, LAST))
        many = tuple(
            replace(one, operations=one.operations * times, num_bytes=one.num_bytes * times)
            for one in few
        )
        seconds[precision] = device.seconds(PassCost(operators=many, saved=0, weights=0))
    assert seconds["fp32"] > 1.2 * seconds["bf16"]

import json
from dataclasses import replace

import pytest
import timm
import torch

from benchmark import compute
from benchmark.compute import Compute, choose_precision, find_device
from benchmark.planning.devices import Roofline
from benchmark.planning.network_cost import Pass, operators_of
from benchmark.planning.sheets import SHEETS
from benchmark.spec import UsageError

CPU = torch.device("cpu")


def test_auto_is_a_gpu_if_there_is_one():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_told_in_one_line(name):
    with pytest.raises(UsageError, match=f"^--device {name}: .*try auto or cpu$") as e:
        find_device(name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["gpu", "", "mps", "meta"])
def test_a_device_that_nothing_was_written_for_is_refused(name):
    with pytest.raises(
        UsageError, match=f"^--device {name}: not supported; expected auto, cpu or cuda"
    ):
        find_device(name)


@pytest.fixture
def timings(monkeypatch):
    """Pretend that a convolution takes so long, and count how often that is asked."""

    def pretend(**seconds):
        asked = []

        def measure(device, precision):
            asked.append(precision)
            return seconds[precision]

        monkeypatch.setattr(compute, "_convolution_seconds", measure)
        return asked

    return pretend


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (0.9, "fp32"), (3.0, "fp32")])
def test_bf16_only_where_it_is_clearly_faster(tmp_path, timings, bf16, expected):
    timings(fp32=1.0, bf16=bf16)
    assert choose_precision(CPU, tmp_path) == expected


def test_a_machine_is_measured_once(tmp_path, timings):
    asked = timings(fp32=1.0, bf16=0.5)
    choose_precision(CPU, tmp_path)
    asked_again = timings(fp32=1.0, bf16=2.0)
    assert choose_precision(CPU, tmp_path) == "bf16"
    assert choose_precision(CPU, tmp_path / "other") == "fp32"
    assert asked == asked_again == ["fp32", "bf16"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"MACHINE": "fp8"}', '"text"'])
def test_a_record_that_makes_no_sense_is_measured_anew(tmp_path, timings, content, monkeypatch):
    monkeypatch.setattr(compute, "device_name", lambda device: "MACHINE")
    machine = f"MACHINE, torch {torch.__version__}"
    (tmp_path / "precision.json").write_text(content.replace("MACHINE", machine))
    timings(fp32=1.0, bf16=0.5)
    assert choose_precision(CPU, tmp_path) == "bf16"
    assert json.loads((tmp_path / "precision.json").read_text()) == {machine: "bf16"}


def test_the_real_measurement_takes_time_and_draws_from_no_global_stream():
    before = torch.default_generator.get_state()
    assert compute._convolution_seconds(CPU, "fp32") > 0
    assert torch.equal(torch.default_generator.get_state(), before)


@pytest.mark.parametrize("name", SHEETS)
def test_a_gpu_is_measured_by_more_than_launches(name):
    """As far as the plan's model tells, bf16 comes out clearly faster on every card it knows."""
    device, times = Roofline.of(SHEETS[name]), compute._IMAGES_OF_A_GPU // compute._IMAGES
    seconds = {}
    for precision in ("fp32", "bf16"):
        few = operators_of(compute._convolution(CPU, precision, compute._IMAGES))
        many = tuple(
            replace(one, operations=one.operations * times, num_bytes=one.num_bytes * times)
            for one in few
        )
        seconds[precision] = device.seconds(Pass(operators=many, saved=0, weights=0))
    assert seconds["fp32"] > 1.2 * seconds["bf16"]


def test_an_environment_does_not_decide_on_tf32(monkeypatch):
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, True
        compute.choose_tf32()
        assert [place.allow_tf32 for place in places] == [True, False]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    gpu = Compute(torch.device("cuda"), "fp32")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert gpu.settings["tf32"]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert not gpu.settings["tf32"]


def test_images_are_laid_out_channels_last():
    assert Compute(CPU, "fp32").memory_format == torch.channels_last


def test_all_that_moves_numbers_is_in_the_settings():
    one = Compute(torch.device("cpu"), "fp32", threads=1)
    versions = {"torch": str(torch.__version__), "timm": timm.__version__}
    assert one.settings == {"device": "cpu", "precision": "fp32", "threads": 1, **versions}
    assert one.teacher_settings == {**one.settings, "threads": None}
    assert Compute(torch.device("cpu"), "fp32", threads=2).settings != one.settings

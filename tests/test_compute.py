from typing import get_args

import pytest
import timm
import torch

from benchmark.compute import Compute, find_device
from benchmark.network import Layout
from benchmark.spec import UsageError

CPU = torch.device("cpu")


def test_auto_is_a_gpu_if_there_is_one():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "cuda:x"])
def test_a_device_that_is_not_here_is_told_in_one_line(name):
    with pytest.raises(UsageError, match=f"^--device {name}: .*try auto or cpu$") as e:
        find_device(name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["gpu", "", "mps", "meta", "cpu:7"])
def test_a_device_that_nothing_was_written_for_is_refused(name):
    with pytest.raises(
        UsageError, match=f"^--device {name}: not supported; expected auto, cpu or cuda"
    ):
        find_device(name)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_a_layout_is_that_of_images(layout):
    images = torch.empty(2, 3, 4, 4, memory_format=Compute(CPU, "fp32", layout).memory_format)
    assert (images.stride(1) == 1) == (layout == "channels-last")


def test_all_that_moves_numbers_is_in_the_settings():
    one = Compute(torch.device("cpu"), "fp32", threads=1)
    versions = {"torch": str(torch.__version__), "timm": timm.__version__}
    assert one.settings == {
        "device": "cpu",
        "precision": "fp32",
        "layout": "channels-last",
        "threads": 1,
        **versions,
    }
    assert one.teacher_settings == {**one.settings, "threads": None}
    assert Compute(torch.device("cpu"), "fp32", threads=2).settings != one.settings

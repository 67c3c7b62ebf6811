import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

RECORDED = sorted((Path(__file__).parent / "fixtures").glob("*.safetensors"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_numbers_say_where_they_come_from(path):
    with safe_open(path, "pt") as file:
        origin = json.loads(file.metadata()["provenance"])
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert re.fullmatch(r"[0-9a-f]{40}|v\d+\.\d+\.\d+", origin["commit"])
    assert re.fullmatch(r"[\w-]+/[\w-]+", origin["repository"].split()[0])
    assert origin["files"]
    assert origin["functions"]
    assert all(isinstance(name, str) for name in origin["files"] + origin["functions"])
    assert re.match(r"\d+\.\d+\.\d+", origin["torch"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", origin["date"])
    assert len(origin["computed"]) > 50
    assert origin["dtype"] == "float64"
    assert {tensor.dtype for tensor in tensors} <= {torch.float64, torch.int64}


def test_there_are_recorded_numbers_of_each_released_code():
    assert {path.stem for path in RECORDED} >= {"augmentation", "datm", "dsa", "idm", "zca"}

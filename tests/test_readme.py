"""What the README shows is what works."""

import re
from pathlib import Path

import torch

from benchmark import cli
from benchmark.loop import CheckpointedLoop
from benchmark.spec import Method

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_its_method_is_one(toy_problem):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    written = {"__name__": "mixed"}
    exec(code, written)
    method, problem = written["Mixed"](share=1.0), toy_problem(N=5)
    assert isinstance(method, Method)
    stored = method.distill(
        problem,
        generator=torch.Generator().manual_seed(0),
        checkpoint=CheckpointedLoop(None, description="mixed"),
    )
    real = {tuple(image.tolist()) for image in (problem.images / 255).flatten(1)}
    assert {tuple(image.tolist()) for image in stored["images"].flatten(1)} <= real
    assert sum(tensor.numel() for tensor in stored.values()) == problem.num_floats
    data = method.decode(stored, problem.shape)
    assert (data.images.shape[0], data.targets.shape) == (5, (1, 5, 6))


def test_its_commands_are_understood():
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```$", README, re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.partition("python -m benchmark ")[2] for line in lines]
    commands = [line.partition("  #")[0] for line in commands if line]
    assert len(commands) > 10
    for command in commands:
        cli.new_parser().parse_args(command.split())

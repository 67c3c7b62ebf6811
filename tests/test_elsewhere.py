"""On a device that is not there: every tensor in its place, the CPU's numbers, and where we wait.

See `elsewhere.py`. What a GPU itself does (kernels, streams, memory, reduced precision) is not
tried here.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmark import plugins
from benchmark.compute import Compute
from benchmark.execute import execute
from benchmark.experiment import Experiment
from benchmark.grid import cells
from benchmark.loop import CheckpointedLoop
from benchmark.store import Store
from tests.elsewhere import DEVICE, Elsewhere, ElsewhereGenerator, ElsewhereTensor

BILEVEL = {"real_batch": 16, "pool_size": 2, "max_age": 3, "inner_widths": (4, 4)}
BASES = {"num_image_bases": 5, "num_target_bases": 4, "approximation_steps": 5}
INNER = {"inner_batch": 4, "inner_widths": (4, 4)}
SETTINGS = {
    "krr-st": BILEVEL,
    "ours": {**BILEVEL, **BASES},
    "pca": BASES,
    "dsa": {"outer_steps_per_model": 3, "inner_epochs": 2, "real_batch": 4, **INNER},
    "idm": {
        "cross_entropy_weight": 0.5,
        "real_batch": 4,
        "birth_interval": 2,
        "inner_steps": 3,
        "meter_reset_interval": 0,
        "start": "quarters",
        "outer_lr": 0.1,
        "queue_size": 3,
        **INNER,
    },
    "datm": {
        "inner_steps": 2,
        "target_epochs": 1,
        "start_epochs": (0, 1, 2),
        "expansion_steps": 2,
        "image_lr": 1.0,
        "logit_lr": 1.0,
        "lr_lr": 1e-7,
        "threshold": 1.0,
        "initial_images": "correct",
        "initial_lr": 0.02,
        "num_experts": 1,
        "expert_epochs": 3,
        "expert_lr": 0.05,
        **INNER,
    },
}
LENGTH = {"dsa": "num_inner_models"}  # what sets the number of outer steps, of others `outer_steps`

# Where the host waits for the device, as often in a step: the fewer, the further it runs ahead.
# Apart from what is logged, read fifty steps at a time, and the weights of new networks or experts.
WAITS = {
    "krr-st": {},
    "ours": {},
    "dsa": {"differentiable_augmentation.draw_each": 1 + 2 / 3 * 2},
    "idm": {"differentiable_augmentation.draw_each": 1, "_network_queue.choose": 2},
    "datm": {
        "differentiable_augmentation.draw_each": 1,
        "datm._optimise": 2,
        "datm._draw_integer": 1,
    },
}


def test_what_a_gpu_would_refuse_is_refused():
    with Elsewhere() as elsewhere:
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        with pytest.raises(RuntimeError, match="elsewhere:0"):
            there + here
        with pytest.raises(RuntimeError, match="generator on cpu"):
            torch.rand(3, device=DEVICE, generator=torch.Generator())
        with pytest.raises(RuntimeError, match="generator on elsewhere:0"):
            here.uniform_(generator=ElsewhereGenerator())
        assert (there * torch.tensor(2.0)).cpu().tolist() == [2.0, 2.0, 2.0]  # a scalar may be here
        assert there[torch.tensor([0, 1])].device == DEVICE  # and so may indices
    assert not elsewhere.waits  # of ours: all was the test's own


def distilled(name, problem, generator, *, steps):
    loop = CheckpointedLoop(None, description=name)
    length = {LENGTH.get(name, "outer_steps"): steps} if name in WAITS else {}
    method = plugins.load("methods", name)(**SETTINGS.get(name, {}), **length)
    return method.distill(problem, generator=generator, checkpoint=loop)


@pytest.fixture
def problem(toy_problem, labelled_problem):
    """Make the problem of a method on either device."""

    def make(name, device):
        labelled = plugins.load("methods", name).supervision == "labels"
        here = labelled_problem(N=9) if labelled else toy_problem()
        if device != DEVICE:
            return here

        return replace(
            here,
            images=here.images.to(DEVICE),
            representations=cache(lambda view: here.representations(view).to(DEVICE)),
            labels=None if here.labels is None else here.labels.to(DEVICE),
            new_network=replace(here.new_network, device=DEVICE),
        )

    return make


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_a_method_makes_there_what_it_makes_here(name, problem):
    here = distilled(name, problem(name, "cpu"), torch.Generator().manual_seed(3), steps=3)
    with Elsewhere():
        stream = ElsewhereGenerator().manual_seed(3)
        there = distilled(name, problem(name, DEVICE), stream, steps=3)
    assert all(isinstance(tensor, ElsewhereTensor) for tensor in there.values())
    assert here.keys() == there.keys()
    assert all(torch.equal(there[part].here, tensor) for part, tensor in here.items())


@pytest.mark.parametrize("name", WAITS)
def test_a_method_waits_for_the_device_no_more_than_it_has_to(name, problem):
    counts = []
    for steps in (2, 5):
        with Elsewhere() as elsewhere:
            stream = ElsewhereGenerator().manual_seed(3)
            distilled(name, problem(name, DEVICE), stream, steps=steps)
        counts.append(elsewhere.waits)
    more = counts[1] - counts[0]
    steps = 3 * SETTINGS[name].get("outer_steps_per_model", 1)
    often = {place: count / steps for place, count in more.items()}
    now_and_then = {"loop._flush", "rng.seeded", "network_factory.__call__", "_experts.weights"}
    assert now_and_then >= often.keys() - WAITS[name].keys()
    assert {place: often[place] for place in WAITS[name]} == pytest.approx(WAITS[name])


def test_experts_wait_no_more_often_if_they_take_more_steps(problem):
    counts = []
    for batch in (9, 2):
        method = plugins.load("methods", "datm")(
            **SETTINGS["datm"], outer_steps=1, expert_batch=batch
        )
        with Elsewhere() as elsewhere:
            stream = ElsewhereGenerator().manual_seed(3)
            loop = CheckpointedLoop(None, description="datm")
            method.distill(problem("datm", DEVICE), generator=stream, checkpoint=loop)
        places = "_experts.", "differentiable_augmentation."
        counts.append({k: n for k, n in elsewhere.waits.items() if k.startswith(places)})
    assert counts[0] == counts[1] != {}


@pytest.mark.parametrize("teacher", plugins.names("teachers"))
def test_a_suite_is_run_there_with_the_same_numbers(teacher, toy_suite, tmp_path):
    recipe = {**toy_suite.settings["supervised"], "warmup_epochs": 0}
    projector = {"projector_hidden": 8, "projector_output": 8}
    suite = replace(
        toy_suite,
        teacher=teacher,
        methods=("ours",),
        controls=("random-labels", "teacher"),
        ablation=(),
        students=("convnet",),
        budgets=(6,),
        student_steps=3,
        settings={
            **toy_suite.settings,
            "supervised": recipe,
            "barlow-twins": {**recipe, **projector},
        },
    )

    def numbers(device):
        compute = Compute(torch.device(device), "fp32")
        store = Store(tmp_path / str(device))
        experiment = Experiment(suite, store=store, compute=compute)
        experiment.prepare()
        outcome = execute(cells(suite), experiment, jobs=1, done=lambda rows: None)
        assert not outcome.failed and not outcome.skipped
        return [(row.label, row.probe, row.draws, row.strength) for row in outcome.rows]

    with Elsewhere():
        there = numbers(DEVICE)
    assert there == numbers("cpu")
    assert Counter(label for label, *_ in there).keys() == {"ours", "random-labels", "teacher"}

"""What every method must keep, whoever wrote it: a new file is tested on arrival."""

import dataclasses
import difflib
import json
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark import plugins, views
from benchmark.figures import approximation, convergence
from benchmark.loop import CheckpointedLoop
from benchmark.pretrain import RECIPES, Length, pretrain
from benchmark.settings import replace
from benchmark.spec import Method

BILEVEL = {
    "outer_steps": 3,
    "real_batch": 8,
    "pool_size": 2,
    "max_age": 2,
    "inner_widths": (4, 4),
    "distilled_batch": 16,
}
CHEAP = {  # a method that is not here runs as it is published
    "datm": {
        "inner_steps": 2,
        "target_epochs": 1,
        "start_epochs": (0, 1, 2),
        "expansion_steps": 2,
        "inner_batch": 4,
        "image_lr": 1.0,
        "logit_lr": 0.5,
        "lr_lr": 1e-5,
        "threshold": 10.0,
        "initial_images": "real",
        "outer_steps": 3,
        "inner_widths": (4, 4),
        "num_experts": 1,
        "expert_epochs": 3,
        "expert_batch": 30,
    },
    "dsa": {
        "num_inner_models": 2,
        "outer_steps_per_model": 2,
        "inner_epochs": 1,
        "real_batch": 4,
        "inner_widths": (4, 4),
    },
    "idm": {
        "outer_steps": 3,
        "cross_entropy_weight": 0.5,
        "real_batch": 4,
        "birth_interval": 2,
        "inner_steps": 1,
        "meter_reset_interval": 0,
        "start": "quarters",
        "queue_size": 4,
        "inner_batch": 8,
        "inner_widths": (4, 4),
    },
    "krr-st": BILEVEL,
    "ours": {**BILEVEL, "approximation_steps": 5},
    "pca": {"approximation_steps": 5},
}
OPTIONAL = ("check", "expect_own", "forecast", "inner_model", "views")  # looked up by name
DETERMINISTIC = {"full", "untrained"}
NAMES = plugins.names("methods")


def method_of(name):
    return plugins.load("methods", name)(**CHEAP.get(name, {}))


@pytest.fixture
def problem(toy_problem):
    """A toy problem with labels for those who may see them."""
    plain = toy_problem(N=6)

    def make(method):
        if method.supervision == "none":
            return plain
        return dataclasses.replace(plain, labels=torch.arange(60) % 3, num_classes=3)

    return make


def distil(method, problem, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loop = CheckpointedLoop(None, description="toy")
    return method.distill(problem, generator=generator, checkpoint=loop)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_plain_and_frozen(name):
    method = method_of(name)
    assert isinstance(method, Method)
    assert method.supervision in ("none", "labels")
    json.dumps(dataclasses.asdict(method), allow_nan=False)
    assert hash(method) == hash(method_of(name))
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, None)


def nearly(name):
    """Return what a method may have and `name` may have been meant for."""
    return difflib.get_close_matches(name, OPTIONAL, n=1, cutoff=0.85)


def test_a_slip_is_near_to_what_was_meant():
    slips = {"chek": "check", "forcast": "forecast", "expects_own": "expect_own", "view": "views"}
    assert {slip: nearly(slip) for slip in slips} == {s: [meant] for s, meant in slips.items()}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_slip_for_what_a_method_may_have(name):
    kind = plugins.load("methods", name)
    named = {*dir(kind), *(field.name for field in dataclasses.fields(kind))} - {*OPTIONAL}
    assert {attribute for attribute in named if nearly(attribute)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_every_bit(problem, name):
    method = method_of(name)
    first, again, other = (distil(method, problem(method), seed=seed) for seed in (0, 0, 1))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[part], again[part]) for part in first)
    alike = first.keys() == other.keys() and all(
        first[part].shape == other[part].shape and torch.equal(first[part], other[part])
        for part in first
    )
    assert alike == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", NAMES)
def test_loops_log_what_figures_draw(problem, name):
    method = method_of(name)
    loop = CheckpointedLoop(None, description="toy")
    method.distill(problem(method), generator=torch.Generator().manual_seed(0), checkpoint=loop)
    logged = {
        where: {part for point in points for part in point}
        for where, points in loop.history.items()
    }
    if convergence._LOOP in logged:
        assert logged[convergence._LOOP] & {*convergence._LOSSES}
    if approximation._LOOP in logged:
        names = logged[approximation._LOOP] - {"step"}
        assert any(name.startswith(approximation._PREFIX) for name in names)
    assert (name in ("ours", "pca")) == (approximation._LOOP in logged)


@pytest.mark.parametrize("name", NAMES)
def test_no_more_is_stored_than_the_budget_allows(problem, name):
    method = method_of(name)
    stored = distil(method, problem(method))
    numbers = sum(tensor.numel() for tensor in stored.values())
    num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in stored.values())
    allowed = problem(method).num_floats
    if method.limit != "none":
        assert 0 < (numbers if method.limit == "numbers" else num_bytes / 4) <= allowed
    assert not any(tensor.requires_grad for tensor in stored.values())
    assert all(tensor.isfinite().all() for tensor in stored.values())


def global_states():
    """Python's own is left out: the shape checks of the tests draw from it."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_touched(problem, name):
    """Neither the global random states, nor the problem, nor what autograd is set to."""
    method = method_of(name)
    given = problem(method)

    @cache
    def representations(view):
        return given.representations(view).clone()

    seen = dataclasses.replace(given, images=given.images.clone(), representations=representations)
    before = global_states()
    distil(method, seen)
    assert global_states() == before
    assert torch.is_grad_enabled()
    assert torch.equal(seen.images, given.images)
    for view in ("identity", "rot90"):
        assert torch.equal(representations(view), given.representations(view))
    if seen.labels is not None:
        assert torch.equal(seen.labels, torch.arange(60) % 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_alone_gives_the_students_training_set(problem, whole, tmp_path, name):
    method = method_of(name)
    given = problem(method)
    stored = distil(method, given)
    save_file({part: x.contiguous() for part, x in stored.items()}, tmp_path / "set.safetensors")
    read = load_file(tmp_path / "set.safetensors")
    before = {part: x.clone() for part, x in read.items()}
    decoded = method_of(name).decode(read, given.shape)
    assert all(torch.equal(read[part], before[part]) for part in read)
    if decoded is None:
        assert stored == {}
        return
    images, targets = whole(decoded)
    expected = whole(method.decode(stored, given.shape))
    assert torch.equal(images, expected[0])
    assert torch.equal(targets, expected[1])

    m = len(images)
    assert m > 0
    assert images.shape == decoded.images.shape == (m, *given.images.shape[1:])
    assert targets.shape == decoded.targets.shape
    assert targets.shape[:2] == (len(decoded.views), m)
    assert set(decoded.views) <= set(views.VIEWS)
    assert targets.dtype == torch.float32
    assert images.dtype in (torch.uint8, torch.float32)
    assert decoded.objective == {"none": "mse", "labels": "cross-entropy"}[method.supervision]
    replace(decoded.objective, RECIPES[decoded.objective], decoded.own.recipe)
    if decoded.objective == "mse":
        assert targets.shape[2] == given.representations("identity").shape[1]
    else:
        assert targets.shape[2] == 3
        torch.testing.assert_close(targets.sum(2), torch.ones(len(decoded.views), m))
        assert (targets >= 0).all()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if method_of(name).supervision == "labels"]
)
def test_who_needs_labels_says_so_in_one_line(problem, name):
    method = method_of(name)
    blind = dataclasses.replace(problem(method), labels=None, num_classes=None)
    with pytest.raises(plugins.UsageError, match="labels"):
        distil(method, blind)


def on(problem, device):
    """Return a problem that lives on a device, its networks laid out as students are."""
    moved = dataclasses.replace(problem, images=problem.images.to(device))
    return dataclasses.replace(
        moved,
        representations=lambda view: problem.representations(view).to(device),
        teacher=lambda images: problem.teacher(images.cpu()).to(device),
        labels=None if problem.labels is None else problem.labels.to(device),
        new_network=dataclasses.replace(
            problem.new_network, device=torch.device(device), memory_format=torch.channels_last
        ),
    )


@pytest.mark.parametrize("name", NAMES)
def test_students_learn_on_any_device_from_what_was_distilled_there(
    name, device, toy_problem, labelled_problem
):
    method = method_of(name)
    labelled = method.supervision == "labels"
    problem = on(labelled_problem(N=6) if labelled else toy_problem(N=6), device)
    generator = torch.Generator(device).manual_seed(0)
    loop = CheckpointedLoop(None, description=name)
    stored = method.distill(problem, generator=generator, checkpoint=loop)
    assert all(tensor.device.type == device for tensor in stored.values())
    data = method.decode(stored, problem.shape)
    if data is None:
        return
    student = problem.new_network(
        "convnet", data.targets.shape[2], torch.Generator(), widths=(8, 8)
    )
    pretrain(
        student,
        data,
        Length(steps=30),
        recipe=dataclasses.replace(RECIPES[data.objective], batch_size=16, lr=0.01),
        generator=generator,
        checkpoint=loop,
    )
    losses = [point["loss"] for point in loop.history["pretraining"]]
    assert sum(losses[-5:]) < sum(losses[:5])

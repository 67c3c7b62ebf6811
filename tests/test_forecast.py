"""What methods and teachers say of themselves, against hand counts and what they then do."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark import plugins
from benchmark.kernels._cost import cost_of
from benchmark.loop import CheckpointedLoop
from benchmark.methods.datm import Datm
from benchmark.methods.dsa import Dsa
from benchmark.methods.idm import Idm
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.teachers.barlow_twins import BarlowTwins
from benchmark.teachers.supervised import Supervised
from benchmark.workload import Architecture, Forecast, TeacherOutline

LOOP = {"outer_steps": 5, "real_batch": 8, "pool_size": 2, "max_age": 4, "inner_widths": (8, 16)}
SMALL = {
    "krr-st": KrrSt(**LOOP),
    "ours": Ours(**LOOP, bases=False, approximation_steps=3, distilled_batch=8),
    "dsa": Dsa(
        num_inner_models=3,
        outer_steps_per_model=2,
        inner_epochs=2,
        real_batch=5,
        inner_widths=(8, 16),
    ),
    "idm": Idm(
        outer_steps=6,
        cross_entropy_weight=0.5,
        real_batch=5,
        birth_interval=2,
        inner_steps=2,
        meter_reset_interval=0,
        start="quarters",
        queue_size=4,
        inner_batch=8,
        inner_widths=(8, 16),
    ),
    "datm": Datm(
        inner_steps=5,
        target_epochs=1,
        start_epochs=(0, 1, 2),
        expansion_steps=2,
        inner_batch=4,
        image_lr=1.0,
        logit_lr=0.5,
        lr_lr=1e-5,
        threshold=10.0,
        initial_images="real",
        outer_steps=3,
        inner_widths=(8, 16),
        num_experts=2,
        expert_epochs=3,
        expert_batch=12,
    ),
}
CHEAP = {
    **SMALL,
    "pca": plugins.load("methods", "pca")(approximation_steps=2),
}


def shapes_of(problem):
    """Return the problem as a plan has it: shapes, and labels."""

    def representations(view):
        return problem.representations(view).to("meta")

    return dataclasses.replace(
        problem, images=problem.images.to("meta"), representations=representations
    )


def problem_for(method, labelled_problem, toy_problem):
    # a budget whose numbers hold DATM's logits as well
    if method.supervision == "labels":
        return labelled_problem(N=6)
    return toy_problem(N=8)


def distil(method, problem):
    loop = CheckpointedLoop(None, description="toy")
    generator = torch.Generator().manual_seed(0)
    return method.distill(problem, generator=generator, checkpoint=loop)


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_students_see_as_many_pairs_as_were_forecast(name, labelled_problem, toy_problem):
    method = CHEAP.get(name) or plugins.load("methods", name)()
    problem = problem_for(method, labelled_problem, toy_problem)
    forecast = method.forecast(shapes_of(problem))
    assert isinstance(forecast, Forecast)
    decoded = method.decode(distil(method, problem), problem.shape)
    pairs = 0 if decoded is None else len(decoded.views) * decoded.images.shape[0]
    assert forecast.pairs == pairs


@pytest.mark.parametrize("name", SMALL)
def test_convolutions_are_nearly_as_many_as_were_forecast(name, labelled_problem, toy_problem):
    """Counted while the method runs; a training pass to the images alone is counted roughly."""
    method = SMALL[name]
    problem = problem_for(method, labelled_problem, toy_problem)
    forecast = method.forecast(shapes_of(problem))
    expected = 0.0
    for work in (*forecast.work, *forecast.once):
        if work.network is not None:
            made = problem.new_network(
                work.network.model,
                work.network.num_outputs,
                torch.Generator().manual_seed(0),
                **dict(work.network.settings),
            )
            cost = cost_of(made, problem.shape)
            expected += work.forward * cost.forward
            expected += work.training * (3 * cost.forward - cost.first)
    with FlopCounterMode(display=False) as counter:
        distil(method, problem)
    by_operator = counter.get_flop_counts()["Global"]
    done = sum(n for packet, n in by_operator.items() if "convolution" in str(packet))
    assert expected == pytest.approx(done, rel=0.12)


def test_an_outer_loop_is_counted_as_by_hand(toy_problem):
    """Real images forwards, distilled ones to the images, and inner steps after the warm-up."""
    real, distilled, inner = SMALL["krr-st"].forecast(shapes_of(toy_problem(N=8))).work
    assert real.network == Architecture.of("convnet", 6, {"widths": (8, 16)})
    assert (real.forward, real.batch) == (5 * 8, 8)
    assert distilled.training == pytest.approx(5 * 8 * 2 / 3)
    assert (inner.training, inner.batch) == ((5 + 2 * 2) * 8, 8)
    s, b, p, d = 8, 8, 16 * 2 * 2, 6
    ridge = 6 * s * s * p + 4 * b * s * p + 6 * b * s * d + 6 * s * s * d + s**3
    assert (real.products, real.tf32_products) == (5 * ridge, 0)
    in_bf16 = dataclasses.replace(shapes_of(toy_problem(N=8)), precision="bf16")
    real, *_ = SMALL["krr-st"].forecast(in_bf16).work
    kernels = 6 * s * s * p + 4 * b * s * p
    assert (real.products, real.tf32_products) == (5 * (ridge - kernels), 5 * kernels)


def test_augmented_copies_are_represented_once_and_held(toy_problem):
    problem, kept = shapes_of(toy_problem(N=8)), 4 * 3 * 60 * 6  # three copies of 60 images, d = 6
    plain, anew, copies = (
        dataclasses.replace(SMALL["krr-st"], **changes).forecast(problem)
        for changes in ({}, {"augment_real": True}, {"augment_real": True, "augmented_copies": 3})
    )
    assert [sum(work.represented for work in made.work) for made in (plain, anew, copies)] == [
        *(0, 5 * 8, 0)
    ]
    assert plain.once == anew.once == ()
    assert [work.represented for work in copies.once] == [3 * 60]
    assert (copies.disk, copies.held) == (kept, plain.held + kept)


def test_drawn_views_and_pairs_are_counted(toy_problem):
    """One of four views shown, and no more than eight pairs a step: two images in four views."""
    method = dataclasses.replace(SMALL["ours"], outer_views="one")
    _, real, distilled, inner, fitting = method.forecast(shapes_of(toy_problem(N=20))).work
    m = method.storage(toy_problem(N=20)).m
    assert m == 20 * (3 * 64 + 6) // (3 * 64 + 6 + 0) - 1  # the networks take one image's place
    assert real.forward == 5 * 8
    assert distilled.training == pytest.approx(5 * 8 * 2 / 3)  # eight images in one view
    assert inner.training == (5 + 2 * 2) * 4 * 2
    assert (inner.captured, inner.launches) == (True, (5 + 2 * 2) * 3)  # two inputs, and the graph
    assert fitting.operators > 0


def test_class_matches_are_counted_as_by_hand(labelled_problem):
    """Three models, two steps each on three classes of two images; one training between."""
    real, distilled, _, _, inner = SMALL["dsa"].forecast(shapes_of(labelled_problem(N=6))).work
    assert real.training == 3 * 2 * 3 * 5
    assert distilled.training == pytest.approx(3 * 2 * 3 * 2 * 7 / 3)
    assert inner.training == 3 * 1 * 2 * 6
    assert (real.batch, distilled.batch, inner.batch) == (5, 2, 6)
    assert (real.launches, distilled.launches) == (3 * 2 * 3 * 7, 0)  # four in, two out, the graph
    assert (real.captured, distilled.captured, inner.captured) == (True, True, False)
    assert [work.network.precision for work in (real, distilled, inner)] == [None, "fp32", "fp32"]
    assert all(work.network.default_layout for work in (real, distilled, inner))


def test_feature_matches_are_counted_as_by_hand(labelled_problem):
    """Six steps, and two of each of four judges; three classes of eight views, five real images.

    All real images are augmented together, and all views; inner training augments nothing.
    """
    problem = shapes_of(labelled_problem(N=6))
    real, distilled, inner = SMALL["idm"].forecast(problem).work
    steps = 6 + 2 * 4
    assert (real.forward, real.batch) == (steps * 3 * 5, 3 * 5)
    assert distilled.training == pytest.approx(steps * 3 * 8 * 2 / 3)
    assert inner.training == 6 * 2 * 2 * 8
    drawn = 6 * (1 - (5 / 6) ** 3)  # operations among three draws of six, on average
    assert real.operators == pytest.approx(steps * (3 * drawn * (18 + 2) + 3))
    bare = dataclasses.replace(SMALL["idm"], augmentations=())
    assert bare.forecast(problem).work[0].operators == steps * 3


@pytest.mark.parametrize("name", ["dsa", "idm", "datm"])
def test_what_is_not_augmented_is_counted_without(name, labelled_problem):
    problem = shapes_of(labelled_problem(N=6))
    usual, bare = (
        dataclasses.replace(SMALL[name], **changes).forecast(problem)
        for changes in ({}, {"augmentations": ()})
    )
    assert [work.training for work in bare.work] == [work.training for work in usual.work]
    gathered = {"dsa": 3 * 1 * 2, "idm": 6 * 2 * 2, "datm": 0}[name]  # batches of inner training
    assert bare.work[-1].operators == 10 * gathered
    for stage in ("work", "once") if name == "datm" else ("work",):
        assert sum(work.operators for work in getattr(bare, stage)) < sum(
            work.operators for work in getattr(usual, stage)
        )


def test_trajectories_are_counted_as_by_hand(labelled_problem):
    """Five steps in one segment, all with their graphs; in two, the first is run once before.

    Graphs of each step and of its gradient, that is; see `test_plan_memory`.
    """
    forecast = SMALL["datm"].forecast(shapes_of(labelled_problem(N=6)))
    labels, matched = forecast.work
    assert (matched.training, matched.graphs) == (3 * 4 * 3 * 5, 2 * 5)
    _, experts = forecast.once
    precisions = [work.network.precision for work in (labels, matched, experts)]
    assert precisions == ["fp32", None, "fp32"]
    assert experts.training == 2 * 2 * 3 * 36  # two gradients a step of 36 images an epoch
    weights = 8 * 27 + 8 + 16 + 16 * 72 + 16 + 32 + 3 * 16 * 4 + 3
    assert forecast.disk == pytest.approx(2 * 4 * 4 * weights)
    three, one = (
        dataclasses.replace(SMALL["datm"], keep_every=length).forecast(
            shapes_of(labelled_problem(N=6))
        )
        for length in (3, 1)
    )
    assert (three.work[1].training, three.work[1].graphs) == (3 * 4 * (2 + 3 * 5), 2 * 3)
    assert one.work[1].training == 3 * 4 * (4 + 3 * 5)


def outline(**changes):
    network = Architecture.of("resnet18", 10, {})
    known = {"network": network, "num_features": 512, "num_images": 1000, "num_classes": 10}
    return TeacherOutline(**{**known, "numel": 3072, **changes})


def test_a_teacher_sees_each_image_twice_without_labels():
    passes, looks = BarlowTwins(epochs=20, batch_size=300).forecast(outline()).work
    assert passes.training == 2 * 20 * 3 * 300
    layers = 512 * 2048 + 2 * 2048 * 2048
    assert passes.products == 60 * 300 * (2 * 3 * 2 * layers + 6 * 2048 * 2048)
    rounded, _ = BarlowTwins(epochs=20, batch_size=300).forecast(outline(precision="bf16")).work
    assert rounded.bf16_products == 60 * 300 * 2 * 3 * 2 * layers
    assert rounded.products == 60 * 300 * 6 * 2048 * 2048
    assert looks.forward == 3 * 1000  # every ten epochs, and at the end


def test_a_supervised_teacher_sees_nine_tenths_once():
    passes, _ = Supervised(epochs=20, batch_size=300).forecast(outline()).work
    assert passes.training == 20 * 3 * 300
    assert (
        passes.training
        == Supervised(epochs=20, batch_size=300).forecast(outline(num_images=1110)).work[0].training
    )


def test_a_forecast_is_no_part_of_the_code_that_keys_cover(tmp_path, monkeypatch):
    """A better forecast is no reason to distil anew."""
    with_it = """
from benchmark.workload import Forecast
from ._my_forecast import count

class Mine:
    step = 1
    def forecast(self, problem):
        return Forecast()
"""
    without = "class Mine:\n    step = 1\n"
    codes = []
    for number, (text, shared) in enumerate(
        [
            (with_it, "count = 1"),
            (with_it, "count = 2"),
            (without, ""),
            (without + " " * 4 + "x=2", ""),
        ]
    ):
        package = f"mine_{number}"
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "_my_forecast.py").write_text(shared)
        (folder / "mine.py").write_text(f"{text}\n__all__ = ['Mine']\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        module = __import__(f"{package}.mine", fromlist=["Mine"])
        monkeypatch.setattr(plugins, "load", lambda kind, name, found=module.Mine: found)
        codes.append(plugins.code_of("methods", "mine"))
    assert codes[0] == codes[1] == codes[2] != codes[3]

"""What probes are counted to take: which products are in bf16, against a solver that is watched."""

import math
from dataclasses import replace

import pytest
import torch

from benchmark.loop import CheckpointedLoop
from benchmark.operators import operators_of
from benchmark.planning.network_cost import PassCost
from benchmark.planning.probe_cost import (
    Probed,
    _turns,
    assumed_steps,
    probe_work,
    solver_steps,
)
from benchmark.probes import fair
from benchmark.probes.draws import in_tenths
from benchmark.probes.fair import FairProbe
from benchmark.probes.paper import PaperProbe
from benchmark.probing import NUM_DRAWS

MANY = Probed(n=5_000, num_test=1_000, p=64, k=10, labels_per_class=None)
FEW = Probed(n=5_000, num_test=1_000, p=640, k=10, labels_per_class=10)  # 100 images a draw


def test_bf16_takes_over_a_part_of_the_same_products():
    """Of a step only the products with features; most of all steps, but not all."""
    kind = FairProbe(tolerance=5e-4)
    (plain,), (led,) = (probe_work(kind, MANY, precision=how) for how in ("fp32", "bf16"))
    assert plain.bf16_products == 0
    assert led.products + led.bf16_products == pytest.approx(plain.products)
    steps = sum(part.all for part in solver_steps(kind, MANY))
    with_features = steps * 4 * MANY.n * MANY.k * MANY.p
    assert 0.8 * with_features < led.bf16_products < with_features
    assert led.num_bytes < plain.num_bytes


@pytest.mark.parametrize(
    ("kind", "sizes"), [(FairProbe(), FEW), (PaperProbe(), MANY), (PaperProbe(), FEW)]
)
def test_what_stays_in_higher_precision_is_counted_there(kind, sizes):
    """The paper probe as published; draws of fewer images than features in double precision."""
    plain, led = (probe_work(kind, sizes, precision=precision) for precision in ("fp32", "bf16"))
    assert plain == led
    assert all(work.products > 0 for work in plain)


def test_steps_of_the_paper_probe_are_replayed_and_nothing_else():
    steps, rest = probe_work(PaperProbe(steps=70), MANY)
    assert (steps.captured, steps.launches) == (True, 70 * 3)
    assert (rest.captured, rest.launches) == (False, 0)
    assert rest.operators == math.ceil(70 * PaperProbe().batch / MANY.n)


@pytest.mark.parametrize(("labels_per_class", "turns"), [(3, 3), (10, 5), (20, 3)])
def test_no_more_tenths_are_held_out_than_there_are(labels_per_class, turns):
    sizes = replace(FEW, labels_per_class=labels_per_class)
    labels = torch.arange(sizes.k).repeat_interleave(labels_per_class)
    subsets = torch.arange(len(labels)).expand(NUM_DRAWS, -1)
    _, tenth, num_tenths = in_tenths(labels, subsets, torch.Generator())
    found = FairProbe().num_turns(NUM_DRAWS * tenth, num_tenths=num_tenths)
    assert _turns(FairProbe(), sizes) == found == turns


def test_a_step_in_bf16_is_two_products_with_the_features(monkeypatch):
    """As in a fit that is watched: 4 q k p operations for each step, and for each start."""
    (n, p, k), expected = (300, 12, 3), []

    def spy(regression, start, **settings):
        solution = solve(regression, start, **settings)
        if regression.features.dtype == torch.bfloat16:
            b, q, _ = regression.features.shape
            expected.append(4 * b * q * k * p * (solution.steps + 1))
        return solution

    solve = fair.solve
    monkeypatch.setattr(fair, "solve", spy)
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % k
    features = torch.randn(n, p, generator=stream)
    features[:, 0] += labels

    def fit():
        FairProbe().fit(
            features,
            labels,
            subsets=torch.arange(n)[None],
            num_classes=k,
            generator=torch.Generator().manual_seed(1),
            checkpoint=CheckpointedLoop(None, description="toy"),
            precision="bf16",
        )

    counted = PassCost(operators=operators_of(fit), saved=0, weights=0).operations
    assert len(expected) > 2
    assert counted["matrix product bf16"] == sum(expected)


def test_what_is_assumed_is_said():
    assert "all in fp32" in assumed_steps("fp32")
    assert "in bf16 down to 0.0001" in assumed_steps("bf16")


@pytest.mark.parametrize(
    ("k", "tolerance", "choosing"),
    [(100, 1e-3, 125), (100, 1e-4, 125), (10, 1e-3, 86), (10, 1e-4, 86)],
)
def test_steps_are_assumed_to_be_about_what_was_counted(k, tolerance, choosing):
    """Those of a pretrained ConvNet on all images of CIFAR-100 and CIFAR-10."""
    kind = FairProbe(tolerance=tolerance)
    found, answer = solver_steps(kind, replace(MANY, k=k))
    assert found.all == pytest.approx(choosing, rel=0.3)
    for part in (found, answer):
        assert 0.3 * part.all < part.in_bf16 <= part.all
    weaker, _ = solver_steps(replace(kind, tolerance=kind.tolerance / 10), replace(MANY, k=k))
    assert weaker.all >= found.all


def test_only_a_strength_weaker_than_the_best_is_assumed_to_be_given_up():
    """The weakest of all tolerances is that of a solution, not of a look on the way."""
    (alone, _), (weaker, _) = (
        solver_steps(FairProbe(strengths=strengths), MANY) for strengths in ((1e-5,), (1e-3, 1e-4))
    )
    assert alone.in_bf16 < alone.all
    assert weaker.in_bf16 == weaker.all


def test_the_answer_is_assumed_at_a_strength_that_there_is():
    weak, weakest = (solver_steps(FairProbe(strengths=(s,)), MANY)[1].all for s in (1e-4, 1e-5))
    assert solver_steps(FairProbe(strengths=(1e-3,)), MANY)[1].all < weak < weakest

import json
import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy

from benchmark import probing
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.probes import fair, logistic
from benchmark.probes.draws import Draws, in_tenths
from benchmark.probes.fair import FairProbe
from benchmark.probes.linear import Classifiers, in_own_span
from benchmark.probes.logistic import Regression, Solution, one_hot, solve
from benchmark.probes.paper import PaperProbe
from benchmark.probing import NUM_DRAWS, PROBES, HeadProbe, LabelledFeatures, extract, probe
from benchmark.spec import NonFiniteError, UsageError
from tests.mortal import DeathError, Mortal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n=240, p=12, k=4, seed=0, spread=1.5):
    """Correlated features with an offset and a scale each, as those of a network."""
    stream = generator(seed)
    centres = torch.randn(k, p, generator=generator(99))
    labels = torch.randperm(n, generator=stream) % k
    mix = torch.randn(p, p, generator=generator(98)) / p**0.5
    noise = spread * torch.randn(n, p, generator=stream) @ mix
    scale = torch.logspace(-1, 1, p)
    features = (centres[labels] + noise) * scale + 3 * scale
    return LabelledFeatures(features=features, labels=labels, fingerprint=f"blobs {n} {p} {k}")


def test_the_head_is_scored_as_it_is():
    data = blobs(n=50, p=6, k=3)
    head = nn.Linear(6, 3)
    found = HeadProbe().score(head, data)
    right = (data.features @ head.weight.T + head.bias).argmax(1) == data.labels
    assert found.draws == (found.top1,) == (pytest.approx(100 * right.double().mean().item()),)
    assert (found.probe, found.labels_per_class, found.strength) == ("head", None, None)
    broken = replace(data, features=data.features * torch.nan)
    with pytest.raises(NonFiniteError, match="features of test images"):
        HeadProbe().score(head, broken)


def new_loop():
    return CheckpointedLoop(None, description="toy")


def mortal(folder, dies_before=None):
    """Return a loop that keeps no more than those of probes do."""
    return Mortal(folder, dies_before, save_ends=False)


def everything(data):
    return torch.arange(len(data.labels))[None]


def fit(kind, data, subsets=None, seed=0, precision="fp32"):
    return kind.fit(
        data.features,
        data.labels,
        subsets=everything(data) if subsets is None else subsets,
        num_classes=int(data.labels.max()) + 1,
        generator=generator(seed),
        checkpoint=new_loop(),
        precision=precision,
    )


def score(data, test, kinds, labels_per_class=(None,), seed=0):
    return [
        probe(
            data,
            test=test,
            num_classes=int(data.labels.max()) + 1,
            kind=kind,
            labels_per_class=amount,
            seed=seed,
            checkpoint=new_loop(),
        )
        for amount in labels_per_class
        for kind in kinds
    ]


def reference(features, labels, strength):
    """Return scikit-learn's solution, in raw features, with biases that sum to zero."""
    scaler = StandardScaler().fit(features.double().numpy())
    model = LogisticRegression(C=1 / (len(labels) * strength), tol=1e-9, max_iter=10_000)
    model.fit(scaler.transform(features.double().numpy()), labels.numpy())
    weights = model.coef_ / scaler.scale_
    biases = model.intercept_ - weights @ scaler.mean_
    return torch.from_numpy(weights), torch.from_numpy(biases)


def assert_same_classifier(weights, biases, expected, features):
    """Compare logits up to a common constant: that is all of a classifier that can be seen."""
    logits = features.double() @ weights.double().T + biases.double()
    wanted = features.double() @ expected[0].T + expected[1]
    logits, wanted = (x - x.mean(1, keepdim=True) for x in (logits, wanted))
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=2e-3)


# with a strong penalty residuals stay large: rounding in float32 leaves about 1e-8 of the gradient
@pytest.mark.parametrize(("strength", "tolerance"), [(1.0, 1e-7), (1e-2, 1e-8), (1e-4, 1e-6)])
@pytest.mark.parametrize("p", [12, 300], ids=["fewer features than images", "more features"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fair_is_scikit_learns_logistic_regression(p, strength, tolerance, precision):
    data = blobs(p=p, spread=3.0)
    kind = FairProbe(strengths=(strength,), tolerance=tolerance)
    classifiers = fit(kind, data, precision=precision)
    assert classifiers.converged
    expected = reference(data.features, data.labels, strength)
    assert_same_classifier(
        *(x[0] for x in (classifiers.weights, classifiers.biases)), expected, data.features
    )
    accuracy = (data.features.double() @ expected[0].T + expected[1]).argmax(1) == data.labels
    ours = classifiers.predict(data.features)[0] == data.labels
    assert abs(int(accuracy.sum()) - int(ours.sum())) <= 1


def test_the_tolerance_is_tight_enough_for_separable_data_and_a_weak_penalty():
    # strongly correlated features, as those of networks are: here a loose solution is a poor one
    mixing = torch.randn(120, 120, generator=generator()) * torch.logspace(0, -3, 120)
    data, test = blobs(n=40, p=120), blobs(n=400, p=120, seed=5)
    data = replace(data, features=data.features @ mixing.T)
    test = replace(test, features=test.features @ mixing.T)
    coarse = fit(FairProbe(strengths=(1e-5,)), data)
    expected = reference(data.features, data.labels, 1e-5)
    wanted = (test.features.double() @ expected[0].T + expected[1]).argmax(1)
    assert coarse.converged
    assert (coarse.predict(test.features)[0] == wanted).float().mean() > 0.97


@pytest.mark.parametrize("p", [12, 60])
def test_fair_solves_every_subset_as_if_alone(p):
    data = blobs(p=p)
    by_class = data.labels.argsort(stable=True).view(4, 60)
    subsets = torch.stack([by_class[:, i : i + 10].flatten() for i in (0, 10, 20)])
    classifiers = fit(FairProbe(strengths=(0.03,), tolerance=1e-6), data, subsets)
    for subset, weights, biases in zip(
        subsets, classifiers.weights, classifiers.biases, strict=True
    ):
        features, labels = data.features[subset], data.labels[subset]
        assert_same_classifier(weights, biases, reference(features, labels, 0.03), features)


def test_the_gradient_is_that_of_the_objective():
    stream = generator()
    x = torch.randn(2, 30, 5, generator=stream, dtype=torch.float64)
    labels = torch.randint(3, (2, 30), generator=stream)
    weights = torch.randn(2, 3, 6, generator=stream, dtype=torch.float64, requires_grad=True)
    logits = torch.einsum("bnp,bkp->bnk", x, weights[..., :-1]) + weights[:, None, :, -1]
    losses = [cross_entropy(*one) for one in zip(logits, labels, strict=True)]
    (sum(losses) + 0.35 * weights[..., :-1].square().sum()).backward()
    regression = Regression(
        features=x, targets=one_hot(labels, 3).double(), moment=x.mT @ x / 30, strength=0.7
    )
    point = weights.detach()
    gradient = regression.gradient(regression.residuals(regression.logits(point)), point)
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-12, atol=1e-12)


def test_correlated_features_take_far_fewer_steps_than_scikit_learn():
    stream, n, p = generator(4), 600, 60
    causes = torch.randn(n, p, generator=stream)
    labels = (causes[:, 30:34] + 0.7 * torch.randn(n, 4, generator=stream)).argmax(1)
    rotation = torch.linalg.qr(torch.randn(p, p, generator=stream)).Q
    x = causes * torch.logspace(0, -2, p) @ rotation
    x = StandardScaler().fit_transform(x.double().numpy())
    model = LogisticRegression(C=1 / (n * 1e-3), max_iter=10_000).fit(x, labels.numpy())
    features = torch.from_numpy(x).float()[None]
    regression = Regression(
        features=features,
        targets=one_hot(labels[None], 4),
        moment=features.mT @ features / n,
        strength=1e-3,
    )
    solution = solve(regression, torch.zeros(1, 4, 61), tolerance=1e-4, max_steps=1000)
    assert solution.converged
    assert solution.steps < model.n_iter_[0] / 4
    residuals = regression.residuals(regression.logits(solution.weights))
    assert regression.gradient(residuals, solution.weights).abs().max() <= 1.01e-4


@pytest.mark.parametrize("strength", [1e-3, 1e-4])
def test_a_start_that_is_sure_of_wrong_classes_is_left_soon(strength):
    data = blobs(n=100, p=600, k=10, spread=3.0)
    x = torch.from_numpy(StandardScaler().fit_transform(data.features.double()))
    coordinates, _ = in_own_span(x[None])

    def regression(strength, first=0):
        return Regression(
            features=coordinates[:, first:],
            targets=one_hot(data.labels[None, first:], 10),
            moment=coordinates.mT @ coordinates / 100,
            strength=strength,
        )

    solved = partial(solve, tolerance=1e-2 * strength, max_steps=1000)
    zero = torch.zeros(1, 10, 101, dtype=torch.float64)
    without_some = solved(regression(strength, first=10), zero).weights
    for start in (zero, without_some, 30 * without_some):
        solution = solved(regression(strength), start)
        assert solution.converged
        assert solution.steps < 50  # 13, 24 and 40; a search from one side alone took 400 to 1000
    weaker = solved(regression(strength / 10, first=10), without_some)
    assert weaker.converged
    assert weaker.steps < 7  # without a first step along the start 10 to 18


def test_images_in_their_own_span_keep_all_products():
    x = torch.randn(2, 5, 40, generator=generator())
    coordinates, basis = in_own_span(x)
    assert coordinates.shape == (2, 5, 5)
    torch.testing.assert_close(coordinates @ basis.mT, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(5).expand(2, 5, 5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [12, 60], ids=["all features", "own span"])
def test_paper_takes_the_steps_of_plain_sgd(p):
    data = blobs(p=p)
    data = replace(data, features=data.features / 10)
    subsets = torch.stack([torch.arange(40), torch.arange(100, 140)])
    kind = PaperProbe(steps=25, batch=16)
    classifiers = fit(kind, data, subsets)
    stream, bound = generator(), 1 / p**0.5
    start = (2 * torch.rand(2, 4, p + 1, generator=stream) - 1) * bound
    rows = kind._rows(2, 40, stream).unflatten(1, (25, 16))
    for draw, subset in enumerate(subsets):
        layer = nn.Linear(p, 4)
        layer.load_state_dict({"weight": start[draw, :, :-1], "bias": start[draw, :, -1]})
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)
        for batch in rows[draw]:
            images = subset[batch]
            loss = cross_entropy(layer(data.features[images]), data.labels[images])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        close = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(classifiers.weights[draw], layer.weight.detach(), **close)
        torch.testing.assert_close(classifiers.biases[draw], layer.bias.detach(), **close)


def test_paper_uses_every_image_equally_often():
    rows = PaperProbe(steps=7, batch=16)._rows(3, 50, generator())
    assert rows.shape == (3, 7 * 16)
    for stream in rows:
        counts = stream.bincount(minlength=50)
        assert counts.max() - counts.min() <= 1
    assert PaperProbe(steps=7, batch=512)._rows(1, 50, generator()).shape == (1, 7 * 50)


def test_scale_matters_to_paper_and_not_to_fair():
    data, test = blobs(spread=4.0), blobs(n=1000, seed=5, spread=4.0)
    factors = torch.logspace(-3, 0, 12)
    small = replace(data, features=data.features * factors)
    small_test = replace(test, features=test.features * factors)
    kinds = [FairProbe(), PaperProbe(steps=200)]
    fair, paper = score(data, test, kinds)
    small_fair, small_paper = score(small, small_test, kinds)
    assert small_fair.strength == fair.strength
    assert small_fair.top1 == pytest.approx(fair.top1, abs=0.2)
    assert abs(small_paper.top1 - paper.top1) > 5


def test_constant_features_do_not_matter_to_fair():
    data, test = blobs(), blobs(n=500, seed=5)
    constants = torch.tensor([0.0, 1e3, -1e-3])
    wide, wide_test = (
        replace(x, features=torch.cat([x.features, constants.expand(len(x.labels), 3)], dim=1))
        for x in (data, test)
    )
    assert score(wide, wide_test, [FairProbe()])[0].top1 == pytest.approx(
        score(data, test, [FairProbe()])[0].top1, abs=0.3
    )
    classifiers = fit(FairProbe(), wide)
    assert not classifiers.weights[..., -3:].any()


@pytest.mark.parametrize("kind", [FairProbe(), PaperProbe(steps=100)], ids=["fair", "paper"])
@pytest.mark.parametrize("labels_per_class", [None, 5])
def test_labels_that_mean_nothing_give_chance(kind, labels_per_class):
    data, test = blobs(), blobs(n=2000, seed=5)
    lottery = torch.randint(4, (2000,), generator=generator(3))
    (result,) = score(data, replace(test, labels=lottery), [kind], [labels_per_class])
    assert result.top1 == pytest.approx(25, abs=4)  # four standard errors of one draw
    (result,) = score(data, test, [kind], [labels_per_class])
    assert result.top1 > 60


@pytest.mark.parametrize("kind", [FairProbe(), PaperProbe(steps=20)], ids=["fair", "paper"])
def test_same_seed_same_numbers_and_nobody_elses(kind):
    data, test = blobs(), blobs(n=100, seed=5)
    before, features = torch.get_rng_state(), data.features.clone()
    results = [score(data, test, [kind], [None, 5]) for _ in range(2)]
    same = [[replace(x, seconds=0.0) for x in result] for result in results]
    assert same[0] == same[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(data.features, features)
    one, again, other = (fit(kind, data, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.weights, again.weights)
    if kind.name == "paper":
        assert not torch.equal(one.weights, other.weights)


@dataclass(frozen=True, kw_only=True)
class Spy:
    name: ClassVar[str] = "spy"
    seen: list = field(default_factory=list)

    def fit(self, features, labels, *, subsets, num_classes, generator, **_):
        self.seen.append((subsets, generator.initial_seed()))
        b, p = len(subsets), features.shape[1]
        return Classifiers(
            weights=torch.zeros(b, num_classes, p),
            biases=torch.eye(num_classes).repeat(b, 1)[:b],
            strength=None,
            converged=True,
        )


def test_few_labels_are_stratified_named_draws():
    data, test = blobs(), blobs(n=100, seed=5)
    spy = Spy()
    score(data, test, [spy], [5, None])
    score(data, test, [spy], [5], seed=1)
    score(replace(data, fingerprint="another"), test, [spy], [5])
    (few, seed), (whole, _), (same, other_seed), (other, _) = spy.seen
    assert few.shape == (NUM_DRAWS, 20)
    for draw in few:
        assert data.labels[draw].bincount().tolist() == [5, 5, 5, 5]
    assert len({tuple(draw.tolist()) for draw in few}) == NUM_DRAWS
    assert torch.equal(whole, everything(data))
    assert torch.equal(few, same)
    assert seed != other_seed
    assert not torch.equal(few, other)


def test_a_score_is_the_mean_of_its_draws():
    data, test = blobs(), blobs(n=100, seed=5)
    (result,) = score(data, test, [Spy()], [5])
    shares = test.labels.bincount().double()
    expected = [float(shares[draw % 4]) for draw in range(NUM_DRAWS)]
    assert result.draws == pytest.approx(expected)
    assert result.top1 == pytest.approx(np.mean(expected))
    assert (result.probe, result.labels_per_class) == ("spy", 5)


def test_test_labels_decide_nothing():
    data, test = blobs(), blobs(n=200, seed=5)
    wrong = replace(test, labels=(test.labels + 1) % 4)
    right, left = (score(data, x, [FairProbe()])[0] for x in (test, wrong))
    assert right.strength == left.strength
    assert right.top1 > 60 and left.top1 < 40


def noisy(n, stream):
    """One feature tells the class, dimly; 99 say nothing: only a strong penalty helps."""
    labels = torch.arange(n) % 2
    features = torch.randn(n, 100, generator=stream)
    features[:, 0] += 2.0 * labels
    return LabelledFeatures(features=features, labels=labels, fingerprint="noisy")


def hidden(n, stream):
    """The class is a small difference of two large features: only large weights find it."""
    labels = torch.arange(n) % 2
    common = torch.randn(n, generator=stream)
    sign = 0.01 * (2 * labels - 1 + 0.3 * torch.randn(n, generator=stream))
    features = torch.stack([common + sign, common - sign], dim=1)
    return LabelledFeatures(features=features, labels=labels, fingerprint="hidden")


@pytest.mark.parametrize(("make", "right"), [(noisy, 1.0), (hidden, 1e-5)])
@pytest.mark.parametrize("labels_per_class", [None, 50])
def test_held_out_images_choose_the_strength(make, right, labels_per_class):
    data, test = make(240, generator(1)), make(1000, generator(2))
    kinds = [FairProbe(strengths=x) for x in ((1.0, 1e-5), (1.0,), (1e-5,))]
    chosen, strong, weak = score(data, test, kinds, [labels_per_class])
    assert chosen.strength == right
    best, worst = sorted((strong, weak), key=lambda x: x.top1, reverse=True)
    assert best.strength == right and best.top1 > worst.top1 + 2
    assert chosen.top1 == pytest.approx(best.top1, abs=0.5)


def test_a_strength_is_compared_by_its_own_solution_where_classes_are_many():
    """Of 100 classes a gradient is small from the start: it must not pass for a solution."""
    data, test = (
        blobs(n=n, p=100, k=100, seed=seed, spread=6) for n, seed in ((4000, 1), (2000, 2))
    )
    kinds = [FairProbe(strengths=x, tolerance=1e-3) for x in ((0.1, 0.01), (0.1,), (0.01,))]
    chosen, strong, weak = score(data, test, kinds)
    assert weak.top1 > strong.top1 + 2
    assert (chosen.strength, chosen.top1) == (0.01, pytest.approx(weak.top1, abs=0.5))


def test_weak_penalties_are_compared_by_what_is_nearly_their_solution():
    """A tolerance that does for strong ones left the weakest 44 % away from it."""
    data, kind = blobs(n=1200, p=200, k=60, spread=3), FairProbe(tolerance=1e-3)
    order, tenth, _ = in_tenths(data.labels, everything(data), generator())
    scaled = Draws(data.features, data.labels, [order], num_classes=60, roughly=False)[0]
    weights = scaled.data.start(None)
    for strength in (0.1, 0.01, 0.001):
        tolerance = kind.looks_at(strength)[-1]
        solution, _ = kind._attempt(
            scaled.data, strength, weights, tenth=tenth, tolerance=tolerance
        )
        weights = solution.weights
        problem = scaled.data.regression(strength, first=tenth)
        solution = solve(problem, weights, tolerance=1e-4 * strength, max_steps=1000)
        assert solution.converged
        assert (weights - solution.weights).norm() < 0.1 * solution.weights.norm()


def test_a_strong_penalty_is_not_asked_for_more_than_bf16_can_tell(monkeypatch):
    steps = []

    def spied(*args, **settings):
        solution = solve(*args, **settings)
        steps.append(solution.steps)
        return solution

    monkeypatch.setattr("benchmark.probes.fair.solve", spied)
    data = blobs(n=20_000, p=64, k=10)
    found = fit(FairProbe(strengths=(10.0,)), data, precision="bf16")
    assert found.converged and sum(steps) < 50


def test_tenths_are_stratified():
    labels = torch.tensor([0] * 43 + [1] * 25 + [2])[torch.randperm(69, generator=generator())]
    order, tenth, turns = in_tenths(labels, torch.arange(69)[None], generator())
    assert (tenth, turns) == (4 + 2, 10)
    assert torch.equal(order[0].sort().values, torch.arange(69))
    for turn in range(turns):
        block = labels[order[0, turn * tenth : (turn + 1) * tenth]]
        assert block.bincount().tolist() == [4, 2]
    small = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert in_tenths(small, torch.arange(7)[None], generator())[1:] == (2, 3)


def test_an_early_end_is_recorded():
    data, test = blobs(), blobs(n=100, seed=5)
    kinds = [FairProbe(strengths=(1e-3,), max_steps=1), FairProbe(), PaperProbe(steps=5)]
    assert [x.converged for x in score(data, test, kinds)] == [False, True, True]
    huge = replace(data, features=data.features * 1e36)
    assert not fit(PaperProbe(steps=5), huge).converged


def test_settings_are_part_of_a_key():
    for name, kind in PROBES.items():
        assert kind.name == name
        assert json.loads(json.dumps(asdict(kind()))).keys() == asdict(kind()).keys()
    assert asdict(PaperProbe()) == {"lr": 0.2, "momentum": 0.9, "steps": 5000, "batch": 512}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PaperProbe(steps=0), "steps=0: expected 1 or more"),
        (lambda: PaperProbe(lr=float("nan")), "lr=nan: expected a number above 0"),
        (lambda: PaperProbe(momentum=2.0), "momentum=2.0: expected 0 to below 1"),
        (lambda: FairProbe(strengths=(1.0, float("inf"))), "strengths=1.0,inf: expected"),
        (lambda: FairProbe(strengths=()), r"strengths=\(\): expected a number above 0"),
        (lambda: FairProbe(strengths=(1.0, -1.0)), "strengths=1.0,-1.0: expected a number above 0"),
        (lambda: score(blobs(), blobs(), [Spy()], [61]), "61: expected 1 to 60"),
        (lambda: score(blobs(), blobs(), [Spy()], [0]), "0: expected 1 to 60"),
        (lambda: score(blobs(), blobs(), [FairProbe()], [1]), "expected 2 or more"),
    ],
)
def test_mistakes_get_one_line(make, message):
    with pytest.raises(UsageError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [FairProbe(), PaperProbe(steps=12, batch=20)])
@pytest.mark.parametrize("max_memory", [None, 1])  # all draws at once, and one after the other
@pytest.mark.parametrize("p", [5, 40])  # fewer and more than the 24 images of a draw
def test_a_fit_that_was_cut_short_goes_on(kind, max_memory, p, tmp_path, saved_at_every_step):
    data = blobs(n=60, p=p, k=3)
    order = data.labels.argsort(stable=True).view(3, 20)
    subsets = torch.stack([order[:, start : start + 8].flatten() for start in (0, 4, 12)])

    def fitted(checkpoint):
        return kind.fit(
            data.features,
            data.labels,
            subsets=subsets,
            num_classes=3,
            generator=generator(),
            checkpoint=checkpoint,
            max_memory=max_memory,
        )

    whole_loop = mortal(None)
    whole = fitted(whole_loop)
    taken = []
    for death in whole_loop.taken[::3]:
        dying = mortal(tmp_path, death)
        with pytest.raises(DeathError):
            fitted(dying)
        taken += dying.taken
    last = mortal(tmp_path)
    resumed = fitted(last)
    assert taken + last.taken == whole_loop.taken  # no step was taken twice
    assert torch.equal(resumed.weights, whole.weights)
    assert torch.equal(resumed.biases, whole.biases)
    assert (resumed.strength, resumed.converged) == (whole.strength, whole.converged)


def test_no_strength_is_tried_again_for_an_answer_that_was_cut_short(
    tmp_path, monkeypatch, saved_at_every_step
):
    """Neither that with which the search ends, before it has tried all."""
    data, kind, solves = blobs(), FairProbe(max_steps=3), []

    def spy(self, data, strength, start, *, tolerance, held_out=0):
        solves.append((strength, held_out > 0))
        if dies and not held_out:
            raise KeyboardInterrupt
        return solve(self, data, strength, start, tolerance=tolerance, held_out=held_out)

    def fitted(folder):
        return kind.fit(
            data.features,
            data.labels,
            subsets=everything(data),
            num_classes=4,
            generator=generator(),
            checkpoint=mortal(folder),
        )

    solve, dies = FairProbe._solve, False
    monkeypatch.setattr(FairProbe, "_solve", spy)
    whole = fitted(None)
    assert len({strength for strength, _ in solves}) < len(kind.strengths)  # it ended early
    dies = True
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path)
    dies = False
    solves.clear()
    assert torch.equal(fitted(tmp_path).weights, whole.weights)
    assert solves == [(whole.strength, False)]


def test_features_that_are_no_numbers_stop_the_probe():
    data = blobs()
    broken = replace(data, features=data.features.clone().index_fill_(0, torch.tensor([3]), np.nan))
    with pytest.raises(NonFiniteError, match="training"):
        score(broken, data, [PaperProbe()])
    with pytest.raises(NonFiniteError, match="test"):
        score(data, broken, [PaperProbe()])


@pytest.fixture
def network():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    return Network(nn.Sequential(*layers), 4 * 36, 5, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def test_extraction_is_one_forward_in_evaluation_mode(network, tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "BATCH", 16)
    pixels = torch.randint(256, (50, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    np.save(tmp_path / "images.npy", pixels.numpy())
    images = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    network.train()
    network.backbone[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    features = extract(network, images, checkpoint=new_loop())
    assert [module.training for module in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    normalised = (pixels / 255 - network.mean) / network.std
    expected = network.backbone.eval()(normalised).detach()
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert features.dtype == torch.float32 and not features.is_inference()


def test_extraction_that_was_cut_short_goes_on(network, tmp_path, saved_at_every_step, monkeypatch):
    monkeypatch.setattr(probing, "BATCH", 16)
    pixels = torch.randint(256, (50, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    whole = extract(network, pixels, checkpoint=new_loop())
    with pytest.raises(DeathError):
        extract(network, pixels, checkpoint=mortal(tmp_path, ("features", 2)))
    last = mortal(tmp_path)
    resumed = extract(network, pixels, checkpoint=last)
    assert last.taken == [("features", 2), ("features", 3)]
    assert torch.equal(resumed, whole)


def test_extraction_restores_modes_when_it_fails(network):
    network.train()
    with pytest.raises(RuntimeError):
        extract(network, torch.zeros(2, 3, 9, 9, dtype=torch.uint8), checkpoint=new_loop())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("accuracies", "tried"),
    [
        ([0.5, 0.6, 0.7, 0.8], 4),  # ever better: all of them
        ([0.6, 0.595, 0.59, 0.9], 3),  # below the best twice in a row
        ([0.6, 0.595, 0.61, 0.6], 4),  # only once in a row
        ([0.6, 0.5, 0.9, 0.9], 2),  # once, by more than its standard error
    ],
)
def test_weaker_penalties_are_tried_as_long_as_they_may_help(monkeypatch, accuracies, tried):
    strengths, seen = (1.0, 0.1, 0.01, 0.001), []

    def attempt(self, data, strength, start, *, tenth, tolerance):
        seen.append(strength)
        hits = torch.arange(1000) < 1000 * accuracies[len(seen) - 1]
        return Solution(data.start(None), 0, True, lambda gradient: gradient), hits[None]

    monkeypatch.setattr(FairProbe, "_attempt", attempt)
    chosen = fit(FairProbe(strengths=strengths), blobs()).strength
    assert len(seen) == tried
    assert chosen == strengths[max(range(tried), key=accuracies.__getitem__)]


@pytest.mark.parametrize(("make", "right"), [(noisy, 1.0), (hidden, 1e-5)])
def test_a_weak_penalty_that_does_harm_is_not_solved_to_its_end(make, right, monkeypatch):
    attempt, tolerances = FairProbe._attempt, []

    def spied(*args, tolerance, **settings):
        tolerances.append(tolerance)
        return attempt(*args, tolerance=tolerance, **settings)

    monkeypatch.setattr(FairProbe, "_attempt", spied)
    kind, data = FairProbe(strengths=(1.0, 1e-5)), make(240, generator(1))
    chosen = fit(kind, data).strength
    expected = [*kind.looks_at(1.0), *kind.looks_at(1e-5)]
    assert chosen == right
    assert tolerances == (expected if right == 1e-5 else expected[:-1])


def test_a_strength_that_is_not_solved_is_no_choice():
    solution = Solution(torch.zeros(1, 4, 9), 0, True, lambda gradient: gradient)
    parts = {share: [(solution, torch.arange(100)[None] < share)] for share in (60, 58, 90, 10)}
    search = fair._Search(1)
    search.judge(1.0, parts[90], solved=False)  # of the first one
    assert (math.isnan(search.best.strength), search.over) == (True, False)
    search.judge(1.0, parts[60], solved=True)
    for share, solved, misses in ((90, False, 0), (58, False, 0), (58, True, 1), (90, False, 1)):
        search.judge(0.1, parts[share], solved=solved)
        assert (search.best.strength, search.misses, search.over) == (1.0, misses, False)
    another = deepcopy(search)
    search.judge(0.01, parts[58], solved=False)  # the second one below the best
    another.judge(0.01, parts[10], solved=False)  # by more than its standard error
    assert (search.best.strength, search.over, another.over) == (1.0, True, True)


def test_a_search_that_runs_out_of_tries_ends_where_its_logits_are(monkeypatch):
    monkeypatch.setattr(logistic, "_LINE_STEPS", 1)
    data = blobs()
    features = (data.features - data.features.mean(0))[None]
    regression = Regression(
        features=features,
        targets=one_hot(data.labels[None], 4),
        moment=features.mT @ features / features.shape[1],
        strength=1e-3,
    )
    weights = torch.zeros(1, 4, features.shape[2] + 1)
    logits = regression.logits(weights)
    gradient = regression.gradient(regression.residuals(logits), weights)
    step, ahead, residuals = logistic._search(
        regression, weights, gradient, -1e3 * gradient, logits
    )
    torch.testing.assert_close(ahead, regression.logits(weights + step))
    torch.testing.assert_close(residuals, regression.residuals(ahead))

import math
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from benchmark import files as files_module
from benchmark.differentiable_augmentation import draw
from benchmark.loop import CheckpointedLoop
from benchmark.methods import datm
from benchmark.methods._datm_recipes import PUBLISHED
from benchmark.methods._experts import Experts
from benchmark.methods._soft_start import draw_correct, draw_real, mean_logits
from benchmark.methods._zca import Zca, affordable
from benchmark.methods.datm import Datm
from benchmark.spec import ImageShape, UsageError

SMALL = Datm(
    inner_steps=5,
    target_epochs=1,
    start_epochs=(0, 1, 2),
    expansion_steps=4,
    inner_batch=4,
    image_lr=1.0,
    logit_lr=0.5,
    lr_lr=1e-5,
    threshold=10.0,
    initial_images="correct",
    inner_widths=(8, 8),
    outer_steps=6,
    initial_lr=0.03,
    num_experts=2,
    expert_epochs=3,
    expert_lr=0.1,
    expert_batch=18,
)


class Killed(CheckpointedLoop):
    """A loop whose process dies when it logs outer step 3."""

    def log(self, step, **values):
        super().log(step, **values)
        if step == 3 and "matching_loss" in values:
            raise KeyboardInterrupt


def distil(method, problem, *, seed=0, loop=None):
    loop = loop or CheckpointedLoop(None, description="datm")
    stream = torch.Generator().manual_seed(seed)
    return method.distill(problem, generator=stream, checkpoint=loop)


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(name="problem")
def _problem(labelled_problem, tmp_path):
    """Three classes at two images each, with room for the experts."""
    return replace(labelled_problem(N=6), cache=tmp_path / "cache")


def test_what_is_stored_fits_and_decodes_to_pixels_with_soft_labels(problem):
    before = torch.get_rng_state()
    stored = distil(SMALL, problem)
    assert torch.equal(torch.get_rng_state(), before)
    decoded = SMALL.decode(stored, problem.shape)
    assert decoded.objective == "cross-entropy"
    assert decoded.images is stored["images"]  # no method clamps what its students see
    torch.testing.assert_close(decoded.targets[0], stored["logits"].softmax(1))
    assert decoded.own.recipe == {"lr": float(stored["learning_rate"]), "batch_size": 128}
    assert decoded.own.recipe["lr"] != pytest.approx(0.03)


def test_without_room_for_its_mean_no_whitening_is_stored(problem):
    """Also where no component has more variance than eps."""
    method = replace(SMALL, zca_eps=1e3)
    assert Zca.fit(problem.images, eps=method.zca_eps).num_strong == 0
    stored = distil(method, problem)
    assert stored.keys() == {"images", "logits", "learning_rate"}
    assert sum(tensor.numel() for tensor in stored.values()) <= problem.num_floats


@pytest.mark.parametrize("num", [None, 0, 1, 2, 192])
def test_the_rest_of_the_budget_holds_components_of_the_whitening(problem, num):
    """Which its own evaluation applies to all images: all with more variance than eps, or none."""
    _, second, third, *_ = Zca.fit(problem.images, eps=0.1).variances.flip(0).tolist()
    method = replace(SMALL, zca_eps=(second + third) / 2)
    zca = Zca.fit(problem.images, eps=method.zca_eps)
    assert zca.num_strong == 2
    plain = 6 * (192 + 3) + 1
    numbers = plain + (100 if num is None else 193 + 193 * num)
    d = -(-numbers // 6) - 192
    roomy = replace(problem, representations=lambda view: torch.zeros(60, d))
    stored = distil(method, roomy)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    assert (shapes.pop("images"), shapes.pop("logits")) == ((6, 3, 8, 8), (6, 3))
    assert shapes.pop("learning_rate") == (1,)
    own = method.decode(stored, problem.shape).own
    whitening = own.whitening
    loop = CheckpointedLoop(None, description="datm")
    if num is None or num < 2:
        assert (shapes, whitening) == ({}, None)
        with pytest.raises(UsageError, match=rf"whitens images, .* \({num or 0} of 2 fit at N=6\)"):
            method.expect_own(roomy, checkpoint=loop)
        return
    method.expect_own(roomy, checkpoint=loop)
    assert numbers - 193 < sum(tensor.numel() for tensor in stored.values()) <= roomy.num_floats
    assert shapes == {
        "whitening_mean": (3, 8, 8),
        "whitening_components": (num, 3, 8, 8),
        "whitening_scales": (num + 1,),
    }
    assert whitening is not None
    images = problem.images / 255
    error = (whitening(images) - zca.whiten(problem.images)).flatten(1)
    lost = zca.variances.flip(0)[num:]  # what the best single scale leaves of the other components
    exact = (lost + zca.eps) ** -0.5
    rest = (lost * exact).sum() / lost.sum().clamp_min(1e-30)
    expected = (lost * (rest - exact) ** 2).sum()
    n = len(images)
    assert float(error.square().sum() / (n - 1)) == pytest.approx(
        float(expected), abs=1e-6, rel=1e-3
    )
    other = (lost * (1.01 * rest - exact) ** 2).sum()
    assert other >= expected


def test_whitening_components_at_the_published_budgets():
    """CIFAR-100 with d = 512."""
    left = [n * (3072 + 512) - n * (3072 + 100) - 1 for n in (100, 1000, 5000)]
    assert [affordable(numbers, ImageShape(3, 32, 32)) for numbers in left] == [12, 133, 669]


def test_no_step_gives_real_pixels_that_the_experts_recognise(problem):
    stored = distil(replace(SMALL, outer_steps=0), problem)
    real = problem.images.flatten(1) / 255
    distance, rows = torch.cdist(stored["images"].flatten(1).double(), real.double()).min(1)
    assert distance.max() < 1e-5
    assert problem.labels[rows].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(rows.tolist())) == 6
    assert stored["logits"].argmax(1).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_matching_loss_falls(problem):
    loop = CheckpointedLoop(None, description="datm")
    method = replace(SMALL, outer_steps=24, start_epochs=(0, 1, 1), inner_batch=6)
    distil(method, problem, loop=loop)
    losses = [point["matching_loss"] for point in loop.history["outer steps"]]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert max(losses) < 1  # what weights that stay where they are would have


def test_steps_are_sgd_with_momentum_on_the_matching_gradient(problem, monkeypatch):
    """A plain twin of the outer loop: known gradients, momentum written out, skipped steps."""
    losses, ones, starts = [0.5, 2.0, 1.0], torch.ones(()), []

    def fake(distilled, *, start, target, **rest):
        starts.append((start.clone(), target.clone()))
        gradient = replace(
            distilled,
            images=torch.ones_like(distilled.images),
            logits=torch.ones_like(distilled.logits),
            lr=ones,
        )
        return torch.tensor(losses[len(starts) - 1]), gradient

    monkeypatch.setattr(datm, "match", fake)
    method = replace(SMALL, outer_steps=3, threshold=1.0)
    start = distil(replace(method, outer_steps=0), problem)
    end = distil(method, problem)
    moved = {"images": 1.0 * (1 + 1.5), "logits": 0.5 * (1 + 1.9), "learning_rate": 1e-5 * 2.5}
    zca = Zca.fit(problem.images, eps=0.1)
    whitened = [zca.whiten(stored["images"]) for stored in (start, end)]
    torch.testing.assert_close(whitened[0] - whitened[1], torch.full((6, 3, 8, 8), 2.5))
    for name in ("logits", "learning_rate"):
        expected = torch.full_like(start[name], moved[name])
        torch.testing.assert_close(start[name] - end[name], expected, rtol=1e-3, atol=1e-7)
    assert not any(torch.equal(start, target) for start, target in starts)


@pytest.fixture
def _double():
    """Compute in double precision, the pixels and the networks included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def snapshots(problem, expert):
    """One expert's weights after each epoch, from its files."""
    files = sorted(problem.cache.glob(f"datm-*/expert-{expert:04}/epoch-*.safetensors"))
    return [load_file(file)["weights"].to(torch.get_default_dtype()) for file in files]


def applied(network, weights, images):
    """What the network says of whitened images with one vector of weights."""
    named, at = {}, 0
    for name, parameter in network.named_parameters():
        named[name] = weights[at : at + parameter.numel()].view(parameter.shape)
        at += parameter.numel()
    std, mean = network.std, network.mean
    return torch.func.functional_call(network, named, (images * std + mean,))


def new_network(problem):
    stream = torch.Generator().manual_seed(0)
    return problem.new_network("convnet", 3, stream, widths=(8, 8), norm="instance")


def start_of(method, problem, stream):
    """What no outer step leaves, whitened; the stream is then where outer steps begin."""
    loop = CheckpointedLoop(None, description="datm")
    stored = replace(method, outer_steps=0).distill(problem, generator=stream, checkpoint=loop)
    zca = Zca.fit(problem.images, eps=0.1)
    whitened = zca.whiten(stored["images"])
    return zca, [whitened, stored["logits"], stored["learning_rate"][0]]


def twin(method, problem):
    """The whole outer loop, plainly: every unroll is one graph, momentum is written out."""
    stream = torch.Generator().manual_seed(0)
    zca, learned = start_of(method, problem, stream)
    network, paths = new_network(problem), [snapshots(problem, 0), snapshots(problem, 1)]
    velocities = [torch.zeros_like(x) for x in learned]
    losses = []
    first, second, last = method.start_epochs
    for step in range(method.outer_steps):
        if step % 2 == 0:
            turns = torch.randperm(2, generator=stream)
        path = paths[turns[step % 2]]
        bound = min(last, second + (last - second) * step // method.expansion_steps)
        epoch = int(torch.randint(first, bound, (), generator=stream))
        rows = []
        while len(rows) < method.inner_steps:
            rows += torch.randperm(len(learned[0]), generator=stream).split(method.inner_batch)
        batches = [(some, draw(stream, num=len(some))) for some in rows[: method.inner_steps]]
        images, logits, lr = (x.detach().requires_grad_() for x in learned)
        weights = path[epoch].clone().requires_grad_()
        for some, augment in batches:
            soft = logits[some].softmax(1)
            loss = cross_entropy(applied(network, weights, augment(images[some])), soft)
            (slope,) = torch.autograd.grad(loss, [weights], create_graph=True)
            weights = weights - lr * slope
        target = path[epoch + method.target_epochs]
        loss = (weights - target).square().sum() / (path[epoch] - target).square().sum()
        losses.append(loss.item())
        if loss > method.threshold:
            continue
        gradients = torch.autograd.grad(loss, [images, logits, lr])
        rates = (method.image_lr, method.logit_lr, method.lr_lr)
        for i, (gradient, rate, momentum) in enumerate(
            zip(gradients, rates, (0.5, 0.9, 0.5), strict=True)
        ):
            velocities[i] = momentum * velocities[i] + gradient
            learned[i] = learned[i] - rate * velocities[i]
    return {
        "images": zca.unwhiten(learned[0]),
        "logits": learned[1],
        "learning_rate": learned[2].view(1),
    }, losses


@pytest.mark.usefixtures("_double")
def test_agrees_with_a_plain_loop(problem):
    """Whose expert, which epochs, which batches, what is skipped, and how all three move."""
    method = replace(
        SMALL,
        start_epochs=(1, 2, 4),
        target_epochs=2,
        expansion_steps=6,
        expert_epochs=5,
        outer_steps=10,
        lr_lr=1e-3,
        threshold=0.87,
    )
    expected, losses = twin(method, problem)
    assert 0 < sum(loss > method.threshold for loss in losses) < len(losses)
    loop = CheckpointedLoop(None, description="datm")
    stored = distil(method, problem, loop=loop)
    logged = [point["matching_loss"] for point in loop.history["outer steps"]]
    torch.testing.assert_close(logged, losses, rtol=1e-8, atol=0)
    for name, value in expected.items():
        torch.testing.assert_close(stored[name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("initial_images", ["correct", "real"])
def test_labels_and_choice_of_images_come_from_the_last_epoch(problem, monkeypatch, initial_images):
    method = replace(SMALL, outer_steps=0, initial_images=initial_images)
    asked, logits = [], Experts.logits

    def spied(self, expert, epoch, rows):
        asked.append(epoch)
        return logits(self, expert, epoch, rows)

    monkeypatch.setattr(Experts, "logits", spied)
    _, (images, actual, _) = start_of(method, problem, torch.Generator().manual_seed(0))
    assert set(asked) == {method.expert_epochs}
    said = torch.stack(
        [applied(new_network(problem), snapshots(problem, i)[-1], images) for i in range(2)]
    ).detach()
    if initial_images == "real":
        assert min((said - actual).abs().amax((1, 2))) < 1e-9
        return
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    for i, label in enumerate(labels):
        right = said[said[:, i].argmax(1) == label, i]
        torch.testing.assert_close(actual[i], right.mean(0), rtol=1e-8, atol=1e-9)


def test_a_killed_run_goes_on_to_the_same_set(problem, tmp_path):
    uninterrupted = distil(SMALL, problem)
    with pytest.raises(KeyboardInterrupt):
        folder = tmp_path / "loop"
        distil(SMALL, problem, loop=Killed(folder, description="datm", save_every_seconds=0.0))
    resumed = distil(SMALL, problem, loop=CheckpointedLoop(folder, description="datm"))
    assert same(resumed, uninterrupted)


def test_seeds_share_the_experts_that_the_data_and_settings_determine(problem, monkeypatch):
    trained, epoch = [], Experts._epoch

    def counted(self, weights, stream):
        trained.append(1)
        return epoch(self, weights, stream)

    monkeypatch.setattr(Experts, "_epoch", counted)
    method = replace(SMALL, outer_steps=1)
    first = distil(method, problem)
    assert len(trained) == 6
    assert not same(first, distil(method, problem, seed=1))
    assert len(trained) == 6
    distil(replace(method, expert_epochs=4), problem)
    assert len(trained) == 6 + 2
    assert same(first, distil(method, replace(problem, cache=None)))
    assert len(trained) == 6 + 2 + 6
    changes = ({"expert_rho": 0.02}, {"augmentations": ("flip",)}, {"augmentations": ()})
    for num, change in enumerate(changes, 1):
        distil(replace(method, **change), problem)
        assert len(trained) == 6 + 2 + 6 + 6 * num


def test_experts_learn_in_single_precision(problem, tmp_path):
    """Half precision rounds GSAM's climb away; the unrolled steps follow the run's."""
    halved = replace(problem, precision="bf16", cache=tmp_path / "halved")
    sets = [distil(SMALL, each) for each in (problem, halved)]
    for plain, same in zip(snapshots(problem, 0), snapshots(halved, 0), strict=True):
        assert torch.equal(plain, same)
    assert not torch.equal(sets[0]["images"], sets[1]["images"])


def test_networks_see_whitened_images_as_they_are(problem, monkeypatch):
    seen = []

    def start(self, experts, recipe, **rest):
        seen.append(experts)
        return Datm._start(self, experts, recipe, **rest)

    class Watched(Datm):
        _start = start

    distil(Watched(**{f.name: getattr(SMALL, f.name) for f in fields(SMALL)}), problem)
    (experts,) = seen
    torch.testing.assert_close(
        experts.images, Zca.fit(problem.images, eps=0.1).whiten(problem.images)
    )
    network = experts.network.network
    assert not network.mean.any()
    assert (network.std == 1).all()


@pytest.mark.parametrize(
    ("N", "changes", "message"),
    [
        (2, {}, "datm at N=2: less than one image for each of 3 classes"),
        (7, {}, "datm at N=7: .* nearest budgets that give it are 6 and 9"),
        (
            6,
            {"max_expert_gib": 1e-6},
            "2 experts x 4 snapshots x 939 weights in fp32 take 2.8e-05",
        ),
        (6, {"start_epochs": (0, 1, 4)}, "expert_epochs=3: experts are matched up to epoch 4"),
        (6, {"start_epochs": (1, 1, 2)}, "start_epochs=.* expected three epochs"),
        (6, {"inner_batch": 0}, "inner_batch=0: expected 1 or more"),
        (6, {"num_experts": 0}, "num_experts=0: expected 1 or more"),
        (6, {"keep_every": 0}, "keep_every=0: expected 1 or more"),
        (6, {"inner_norm": None}, "running statistics"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(labelled_problem, N, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        distil(replace(SMALL, **changes), labelled_problem(N=N))
    assert "\n" not in str(caught.value)


def test_experts_that_the_disk_has_no_room_for_are_refused(problem, monkeypatch):
    monkeypatch.setattr(files_module, "free_bytes", lambda folder: 0)
    with pytest.raises(OSError, match=r"datm: experts below .*: needs 2.8e-05 GiB, but only 0 are"):
        distil(SMALL, problem)


def test_only_missing_experts_need_room_on_the_disk(problem, monkeypatch, tmp_path):
    cached = replace(problem, cache=tmp_path)
    distil(SMALL, cached)
    monkeypatch.setattr(files_module, "free_bytes", lambda folder: 0)
    distil(SMALL, cached)
    with pytest.raises(OSError, match=r"datm: experts below .*, but only 0 are free"):
        distil(replace(SMALL, num_experts=9), cached)


def test_more_labels_than_the_budget_has_room_for_are_refused(labelled_problem):
    problem = replace(labelled_problem(N=6), representations=lambda view: torch.zeros(36, 3))
    with pytest.raises(UsageError, match=r"are 1171 numbers, but the budget is 1170"):
        distil(SMALL, problem)


def test_start_epochs_grow_from_easy_to_hard():
    recipe = PUBLISHED["cifar100-ipc10"]
    for step in (0, 99, 100, 1999, 2000, 9999):
        expected = min(50, 30 + math.floor((50 - 30) * step / 2000))
        assert recipe.max_start_epoch(step) == expected
    assert {PUBLISHED["cifar100-ipc50"].max_start_epoch(step) for step in (0, 5, 9999)} == {70}


def test_starts_are_drawn_below_the_current_bound(problem, monkeypatch):
    asked = []

    class Spied(Experts):
        def weights(self, expert, epoch):
            asked.append((expert, epoch))
            return super().weights(expert, epoch)

    monkeypatch.setattr(datm, "Experts", Spied)
    distil(replace(SMALL, outer_steps=12, initial_images="real"), problem)
    pairs = list(zip(asked[1::2], asked[2::2], strict=True))  # the first is for the labels
    assert len(pairs) == 12
    assert all(end == (expert, epoch + 1) for (expert, epoch), end in pairs)
    epochs = [epoch for (_, epoch), _ in pairs]
    assert set(epochs[:4]) == {0}
    assert set(epochs) == {0, 1}
    turns = [expert for (expert, _), _ in pairs]
    assert all({a, b} == {0, 1} for a, b in zip(turns[::2], turns[1::2], strict=True))


def expert(*predicted, k=3, scale=1.0):
    table = scale * torch.eye(k)[torch.tensor(predicted)]
    return lambda rows: table[rows]


def test_images_come_from_the_first_expert_that_recognises_enough():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    first = expert(0, 0, 2, 0, 1, 2, 1, 0, 1)  # right about 0, 3 | 4 | 2, 5
    second = expert(1, 1, 0, 1, 1, 0, 0, 0, 2)  # right about 6 | 1, 4 | 8
    stream = torch.Generator().manual_seed(0)
    rows = draw_correct(labels, [first, second], k=3, ipc=2, generator=stream)
    assert [sorted(pair.tolist()) for pair in rows.split(2)] == [[0, 3], [1, 4], [2, 5]]
    rows = draw_correct(labels, [first], k=3, ipc=3, generator=stream)
    assert [sorted(three.tolist()) for three in rows.split(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_real_images_are_drawn_from_all_of_their_class():
    labels = torch.arange(3).repeat_interleave(4)
    stream = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_real(labels, k=3, ipc=1, generator=stream) for _ in range(60)])
    assert (labels[drawn] == torch.arange(3)).all()
    assert set(drawn.flatten().tolist()) == set(range(12))


def test_labels_average_the_experts_that_are_right():
    rows, labels = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    experts = [expert(0, 1, 0), expert(0, 2, 1, scale=3.0)]
    expected = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0.5, 1.5, 0]])  # nobody knows the last
    torch.testing.assert_close(mean_logits(rows, labels, experts), expected)

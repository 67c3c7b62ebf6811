import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import rotate

from benchmark.augment import shift_and_flip
from benchmark.loop import CheckpointedLoop
from benchmark.methods._distilled import Bases, Pairs
from benchmark.methods._outer_loop import Bilevel, BilevelSettings, InnerModel
from benchmark.network import Network
from benchmark.spec import ImageShape, NonFiniteError, UsageError

VIEWS = ("identity", "rot90", "rot180", "rot270")
TINY = BilevelSettings(
    outer_steps=6, outer_lr=0.01, real_batch=16, pool_size=2, max_age=3, inner_widths=(4, 6)
)
ALL = slice(None)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def quiet():
    return CheckpointedLoop(None, description="toy")


def turned(image, view):
    """An image under a view, by torchvision."""
    return rotate(image, 90 * VIEWS.index(view))


def pairs(problem, m=5, views=VIEWS):
    return Pairs(
        pixels=problem.images[:m] / 255,
        codes=torch.stack([problem.representations(view)[:m] for view in views]).clone(),
    )


def bases(problem, m=5, views=VIEWS):
    def normal(*shape):
        return torch.randn(shape, generator=normal_stream)

    normal_stream = stream(3)
    return Bases(
        shape=problem.shape,
        image_bases=0.2 * normal(4, 3, 4, 4),
        image_mean=0.5 + 0.1 * normal(3, 4, 4),
        image_coefficients=normal(m, 4),
        target_bases=normal(3, 6),
        target_mean=normal(6),
        codes=normal(len(views), m, 3),
    )


def bilevel(problem, distilled, *, views=VIEWS, seed=0, **settings):
    return Bilevel(
        replace(TINY, **settings), distilled, views, problem=problem, generator=stream(seed)
    )


def to_double(distilled):
    for name, value in vars(distilled).items():
        if isinstance(value, torch.Tensor):
            setattr(distilled, name, value.double())
    return distilled


class TestOuterLoss:
    """The loss and its gradient in float64, against a twin written image by image."""

    @staticmethod
    def twin(loop, model, rows, index, views, constant=None):
        """The loss, and the ridge lambda; `constant` holds lambda still."""
        problem, distilled = loop.problem, loop.distilled

        def features(images, view):
            x = torch.stack([turned(image, view) for image in images])
            x = (x - model.network.mean) / model.network.std
            phi = model.network.backbone(x)
            return torch.cat([phi, phi.new_ones(len(phi), 1)], 1)

        real = problem.images[rows].double() / 255
        queries = torch.cat([features(real, view) for view in views])
        wanted = torch.cat([problem.representations(view)[rows] for view in views]).double()
        support = torch.cat([features(distilled.images()[index], view) for view in views])
        targets = torch.cat(
            [distilled.targets(distilled.codes[VIEWS.index(view)])[index] for view in views]
        )
        kernel = support @ support.T
        ridge = 1e-6 * kernel.trace().detach() if constant is None else constant
        solved = torch.linalg.solve(kernel + ridge * torch.eye(len(kernel)), targets)
        return ((queries @ support.T @ solved - wanted) ** 2).mean(), ridge

    @pytest.mark.parametrize("make", [pairs, bases])
    @pytest.mark.parametrize("batch", [1000, 8])
    @pytest.mark.parametrize("shown", [ALL, slice(2, 3)])
    def test_loss_and_gradient(self, toy_problem, make, batch, shown):
        problem = toy_problem()
        loop = bilevel(problem, to_double(make(problem, m=9)), distilled_batch=batch)
        model = loop.new_model()
        model.step(torch.rand(8, 3, 8, 8, generator=stream()), torch.zeros(8, 6))
        model.network.double()
        before = copy.deepcopy(model.network.state_dict())

        views = VIEWS[shown]
        draws = stream(5)
        rows = torch.randint(60, (16,), generator=draws)
        drawn = batch // len(views)
        index = torch.randperm(9, generator=draws)[:drawn] if drawn < 9 else torch.arange(9)

        parameters = [p.requires_grad_() for p in loop.distilled.parameters()]
        loop.generator = stream(5)
        loss = loop.outer_loss(model, shown)
        loss.backward(inputs=parameters)
        for p in parameters:
            p.requires_grad_(False)

        expected, ridge = self.twin(loop, model, rows, index, views)
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-6, atol=0)
        assert all(torch.equal(before[k], v) for k, v in model.network.state_dict().items())

        step, directions = 1e-6, stream(7)
        for p in parameters:
            direction = torch.randn(p.shape, generator=directions).double()
            start = p.clone()
            values = []
            for sign in (1, -1):
                p.copy_(start + sign * step * direction)
                values.append(self.twin(loop, model, rows, index, views, ridge)[0])
            p.copy_(start)
            slope = (values[0] - values[1]) / (2 * step)
            torch.testing.assert_close((p.grad * direction).sum(), slope, rtol=2e-4, atol=1e-8)


def pixels_as_features(problem, distilled, **settings):
    """A loop whose inner model's features are the pixels themselves, so ridge sees positions."""
    loop = bilevel(problem, distilled, real_batch=30, **settings)
    network = Network(nn.Flatten(), 192, 6, mean=problem.mean, std=problem.std).double()
    return loop, InnerModel(network, lr=0.1, momentum=0.9, weight_decay=0.0)


def linear(problem, *, order=VIEWS):
    """The problem with a teacher that is linear in pixels, hence known once pixels are aligned."""
    weight = torch.randn(192, 6, generator=stream(8), dtype=torch.float64)

    def teacher(images):
        return images.flatten(1).double() @ weight

    def representations(view):
        view = order[VIEWS.index(view)]
        return teacher(torch.stack([turned(image, view) for image in problem.images / 255]))

    return replace(problem, teacher=teacher, representations=representations)


@pytest.mark.parametrize("shown", [ALL, slice(1, 2), slice(3, 4)])
def test_images_distilled_and_real_move_together_with_their_representations(toy_problem, shown):
    """With every real image distilled, ridge regression finds the linear teacher, in any view."""
    problem = linear(toy_problem(n=220))
    loop, model = pixels_as_features(problem, to_double(pairs(problem, m=220)))
    loop.settings = replace(loop.settings, ridge=1e-12)
    assert loop.outer_loss(model, shown) < 1e-6

    wrongly_paired = linear(toy_problem(n=220), order=("identity", "rot270", "rot180", "rot90"))
    loop.problem = wrongly_paired  # right distilled targets, real ones of another rotation
    assert loop.outer_loss(model, shown) > 0.1


@pytest.mark.parametrize("batch", [1000, 12])
def test_inner_models_see_each_image_under_every_view_with_that_views_target(toy_problem, batch):
    problem = linear(toy_problem())
    distilled = to_double(pairs(problem, m=9))
    images, targets = bilevel(problem, distilled, distilled_batch=batch).inner_batch()
    assert len(images) == (36 if batch == 1000 else 12)
    torch.testing.assert_close(problem.teacher(images), targets)
    chosen = range(9) if batch == 1000 else torch.randperm(9, generator=stream())[:3].tolist()
    for row, image in enumerate(images):
        view, i = VIEWS[row // len(chosen)], chosen[row % len(chosen)]
        torch.testing.assert_close(image, turned(distilled.pixels[i], view))


def test_inner_models_ask_for_no_gradients_of_the_pairs(toy_problem):
    """Not even where these are the parameters themselves: one view, all pairs."""
    problem = toy_problem()
    distilled = pairs(problem, views=VIEWS[:1])
    for parameter in distilled.parameters():
        parameter.requires_grad_()
    batch = bilevel(problem, distilled, views=VIEWS[:1], distilled_batch=1000).inner_batch()
    assert not any(tensor.requires_grad for tensor in batch)


def test_one_view_a_step_is_drawn_evenly(toy_problem):
    problem = toy_problem()
    loop = bilevel(problem, pairs(problem), outer_views="one", outer_steps=400)
    drawn = [VIEWS[shown] for shown in loop.draw_views()]
    assert {len(views) for views in drawn} == {1}
    for view in VIEWS:
        assert 60 < drawn.count((view,)) < 140


def test_every_view_is_shown_by_default(toy_problem):
    problem = toy_problem()
    assert bilevel(problem, pairs(problem)).draw_views() == [ALL] * 6


def test_augmented_real_images_are_represented_anew(toy_problem):
    problem = toy_problem()
    seen = []

    def teacher(images):
        seen.append(images)
        return problem.teacher(images)

    loop = bilevel(replace(problem, teacher=teacher), pairs(problem), augment_real=True)
    images, targets = loop.real_batch(("identity", "rot90"))
    draws = stream()
    rows = torch.randint(60, (16,), generator=draws)
    plain = shift_and_flip(problem.images[rows] / 255, 4, draws)
    assert torch.equal(images[:16], plain)
    torch.testing.assert_close(images[16:], torch.stack([turned(x, "rot90") for x in plain]))
    assert torch.equal(targets, problem.teacher(images))
    assert len(seen) == 1


def test_copies_of_real_images_are_represented_once(toy_problem, tmp_path):
    plain, asked = toy_problem(), []

    def teacher(images):
        asked.append(len(images))
        return plain.teacher(images)

    problem = replace(plain, teacher=teacher, cache=tmp_path)
    settings = {"augment_real": True, "augmented_copies": 3, "outer_steps": 2}
    views = ("identity", "rot90")
    loop = bilevel(problem, pairs(problem, views=views), views=views, **settings)
    loop.run(quiet())
    assert sum(asked) == 60 * 3 * 2
    images, targets = loop.real_batch(views)
    torch.testing.assert_close(targets, plain.teacher(images))
    torch.testing.assert_close(images[16:], torch.stack([turned(x, "rot90") for x in images[:16]]))
    copies = [loop.copies.images(torch.full((60,), k), torch.arange(60)) for k in range(3)]
    known = {tuple(copy.flatten(1)[row].tolist()) for copy in copies for row in range(60)}
    assert {tuple(image.tolist()) for image in images[:16].flatten(1)} <= known
    asked.clear()
    again = bilevel(problem, pairs(problem, views=views), views=views, seed=1, **settings)
    again.run(quiet())
    assert not asked
    for file in tmp_path.glob("augmented-*.safetensors"):
        file.write_bytes(b"damaged")
    bilevel(problem, pairs(problem, views=views), views=views, **settings).run(quiet())
    assert sum(asked) == 60 * 3 * 2


def test_a_copy_is_its_image_shifted_and_flipped(toy_problem):
    problem = toy_problem()
    copies = bilevel(problem, pairs(problem), augment_real=True, augmented_copies=2).copies
    made = copies.images(torch.ones(60, dtype=torch.int64), torch.arange(60))
    for row, image in enumerate(problem.images / 255):
        plain = image.flip(2) if copies.flipped[1, row] else image
        top, left = copies.offsets[1, row].tolist()
        padded = nn.functional.pad(plain, (4, 4, 4, 4))
        side = image.shape[1]
        expected = padded[:, 4 + top : 4 + top + side, 4 + left : 4 + left + side]
        torch.testing.assert_close(made[row], expected)
    assert 0 < copies.flipped.float().mean() < 1 and len(copies.offsets.unique()) == 9


def run_twin(problem, loop, pool):
    """The bilevel loop without views, bases and batches, with AdamW and its schedule by hand."""
    settings, generator = loop.settings, loop.generator
    x, y = (p.clone().requires_grad_() for p in (loop.distilled.pixels, loop.distilled.codes[0]))
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (x, y)]
    members = torch.randint(len(pool), (settings.outer_steps,), generator=generator)
    losses = []
    for step, member in enumerate(members.tolist()):
        network, optimizer, age = pool[member]
        rows = torch.randint(60, (settings.real_batch,), generator=generator)
        network.eval()
        queries = network.features(problem.images[rows] / 255).detach()
        support = network.features(x)
        kernel = support @ support.T + 1
        ridge = 1e-6 * kernel.trace().detach() * torch.eye(len(kernel))
        predicted = (queries @ support.T + 1) @ torch.linalg.solve(kernel + ridge, y)
        loss = ((predicted - problem.representations("identity")[rows]) ** 2).mean()
        losses.append(float(loss.detach()))
        rate = settings.outer_lr * (1 - (1 - 1e-3) * step / settings.outer_steps)
        gradients = torch.autograd.grad(loss, [x, y])
        with torch.no_grad():
            for p, g, (m, v) in zip((x, y), gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                corrected = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p.sub_(rate * m / (1 - 0.9 ** (step + 1)) / corrected)
        if age == settings.max_age:
            network = problem.new_network("convnet", 6, generator, widths=(4, 6))
            pool[member] = (network, new_sgd(network), 0)
            continue
        network.train()
        optimizer.zero_grad()
        ((network(x.detach()) - y.detach()) ** 2).mean().backward()
        optimizer.step()
        pool[member] = (network, optimizer, age + 1)
    return x.detach(), y.detach(), losses


def new_sgd(network):
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def test_the_whole_loop_follows_a_plain_twin_through_restarts_of_the_pool(toy_problem):
    problem = toy_problem()
    settings = {"outer_steps": 12, "staggered": False}
    distilled = pairs(problem, views=VIEWS[:1])
    twin = bilevel(problem, pairs(problem, views=VIEWS[:1]), views=VIEWS[:1], **settings)
    networks = [problem.new_network("convnet", 6, twin.generator, widths=(4, 6)) for _ in range(2)]
    pool = [(network, new_sgd(network), 0) for network in networks]
    x, y, losses = run_twin(problem, twin, pool)

    checkpoint = quiet()
    bilevel(problem, distilled, views=VIEWS[:1], **settings).run(checkpoint)
    assert [point["outer_loss"] for point in checkpoint.history["outer steps"]] == pytest.approx(
        losses, rel=2e-3
    )
    # Adam's first steps go by the sign of gradients, so entries with tiny ones may go astray
    for actual, expected, start in (
        (distilled.pixels, x, pairs(problem).pixels),
        (distilled.codes[0], y, pairs(problem).codes[0]),
    ):
        assert (actual - expected).norm() < 0.02 * (expected - start).norm()


def test_ages_of_the_pool_are_staggered_by_training(toy_problem):
    problem = toy_problem()
    loop = bilevel(problem, pairs(problem), pool_size=6, max_age=5)
    ages = []

    class Watch(CheckpointedLoop):
        def steps(self, name, total, **state):
            if name == "outer steps":
                ages.extend(model.age for model in state["pool"].models)
            return super().steps(name, total, **state)

    loop.run(Watch(None, description="toy"))
    assert set(ages) <= {1, 2, 3, 4}
    assert len(set(ages)) > 1


def test_raw_pixels_reach_backbones_as_they_are(toy_problem):
    problem = toy_problem()
    distilled = pairs(problem)
    raw = bilevel(problem, distilled, raw_distilled=True)
    model = raw.new_model()
    images, _ = raw.inner_batch()
    turned_pixels = torch.stack([turned(x, view) for view in VIEWS for x in distilled.pixels])
    torch.testing.assert_close(
        model.network.features(images), model.network.backbone(turned_pixels), rtol=1e-4, atol=1e-5
    )


def test_raw_pixels_come_out_in_pixel_terms(toy_problem):
    problem = toy_problem()
    std, mean = (torch.tensor(x).view(3, 1, 1) for x in (problem.std, problem.mean))
    moved, raw, still = pairs(problem), pairs(problem), pairs(problem)
    bilevel(problem, moved, raw_distilled=True).run(quiet())
    bilevel(problem, raw, raw_distilled=True).optimise(quiet())
    bilevel(problem, still, raw_distilled=True, outer_steps=0).run(quiet())
    assert not torch.equal(raw.pixels, pairs(problem).pixels)
    torch.testing.assert_close(moved.pixels, raw.pixels * std + mean)
    torch.testing.assert_close(still.pixels, pairs(problem).pixels * std + mean)


def test_released_pool_stops_training_for_good(toy_problem):
    problem = toy_problem()
    trained = []

    class Count(CheckpointedLoop):
        def steps(self, name, total, **state):
            for step in super().steps(name, total, **state):
                yield step
                trained.append(max(len(m.optimizer.state) > 0 for m in state["pool"].models))

    settings = {"outer_steps": 30, "staggered": False, "outer_lr": 0.0}
    bilevel(problem, pairs(problem), restart=False, **settings).run(Count(None, description="t"))
    assert trained[0]
    assert not any(trained[-10:])
    trained.clear()
    bilevel(problem, pairs(problem), **settings).run(Count(None, description="t"))
    assert sum(trained[-10:]) > 4


@pytest.mark.parametrize("name", ["real_batch", "distilled_batch", "pool_size", "max_age"])
def test_nothing_of_no_size(name):
    with pytest.raises(UsageError, match=f"{name}=0: expected 1 or more"):
        replace(TINY, **{name: 0})


def test_shapes_of_any_size(toy_problem):
    problem = toy_problem(side=16)
    assert problem.shape == ImageShape(3, 16, 16)
    distilled = pairs(problem)
    bilevel(problem, distilled, outer_steps=2).run(quiet())
    assert not torch.equal(distilled.pixels, pairs(problem).pixels)
    assert not any(parameter.requires_grad for parameter in distilled.parameters())


def test_a_loop_that_diverges_stops_with_the_name_of_what_is_no_number(toy_problem):
    loop = bilevel(toy_problem(), pairs(toy_problem()), outer_lr=1e30, outer_steps=60)
    with pytest.raises(NonFiniteError, match=r"outer_loss is (nan|inf) at step"):
        loop.run(quiet())


def test_copies_of_another_teacher_are_others(toy_problem, tmp_path):
    plain = replace(toy_problem(), cache=tmp_path)
    other = replace(plain, representations=lambda view: plain.representations(view) + 1)
    settings = {"augment_real": True, "augmented_copies": 1, "outer_steps": 1}
    for problem in (plain, other):
        bilevel(problem, pairs(problem, views=("identity",)), views=("identity",), **settings).run(
            quiet()
        )
    assert len(list(tmp_path.glob("augmented-*.safetensors"))) == 2


def test_copies_without_augmentation_are_refused():
    with pytest.raises(UsageError, match="augmented_copies=3: expected augment_real=true as well"):
        BilevelSettings(outer_steps=1, outer_lr=1.0, augmented_copies=3)

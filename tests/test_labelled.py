from dataclasses import replace

import pytest
import torch

from benchmark.methods._labelled import (
    RealImages,
    hard_labelled,
    images_per_class,
    new_inner_model,
)
from benchmark.spec import UsageError


def test_images_per_class_is_the_budget_over_the_classes(labelled_problem):
    assert images_per_class("x", labelled_problem(N=12).outline) == (3, 4)


def test_a_source_without_labels_is_refused(labelled_problem):
    with pytest.raises(UsageError, match="x learns from labels"):
        images_per_class("x", replace(labelled_problem(N=12), labels=None).outline)


def test_a_single_class_is_refused(labelled_problem):
    outline = replace(labelled_problem(N=12).outline, class_sizes=(36,))
    with pytest.raises(UsageError, match=r"x learns to tell classes apart, and .* has only one"):
        images_per_class("x", outline)


def test_draws_are_different_normalised_images_of_the_class(labelled_problem):
    problem = labelled_problem(N=3)
    real = RealImages.of(problem, torch.Generator().manual_seed(0))
    drawn = real.of_class(1, 5)
    of_class = problem.images[problem.labels == 1] / 255
    distances = (real.pixels(drawn)[:, None] - of_class).abs().amax((2, 3, 4))
    assert distances.amin(1).max() < 1e-6
    assert len(distances.argmin(1).unique()) == 5
    assert len(real.of_class(1, 1000)) == 12
    everything = torch.cat([real.of_class(c, 12) for c in range(3)])
    pixels = problem.images.double() / 255
    std, mean = (torch.tensor(x).double().view(-1, 1, 1) for x in (problem.std, problem.mean))
    expected = ((pixels - mean) / std).mean((0, 2, 3))
    torch.testing.assert_close(everything.double().mean((0, 2, 3)), expected, rtol=1e-5, atol=1e-6)


def test_draws_of_each_class_are_different_images_of_it_in_any_order(labelled_problem):
    problem = labelled_problem(N=3)
    keep = torch.cat(
        [torch.arange(36)[problem.labels != 1], (problem.labels == 1).nonzero()[:4, 0]]
    )
    problem = replace(problem, images=problem.images[keep], labels=problem.labels[keep])
    real = RealImages.of(problem, torch.Generator().manual_seed(0))
    seen = [set() for _ in range(3)]
    for _ in range(150):  # each image of twelve comes first at some time
        rows = real.draw_rows_of_each_class(5)
        assert [len(part) for part in rows] == [5, 4, 5]  # all of a class with fewer
        for c, part in enumerate(rows):
            assert (problem.labels[part] == c).all()
            assert len(part.unique()) == len(part)
            seen[c].add(int(part[0]))
    assert [len(first) for first in seen] == [12, 4, 12]
    for batch, part in zip(real.batches(rows), rows, strict=True):
        expected = problem.images[part] / 255
        torch.testing.assert_close(real.pixels(batch), expected)


def test_draws_of_any_class_carry_their_labels(labelled_problem):
    problem = labelled_problem(N=3)
    real = RealImages.of(problem, torch.Generator().manual_seed(0))
    images, labels = real.of_any_class(20)
    for image, label in zip(real.pixels(images), labels, strict=True):
        of_class = problem.images[problem.labels == label] / 255
        assert (of_class - image).abs().amax((1, 2, 3)).min() < 1e-6
    assert len(labels.unique()) == 3


def test_an_inner_model_takes_normalised_images(labelled_problem):
    problem = labelled_problem(N=3)
    settings = {"widths": (4,), "norm": None}
    ours = new_inner_model(problem, "convnet", torch.Generator().manual_seed(0), **settings)
    usual = problem.new_network("convnet", 3, torch.Generator().manual_seed(0), widths=(4,))
    real = RealImages.of(problem, torch.Generator().manual_seed(0))
    batch = real.of_class(0, 4)
    torch.testing.assert_close(ours(batch), usual(real.pixels(batch)), rtol=1e-4, atol=1e-5)


def test_real_images_are_matched_in_the_runs_precision_by_the_same_weights(labelled_problem):
    problem = replace(labelled_problem(N=3), precision="bf16")
    inner = new_inner_model(problem, "convnet", torch.Generator().manual_seed(0), widths=(4,))
    real = RealImages.of(problem, torch.Generator().manual_seed(0))
    seen = real.seen_by(inner)
    assert (seen.precision, inner.precision) == ("bf16", "fp32")
    batch = real.of_class(0, 4)
    torch.testing.assert_close(seen(batch), inner(batch), rtol=2e-2, atol=2e-2)
    assert not torch.equal(seen(batch), inner(batch))
    with torch.no_grad():
        inner.head.bias += 1
    torch.testing.assert_close(seen(batch), inner(batch), rtol=2e-2, atol=2e-2)


def test_order_implies_the_labels():
    images = torch.arange(4 * 2 * 3.0).view(4, 2, 3, 1, 1) / 24
    decoded = hard_labelled(images)
    assert decoded.targets.shape == (1, 8, 4)
    assert decoded.targets[0].argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(decoded.images[5], images[2, 1])

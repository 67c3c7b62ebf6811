from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.held_out import held_out_accuracy, held_out_tenth
from benchmark.spec import LabelledImages, NonFiniteError, UsageError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_held_out_tenth_belongs_to_the_dataset():
    source = LabelledImages(
        torch.zeros(120, 3, 2, 2, dtype=torch.uint8),
        torch.zeros(120, dtype=torch.int64),
        "0123abcd",
    )
    held_out = held_out_tenth(source)
    assert held_out.sum() == 12
    assert torch.equal(held_out, held_out_tenth(source))
    assert not torch.equal(held_out, held_out_tenth(replace(source, fingerprint="another")))


def test_held_out_accuracy_is_that_of_ridge_regression():
    features = torch.randn(200, 5, generator=generator())
    labels = (features[:, 0] + 0.7 * torch.randn(200, generator=generator(1)) > 0).long()
    held_out = torch.arange(200) < 60
    x = features.double().numpy()
    x = (x - x[60:].mean(0)) / x[60:].std(0)
    y = 2.0 * labels.numpy() - 1
    weights = np.linalg.solve(
        x[60:].T @ x[60:] + 10 * np.eye(5), x[60:].T @ (y[60:] - y[60:].mean())
    )
    expected = 100 * np.mean((x[:60] @ weights + y[60:].mean() > 0) == (y[:60] > 0))
    assert 60 < expected < 95
    # the ridge hardly moves 140 points in 5 dimensions: whichever is chosen, few answers change
    assert held_out_accuracy(features, labels, held_out) == pytest.approx(expected, abs=3)


def test_few_labels_use_no_other_labels():
    centres = 10 * torch.eye(3)
    labels = torch.arange(300) % 3
    features = centres[labels] + torch.randn(300, 3, generator=generator())
    held_out = torch.arange(300) < 150
    assert held_out_accuracy(features, labels, held_out, 2) == 100
    wrong = torch.where(held_out, (labels + 1) % 3, labels)
    assert held_out_accuracy(features, wrong, held_out, 2) == 0


def test_a_tenth_of_nothing_is_refused():
    few = LabelledImages(
        images=torch.zeros(9, 1, 2, 2, dtype=torch.uint8),
        labels=torch.zeros(9, dtype=torch.int64),
        fingerprint="few",
    )
    with pytest.raises(UsageError, match="9 source images: expected 10 or more"):
        held_out_tenth(few)


def test_features_of_a_teacher_that_diverged_are_refused():
    features, held_out = torch.zeros(20, 2), torch.arange(20) % 2 == 0
    features[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="teacher's features of source images are not finite"):
        held_out_accuracy(features, torch.arange(20) % 4, held_out)

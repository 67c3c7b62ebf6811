import pytest
import torch
from torch import nn

from benchmark.loop import CheckpointedLoop
from benchmark.methods._approximation import fit_shifts, num_floats, predict_shift


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fit(codes, *, hidden=4, steps=500, seed=0, loop=None):
    return fit_shifts(
        codes,
        views=("identity", "rot90", "flip"),
        hidden=hidden,
        steps=steps,
        lr=1e-2,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=loop or CheckpointedLoop(None, description="toy"),
    )


def unexplained(codes, weights):
    """Share of the shifts' variance that the networks leave."""
    shifts = codes[1:] - codes[0]
    left = (predict_shift(weights, codes[0]) - shifts).square().sum()
    return float(left / (shifts - shifts.mean(1, keepdim=True)).square().sum())


def shifted(linear, *, m, offset=3.0):
    """Codes, and the same codes under two views that shift them linearly, and by an offset."""
    q = linear.shape[1]
    codes = normal(m, q) * torch.logspace(1, -1, q)
    shifts = codes @ linear + offset * normal(2, 1, q, seed=1)
    return torch.stack([codes, *(codes + shifts)])


def perceptron(weights, network):
    """The same network as torch's own layers."""
    q, hidden = weights["approximation_weight_1"][network].shape
    twin = nn.Sequential(nn.Linear(q, hidden), nn.ReLU(), nn.Linear(hidden, q))
    for layer, number in ((twin[0], 1), (twin[2], 2)):
        layer.weight.data = weights[f"approximation_weight_{number}"][network].T
        layer.bias.data = weights[f"approximation_bias_{number}"][network]
    return twin


def test_a_prediction_is_that_of_two_layer_perceptrons():
    weights = {
        "approximation_weight_1": normal(3, 5, 4),
        "approximation_bias_1": normal(3, 4, seed=1),
        "approximation_weight_2": normal(3, 4, 5, seed=2),
        "approximation_bias_2": normal(3, 5, seed=3),
    }
    codes = normal(7, 5, seed=4)
    for network, shift in enumerate(predict_shift(weights, codes)):
        torch.testing.assert_close(shift, perceptron(weights, network)(codes))
    parameters = [p for network in range(3) for p in perceptron(weights, network).parameters()]
    assert num_floats(3, 5, 4) == sum(p.numel() for p in parameters)
    assert num_floats(3, 5, 4) == sum(weight.numel() for weight in weights.values())


def test_a_shift_of_low_rank_is_found_even_where_images_are_few():
    low_rank = normal(2, 60, 2, seed=2) @ normal(2, 2, 60, seed=3) / 60
    codes = shifted(low_rank, m=80)
    assert unexplained(codes, fit(codes, steps=700)) < 0.03


def test_a_shift_of_full_rank_is_found_as_well_as_the_width_allows():
    codes = shifted(normal(2, 16, 16, seed=2) / 4, m=200)
    shifts = codes[1:] - codes[0]
    spectrum = torch.linalg.svdvals(shifts - shifts.mean(1, keepdim=True)).square()
    best_of_rank_4 = float(spectrum[:, 4:].sum() / spectrum.sum())
    assert unexplained(codes, fit(codes, steps=700)) < best_of_rank_4 + 0.02


def test_without_a_step_the_mean_shift_is_predicted():
    codes = shifted(normal(2, 6, 6), m=30)
    predicted = predict_shift(fit(codes, steps=0), codes[0])
    expected = (codes[1:] - codes[0]).mean(1, keepdim=True).expand(-1, 30, -1)
    torch.testing.assert_close(predicted, expected)


def test_the_scale_of_codes_does_not_matter():
    """Exactly, for a power of two: then scaling rounds nothing."""
    codes = shifted(normal(2, 6, 6), m=30)
    small, large = fit(codes, steps=50), fit(1024 * codes, steps=50)
    assert torch.equal(predict_shift(large, 1024 * codes[0]), 1024 * predict_shift(small, codes[0]))
    assert torch.equal(large["approximation_weight_1"], small["approximation_weight_1"] / 1024)


def test_what_is_logged_is_the_error_relative_to_no_shift():
    """At the first step the weights are those that no step would have changed."""
    codes, loop = shifted(normal(2, 6, 6), m=30), CheckpointedLoop(None, description="toy")
    fit(codes, steps=1, loop=loop)
    shifts = codes[1:] - codes[0]
    error = predict_shift(fit(codes, steps=0), codes[0]) - shifts
    (point,) = loop.history["approximation networks"]
    assert point["relative_error"] == pytest.approx(float(error.norm() / shifts.norm()) ** 2)
    for network, view in enumerate(("rot90", "flip")):
        expected = float(error[network].norm() / shifts[network].norm()) ** 2
        assert point[f"relative_error_{view}"] == pytest.approx(expected)


def test_a_teacher_blind_to_a_view_shifts_nothing():
    codes = normal(1, 9, 5).expand(3, -1, -1)
    assert torch.equal(predict_shift(fit(codes, steps=3), codes[0]), torch.zeros(2, 9, 5))


def test_large_sets_are_fitted_in_batches_drawn_from_the_generator():
    codes = shifted(normal(2, 6, 1, seed=2) @ normal(2, 1, 6, seed=3), m=1500)
    first, again, other = (fit(codes, steps=300, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["approximation_bias_1"], other["approximation_bias_1"])
    assert unexplained(codes, first) < 0.05
    assert not any(weight.requires_grad for weight in first.values())

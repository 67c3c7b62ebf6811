import pytest
import torch

from benchmark.methods._turns import Turns


def released_twin(images, gradients, *, drift):
    """One optimizer over all classes, stepped once per class with the others' gradients zero."""
    images = images.clone()
    parts = [images] if drift else list(images.unbind(0))
    optimizer = torch.optim.SGD(parts, lr=0.2, momentum=0.5)
    seen = []
    for outer in gradients:
        for c, slope in enumerate(outer):
            seen.append(images[c].clone())
            if drift:
                images.grad = torch.zeros_like(images)
                images.grad[c] = slope * images[c]
            else:
                for part in parts:
                    part.grad = None
                parts[c].grad = slope * images[c]
            optimizer.step()
    return images, seen


@pytest.mark.parametrize("drift", [True, False])
def test_agrees_with_one_optimizer_that_steps_class_by_class(drift):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 2, 1, 3, 3, generator=generator, dtype=torch.float64)
    slopes = torch.randn(5, 4, 2, 1, 3, 3, generator=generator, dtype=torch.float64)
    expected, seen = released_twin(images, slopes, drift=drift)
    turns = Turns(
        images=images.clone(),
        velocity=torch.zeros_like(images),
        lr=0.2,
        momentum=0.5,
        drift=drift,
    )
    met = []
    for slope in slopes:
        turns.arrive()
        met += turns.images.clone().unbind(0)
        turns.step(slope * turns.images)
    torch.testing.assert_close(turns.images, expected)
    torch.testing.assert_close(torch.stack(met), torch.stack(seen))


def test_drift_doubles_the_step_of_a_class_that_waits_long():
    images = torch.zeros(60, 1, 1, 1, 1, dtype=torch.float64)
    turns = Turns(
        images=images, velocity=torch.zeros_like(images), lr=0.2, momentum=0.5, drift=True
    )
    turns.arrive()
    turns.step(torch.ones_like(images))
    assert float(images[0]) == pytest.approx(-0.2 * 2)  # 1 + 1/2 + 1/4 + ...
    assert float(images[-1]) == pytest.approx(-0.2)

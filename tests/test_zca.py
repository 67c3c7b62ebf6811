from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmark.loop import CheckpointedLoop
from benchmark.methods._zca import Zca

RECORDED = Path(__file__).parent / "fixtures" / "zca.safetensors"


@pytest.fixture(name="images")
def _images():
    stream = torch.Generator().manual_seed(0)
    smooth = torch.rand(200, 3, 2, 2, generator=stream).repeat_interleave(3, 2)
    noise = torch.rand(200, 3, 6, 6, generator=stream)
    return (255 * (0.8 * smooth.repeat_interleave(3, 3) + 0.2 * noise)).to(torch.uint8)


def explicit(images, eps):
    """The whitening and its inverse as matrices, from the singular values of the data."""
    x = images.flatten(1).double() / 255
    mean = x.mean(0)
    _, singular, right = torch.linalg.svd(x - mean, full_matrices=True)
    variances = singular.square() / (len(x) - 1)
    scale = (variances + eps).sqrt()
    return mean, right.T / scale @ right, right.T * scale @ right


def test_whitening_is_the_symmetric_root_of_the_inverse_covariance(images):
    mean, matrix, _ = explicit(images, 0.1)
    expected = (images.flatten(1) / 255.0 - mean) @ matrix
    whitened = Zca.fit(images, eps=0.1).whiten(images)
    assert whitened.dtype == torch.float32
    torch.testing.assert_close(whitened.flatten(1), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eps", ["0.1", "0.001"])
def test_agrees_with_kornia(eps):
    """The code that DATM whitens with; its matrices are found by whitening rows of the identity."""
    recorded = load_file(RECORDED)
    images = recorded["images"]
    zca = Zca.fit(images, eps=float(eps))
    rows = torch.eye(48, dtype=torch.float64).view(48, 3, 4, 4)
    actual = {
        "mean": zca.mean,
        "transform": (zca.whiten(rows) - zca.whiten(torch.zeros_like(rows))).flatten(1),
        "inverse": (zca.unwhiten(rows) - zca.unwhiten(torch.zeros_like(rows))).flatten(1),
        "whitened": zca.whiten(images),
        "unwhitened": zca.unwhiten(zca.whiten(images) / 2),
    }
    for name, value in actual.items():
        expected = recorded[f"{eps}.{name}"]
        assert (value - expected).norm() < 1e-9 * expected.norm(), name


def test_whitened_variances_are_those_of_the_regularised_whitening(images):
    zca = Zca.fit(images, eps=1e-3)
    covariance = torch.cov(zca.whiten(images.double() / 255).flatten(1).T)
    expected = zca.variances / (zca.variances + 1e-3)
    actual = (zca.components.T @ covariance @ zca.components).diagonal()
    torch.testing.assert_close(actual, expected)
    assert expected.max() > 0.9


def test_unwhitening_undoes_whitening(images):
    zca = Zca.fit(images, eps=0.1)
    pixels = images.double() / 255
    torch.testing.assert_close(zca.unwhiten(zca.whiten(pixels)), pixels)


def test_chunks_change_nothing(images, monkeypatch):
    whole = Zca.fit(images, eps=0.1)
    monkeypatch.setattr("benchmark.methods._zca._CHUNK", 7)
    parts = Zca.fit(images, eps=0.1)
    torch.testing.assert_close(parts.variances, whole.variances)
    torch.testing.assert_close(parts.whiten(images), whole.whiten(images))


def test_a_fit_is_kept_and_a_damaged_one_is_made_again(images, tmp_path, monkeypatch):
    loop = CheckpointedLoop(None, description="toy")

    def kept(images, eps=0.1, folder=tmp_path):
        return Zca.kept(images, eps=eps, folder=folder, checkpoint=loop)

    first = kept(images)
    (file,) = tmp_path.glob("*.safetensors")
    fits, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda x: fits.append(x) or eigh(x))
    again = kept(images, eps=0.2)
    assert not fits
    assert again.eps == 0.2
    for name in ("mean", "components", "variances"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    content, expected = file.read_bytes(), first.whiten(images)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert torch.equal(kept(images).whiten(images), expected)
    assert torch.equal(kept(images, folder=None).whiten(images), expected)
    assert len(fits) == 2
    assert torch.equal(kept(images).whiten(images), expected)
    assert len(fits) == 2
    kept(images.flip(3))
    assert len(fits) == 3


def test_the_time_of_a_fit_counts_for_all_that_use_it(images, tmp_path, monkeypatch):
    first, second = (CheckpointedLoop(None, description="toy") for _ in range(2))
    monkeypatch.setattr(
        "benchmark.methods._checked_file.time.monotonic",
        iter((10.0, 10.0, 17.0, 20.0, 22.0)).__next__,
    )
    charged = {first: 0.0, second: 0.0}
    for loop in charged:
        monkeypatch.setattr(
            loop, "charge", lambda seconds, loop=loop: charged.update({loop: seconds})
        )
        Zca.kept(images, eps=0.1, folder=tmp_path, checkpoint=loop)
    assert charged == {first: 0.0, second: 5.0}

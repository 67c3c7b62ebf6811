import pytest
import torch

from benchmark.methods._zca import Zca


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
    first = Zca.kept(images, eps=0.1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    fits = []
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda x, eigh=torch.linalg.eigh: fits.append(x) or eigh(x)
    )
    again = Zca.kept(images, eps=0.2, folder=tmp_path)
    assert not fits
    assert again.eps == 0.2
    for name in ("mean", "components", "variances"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert torch.equal(
        Zca.kept(images, eps=0.1, folder=tmp_path).whiten(images), first.whiten(images)
    )
    assert torch.equal(Zca.kept(images, eps=0.1, folder=None).whiten(images), first.whiten(images))
    assert len(fits) == 2
    assert file.read_bytes() == content
    Zca.kept(images.flip(3), eps=0.1, folder=tmp_path)
    assert len(fits) == 3

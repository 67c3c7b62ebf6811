import pytest
import torch
from sklearn.decomposition import PCA

from benchmark.methods._pca import principal_components


def rows(n=200, q=12):
    stream = torch.Generator().manual_seed(0)
    scales = torch.logspace(1, -1, q)
    mixing = torch.linalg.qr(torch.randn(q, q, generator=stream)).Q
    return (torch.randn(n, q, generator=stream) * scales) @ mixing + 5


def test_agrees_with_scikit_learn():
    x = rows()
    axes, mean = principal_components(x.split(64), 5)
    twin = PCA(5, svd_solver="full").fit(x.double().numpy())
    alignment = (axes * torch.from_numpy(twin.components_).float()).sum(1)
    torch.testing.assert_close(alignment.abs(), torch.ones(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, torch.from_numpy(twin.mean_).float())


def test_axes_are_orthonormal_even_beyond_the_rank_and_far_from_the_origin():
    x = rows(n=4) + 1000
    axes, _ = principal_components([x], 9)
    torch.testing.assert_close(axes @ axes.T, torch.eye(9), rtol=0, atol=1e-5)


def test_the_largest_entry_of_each_axis_is_positive():
    axes, _ = principal_components([rows()], 12)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_chunks_do_not_matter(chunk):
    x = rows()
    expected_axes, expected_mean = principal_components([x], 12)
    axes, mean = principal_components(x.split(chunk), 12)
    torch.testing.assert_close(axes, expected_axes, rtol=0, atol=1e-6)
    torch.testing.assert_close(mean, expected_mean)


def test_more_components_than_dimensions_are_refused():
    with pytest.raises(ValueError, match="no 13 components in 12"):
        principal_components([rows()], 13)
    with pytest.raises(ValueError, match="no 1 components in 0"):
        principal_components([], 1)

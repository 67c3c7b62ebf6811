import torch
from sklearn.kernel_ridge import KernelRidge

from benchmark.methods._ridge import ridge_predict


def points(s=7, p=4, d=3, b=5):
    stream = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=stream, dtype=torch.float64)

    return normal(s, p), normal(s, d), normal(b, p)


def with_bias(features):
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def regularisation(support, ridge):
    """The trace of the kernel, written as the squared length of all support points."""
    return ridge * with_bias(support).square().sum()


def test_agrees_with_scikit_learn():
    support, targets, queries = points()
    twin = KernelRidge(alpha=float(regularisation(support, 0.02)), kernel="linear")
    twin.fit(with_bias(support).numpy(), targets.numpy())
    expected = torch.from_numpy(twin.predict(with_bias(queries).numpy()))
    torch.testing.assert_close(ridge_predict(support, targets, queries, ridge=0.02), expected)


def test_agrees_with_the_primal_closed_form():
    support, targets, queries = points(s=9, p=3)
    x = with_bias(support)
    gram = x.T @ x + regularisation(support, 0.3) * torch.eye(4, dtype=torch.float64)
    expected = with_bias(queries) @ torch.linalg.inv(gram) @ x.T @ targets
    torch.testing.assert_close(ridge_predict(support, targets, queries, ridge=0.3), expected)


def test_float32_is_precise_where_the_kernel_is_singular():
    """As with untrained inner models: features that differ little, and images that occur twice."""
    support, targets, queries = points(s=40, p=200, b=20)
    support, queries = (1 + 0.1 * features for features in (support, queries))
    support, targets = support.repeat(2, 1), targets.repeat(2, 1)
    expected = ridge_predict(support, targets, queries, ridge=1e-6)
    actual = ridge_predict(support.float(), targets.float(), queries.float(), ridge=1e-6)
    error = (actual - expected).square().mean() / expected.square().mean()
    assert error.sqrt() < 5e-3


def test_gradients_are_those_of_a_solve_with_a_constant_lambda():
    """Central differences along random directions; lambda stays at its value."""
    support, targets, queries = points()
    ridge, step = 0.02, 1e-6
    stream = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 3, generator=stream, dtype=torch.float64)
    constant = regularisation(support, ridge) * torch.eye(7, dtype=torch.float64)

    def score(s, y, q):
        kernel = with_bias(s) @ with_bias(s).T
        return (
            with_bias(q) @ with_bias(s).T @ torch.linalg.solve(kernel + constant, y) * weight
        ).sum()

    arguments = [x.clone().requires_grad_() for x in (support, targets, queries)]
    (ridge_predict(*arguments, ridge=ridge) * weight).sum().backward()
    for i, argument in enumerate(arguments):
        for _ in range(4):
            shift = torch.randn(argument.shape, generator=stream, dtype=torch.float64)
            ahead, behind = [support, targets, queries], [support, targets, queries]
            ahead[i], behind[i] = ahead[i] + step * shift, behind[i] - step * shift
            slope = (score(*ahead) - score(*behind)) / (2 * step)
            torch.testing.assert_close((argument.grad * shift).sum(), slope, rtol=1e-5, atol=1e-7)


def test_a_system_that_cannot_be_solved_gives_no_numbers_and_no_error():
    support = torch.full((3, 4), torch.inf, requires_grad=True)
    predicted = ridge_predict(support, torch.ones(3, 2), torch.ones(5, 4), ridge=1e-6)
    assert predicted.shape == (5, 2) and predicted.isnan().all()

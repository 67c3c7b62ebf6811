"""What a budget leaves besides DATM's images, logits and learned rate: its whitening's share."""

from benchmark.spec import Problem, UsageError


def left_over(problem: Problem, k: int) -> int:
    """Return how many numbers the budget leaves besides images, label logits and the rate."""
    return problem.num_floats - problem.budget.N * (problem.shape.numel + k) - 1


def expect_affordable(problem: Problem, k: int) -> None:
    """Raise a UsageError if images, logits and rate exceed the budget."""
    m, left = problem.budget.N, left_over(problem, k)
    if left < 0:
        raise UsageError(
            f"datm at N={m}: {m} images, their {k} label logits each and the rate are "
            f"{problem.num_floats - left} numbers, but the budget is {problem.num_floats}: choose "
            "a teacher with longer representations"
        )

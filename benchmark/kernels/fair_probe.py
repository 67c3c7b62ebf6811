"""The fair probe: logistic regression to convergence, its penalty chosen on held-out images."""

from functools import partial

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.operators import operations_of
from benchmark.probes.fair import FairProbe

from ._features import fitted, labelled_features
from ._plain_probing import fair_plainly

__all__ = ["fair_probe"]


def fair_probe(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the fit of one classifier on all labels; its twin is scikit-learn's.

    The twin tries all strengths too, but ends with the one that the probe chooses, as two of them
    may be equally good.

    Operations: 4 n p k for each step of each strength, and 2 n p p for the features' second moment.
    The number of steps depends on the data, so products are counted in a first run. Bytes: the
    features, read twice in each step.
    """
    n, p, k = (300, 16, 4) if small else (4000, 512, 50)
    features, labels = labelled_features(compute, n=n, p=p, k=k)
    probe = FairProbe()
    fit = partial(fitted, probe, features, labels, k=k, compute=compute)
    operations, first = operations_of(fit)
    steps = (sum(operations.values()) - 2 * n * p * p) / (4 * n * p * k)

    def fast() -> Outcome:
        found = fit()
        return found.weights[0], found.biases[0]

    def plain() -> Outcome:
        return fair_plainly(features, labels, probe, strength=float(first.strength or 0))

    return Kernel(
        shape=f"{n} images, {p} features, {k} classes",
        fast=fast,
        plain=plain,
        operations=operations,
        num_bytes=4 * n * p * (2 * steps + 4),
        twin_is_counted=False,
        tolerance=2e-2,
        tried=(
            "L-BFGS preconditioned with the inverse Hessian at constant class probabilities takes "
            "fewer steps where features are correlated, as those of networks are; each strength "
            "starts from the previous solution, and the search stops early. Class-major layout, as "
            "in `paper-probe`. Where bf16 is faster, it is used most of the way, and float32 for "
            "the last few steps: on 50 000 images, 2 048 features and 100 classes that takes 45 s "
            "instead of 70 on one thread, and scikit-learn 492 s for the same three strengths."
        ),
    )

"""The published linear probe: SGD on cached features."""

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.probes.paper import PaperProbe

from ._features import fitted, labelled_features
from ._plain_probing import paper_plainly

__all__ = ["paper_probe"]


def paper_probe(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the fit of one classifier on all labels, with fewer steps than published.

    Operations: 4 s b k p for s steps on batches of b images. Bytes: in each step a batch that is
    read from the features, written, and read twice; weights and velocity, read and written.
    """
    n, p, k, steps, batch = (60, 8, 4, 5, 20) if small else (4096, 2048, 100, 100, 512)
    features, labels = labelled_features(compute, n=n, p=p, k=k)
    features /= features.norm(dim=1).mean()  # a scale that suits the published learning rate
    probe = PaperProbe(steps=steps, batch=batch)

    def fast() -> Outcome:
        found = fitted(probe, features, labels, k=k, compute=compute)
        return found.weights[0], found.biases[0]

    def plain() -> Outcome:
        return paper_plainly(features, labels, probe, k=k)

    return Kernel(
        shape=f"{n} images, {p} features, {k} classes, {steps} steps of {batch}",
        fast=fast,
        plain=plain,
        operations={"matrix product fp32": 4 * steps * batch * k * p},
        num_bytes=4 * steps * (4 * batch * p + 5 * k * p),
        tolerance=1e-3,
        tried=(
            "Batches gathered at once, the gradient in closed form, and a class-major layout, in "
            "which products with few classes are fast on a CPU. On a GPU, steps are replayed from "
            "a CUDA graph, which every call captures anew; not measured: see the plan for an H100."
        ),
    )

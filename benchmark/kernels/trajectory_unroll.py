"""The outer gradient of DATM through a trajectory of inner steps."""

import torch
from torch import Tensor

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._trajectory import FlatNetwork, SoftLabelLoss, SoftSet, cut, match
from benchmark.spec import ImageShape

from ._cost import cost_of
from ._labelled import new_classifiers
from ._setting import normal, stream

__all__ = ["trajectory_unroll"]

_TRIED = (
    "An outer step of `datm` is this, and an update. Graphs are held for segments of 2 sqrt(T) "
    "steps instead of all T: that takes 12 forward passes per image and step (9 in the last "
    "segment) instead of 9, so it cannot be faster in the same precision. At T = 40, segments of "
    "sqrt(T) take 5 % more operations, and half the memory. Pulling the adjoint back step by step "
    "held one graph, but took 15. In bf16 where that is faster, which changes the gradient of the "
    "images by 6 to 8 %. The second derivative of instance norm in closed form saved a fifth of "
    "the total time: PyTorch's is a chain of elementwise operations. There is no CUDA graph of an "
    "unroll, in which the augmentation differs from step to step: it would have to be pulled back "
    "step by step, which again takes 15. Experts are not captured either: at the rates that "
    "the plan assumes for an H100, graphs would take a twentieth off their steps on 256 images."
)


def trajectory_unroll(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the matching of a trajectory of T steps on batches of b distilled images.

    It is an outer step of `datm` without the update.

    Operations per image, with F for a forward pass and f for its first layer: 3 F - f for each step
    outside the last segment, without a graph, and 9 F - 3 f for each of the T steps with its graph
    and the pass back through it (the step, and twice each of its three products). The head
    likewise, without f. Bytes: those of as many forward passes.
    """
    k, m, b, steps, side, widths = (
        (5, 10, 5, 8, 8, (8, 8)) if small else (100, 100, 20, 40, 32, (128, 128, 128))
    )
    fast_loss, plain_loss = (
        SoftLabelLoss.draw(
            FlatNetwork(classifier),
            b,
            m=m,
            num_steps=steps,
            generator=stream("batches", compute.device),
        )
        for classifier in new_classifiers(
            compute, side=side, widths=widths, num_outputs=k, precision=compute.precision
        )
    )
    distilled = SoftSet(
        images=normal("distilled", m, 3, side, side, compute=compute),
        logits=normal("logits", m, k, compute=compute),
        lr=torch.tensor(0.01, device=compute.device),
    )
    start = fast_loss.network.weights
    target = start + 0.01 * normal("expert", len(start), compute=compute)

    def fast() -> Outcome:
        loss, gradient = match(
            distilled, inner_loss=fast_loss, start=start, target=target, num_steps=steps
        )
        return loss, gradient.images, gradient.logits, gradient.lr

    def plain() -> Outcome:
        return _unrolled(distilled, plain_loss, start, target, num_steps=steps)

    cost = cost_of(fast_loss.network.network, ImageShape(3, side, side))
    first = steps - len(cut(steps, None)[-1])
    passes = b * (3 * first + 9 * steps)
    return Kernel(
        shape=f"{steps} steps on {b} of {m} images of 3x{side}x{side}, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=cost.times(
            backbone=passes * cost.forward - b * (first + 3 * steps) * cost.first,
            head=passes * cost.head,
        ),
        num_bytes=passes * cost.num_bytes,
        # fp32: the twin's own gradient changes by 4e-3 if its inputs do by a rounding
        tolerance=0.2 if compute.precision == "bf16" else 1e-3 if small else 1e-2,
        tried=_TRIED,
    )


def _unrolled(
    distilled: SoftSet, inner_loss: SoftLabelLoss, start: Tensor, target: Tensor, *, num_steps: int
) -> Outcome:
    """Differentiate through all steps at once, with one graph."""
    images, logits, lr = (
        x.clone().requires_grad_() for x in (distilled.images, distilled.logits, distilled.lr)
    )
    weights = start.clone().requires_grad_()
    for step in range(num_steps):
        loss = inner_loss(weights, images, logits, step)
        (slope,) = torch.autograd.grad(loss, weights, create_graph=True)
        weights = weights - lr * slope
    loss = (weights - target).square().sum() / (start - target).square().sum()
    return (loss.detach(), *torch.autograd.grad(loss, (images, logits, lr)))

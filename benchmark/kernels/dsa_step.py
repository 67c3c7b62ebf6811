"""One outer step of `dsa`, and the training of its inner model before the next."""

from dataclasses import dataclass

from torch import Tensor

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._gradient_matching import ClassMatching
from benchmark.methods._labelled import RealImages
from benchmark.methods.dsa import Dsa
from benchmark.spec import Problem

from ._cost import total
from ._labelled import labelled_problems
from ._matching import gradient_matching_operations, image_costs, match_gradients_plainly
from ._supervised_step import last_gradient, one_step

__all__ = ["dsa_step"]


@dataclass(frozen=True, kw_only=True)
class _Plain(Dsa):
    """The same loop around straightforward matching."""

    def _outer_gradient(
        self, matching: ClassMatching, images: Tensor, real: RealImages
    ) -> tuple[Tensor, Tensor]:
        return match_gradients_plainly(matching.network, images, real, self.real_batch)


def dsa_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the step for some classes with ten images each, and fifty inner epochs.

    Operations: those of `gradient-matching`, and 3 F - f for every image of an inner epoch. Bytes:
    those of as many forward passes.
    """
    k, ipc, real_batch, epochs, side, widths = (
        (3, 2, 6, 3, 8, (8, 8)) if small else (2, 10, 256, 50, 32, (128, 128, 128))
    )
    method = Dsa(
        recipe="cifar100-ipc10",
        inner_epochs=epochs,
        real_batch=real_batch,
        inner_widths=widths,
    )
    problem, of_twin = labelled_problems(compute, k=k, per_class=real_batch + 1, ipc=ipc, side=side)

    def stepped(method: Dsa, problem: Problem) -> Outcome:
        change, loop = one_step(method, problem)
        return (change, *last_gradient(loop.state["inner_model"]))

    seen, own = image_costs(compute, k=k, side=side, widths=widths)
    of_real, of_distilled = k * real_batch, k * ipc
    return Kernel(
        shape=(
            f"{k} classes, {real_batch} real images and {ipc} distilled each, {epochs} inner "
            f"epochs, ConvNet {widths}"
        ),
        fast=lambda: stepped(method, problem),
        plain=lambda: stepped(_Plain(**vars(method)), of_twin),
        operations=total(
            gradient_matching_operations(seen, own, of_real=of_real, of_distilled=of_distilled),
            own.training(epochs * of_distilled),
        ),
        num_bytes=(3 * of_real * seen.num_bytes + (7 + 3 * epochs) * of_distilled * own.num_bytes),
        # fp32: the twin's last inner gradient changes by 0.05 if its inputs do by a rounding
        tolerance=0.2 if compute.precision == "bf16" else 1e-3 if small else 0.1,
        tried=(
            "The matching as in `gradient-matching`. Inner models are trained in fp32, by the same "
            "code in the twin: two thirds of the operations. Their steps are no CUDA graphs: at "
            "rates that the plan assumes for an H100, memory bounds most of the operators, and "
            "graphs would take off a seventh on 100 images and a twentieth on 256."
        ),
    )

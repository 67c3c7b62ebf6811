"""One outer step of `krr-st` or `ours`: the library's, and a straightforward twin.

The plain step runs the teacher on its real images, and processes views one by one.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmark import views as predefined
from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._distilled import Distilled
from benchmark.methods._outer_forecast import ridge_operations
from benchmark.methods._outer_loop import Bilevel, BilevelSettings
from benchmark.network import Network
from benchmark.spec import Budget, ImageShape, Problem

from ._cost import cost_of, total
from ._ridge import plain_ridge
from ._setting import MEAN, STD, BareLoop, moved, networks, pixels, stream

Decode = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class OuterStep:
    """A step that starts from the same state every time.

    Attributes:
        settings: of the loop, of which one step is taken.
        distilled: the pairs that a step starts from; it does not change them.
        decode: the twin's decoding of images and codes [v m d] from the pairs' parameters.
        views: of every image.
        side: of an image.
        d: length of a representation, and number of the teacher's features.
        compute: of the library's step.
    """

    settings: BilevelSettings
    distilled: Distilled
    decode: Decode
    views: tuple[str, ...]
    side: int
    d: int
    compute: Compute

    def kernel(self, *, shape: str, tolerance: float, tried: str) -> Kernel:
        """Return the fast and the plain step, with what the fast one takes.

        Both return the loss, its gradients, and the change of the inner model's weights.
        Operations, with F for a forward pass of the backbone, f for its first layer, b real images,
        m distilled ones and v views: v b F for real images, 2 v m F for distilled ones (no gradient
        of the weights), 3 v m F - v m f and three passes of the head for the inner step, and ridge
        regression. Bytes: what the backbone reads and writes.
        """
        inner, plain_inner = networks(
            self.compute, self.side, "convnet", self.d, **self.settings.inner_settings
        )
        fast, plain = self._steps(inner, plain_inner)
        cost = cost_of(inner, ImageShape(3, self.side, self.side))
        v, m = len(self.views), self.distilled.codes.shape[1]
        pairs, queries = v * m, v * self.settings.real_batch
        of_features, others = ridge_operations(s=pairs, p=inner.num_features, b=queries, d=self.d)
        # TF32, which has no rate of its own, is at most as fast as bf16
        in_tf32 = self.compute.device.type == "cuda" and self.compute.precision == "bf16"
        return Kernel(
            shape=shape,
            fast=fast,
            plain=plain,
            operations=total(
                cost.times(backbone=(queries + 2 * pairs) * cost.forward),
                cost.training(pairs),
                {"matrix product fp32": others},
                {"matrix product bf16" if in_tf32 else "matrix product fp32": of_features},
            ),
            num_bytes=(queries + (2 + 3) * pairs) * cost.num_bytes,
            tolerance=tolerance,
            tried=tried,
        )

    def _steps(
        self, inner: Network, plain_inner: Network
    ) -> tuple[Callable[[], Outcome], Callable[[], Outcome]]:
        images = pixels(256, self.side, self.compute)
        # the stem of the released teachers, in solo-learn as in KRR-ST
        stem = {"width": self.d / 512, "stem_padding": 2}
        _, teacher = networks(self.compute, self.side, "resnet18", 1, **stem)
        teacher.eval()
        representations = {view: _represented(teacher, images, view) for view in self.views}

        def fast() -> Outcome:
            model, distilled, loop = deepcopy(inner), deepcopy(self.distilled), BareLoop()
            gradients = [_caught(parameter) for parameter in distilled.parameters()]
            problem = Problem(
                source="random",
                images=images,
                representations=representations.__getitem__,
                teacher=teacher.features,
                labels=None,
                num_classes=None,
                mean=MEAN,
                std=STD,
                budget=Budget(len(images)),
                new_network=lambda *_, **__: model,
            )
            Bilevel(
                self.settings, distilled, self.views, problem=problem, generator=self._draws()
            ).run(loop)
            loss = torch.as_tensor(loop.logged["outer_loss"]).detach()
            return (loss, *(caught[0] for caught in gradients), *moved(inner, model))

        def plainly() -> Outcome:
            model = deepcopy(plain_inner)
            return (*self._plain_step(model, teacher, images), *moved(plain_inner, model))

        return fast, plainly

    def _draws(self) -> torch.Generator:
        return stream("draws", self.compute.device)

    def _plain_step(self, model: Network, teacher: Network, images: Tensor) -> Outcome:
        settings, generator = self.settings, self._draws()
        parameters = [p.detach().requires_grad_() for p in deepcopy(self.distilled).parameters()]
        device = images.device
        torch.randint(1, (1,), generator=generator, device=device)  # the only member of the pool
        size = (settings.real_batch,)
        rows = torch.randint(len(images), size, generator=generator, device=device)
        model.eval()
        with torch.no_grad():
            real = [predefined.apply(view, images[rows] / 255) for view in self.views]
            wanted = torch.cat([teacher.features(x) for x in real])
            queries = torch.cat([model.features(x) for x in real])
        distilled, codes = self.decode(parameters)
        support = torch.cat(
            [model.features(predefined.apply(view, distilled)) for view in self.views]
        )
        predicted = plain_ridge(support, codes.flatten(0, 1), queries, ridge=settings.ridge)
        loss = mse_loss(predicted, wanted)
        gradients = torch.autograd.grad(loss, parameters)
        optimizer = torch.optim.AdamW(parameters, lr=settings.outer_lr, weight_decay=0.0)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        self._plain_inner_step(model, parameters)
        return (loss.detach(), *gradients)

    def _plain_inner_step(self, model: Network, parameters: Sequence[Tensor]) -> None:
        settings = self.settings
        with torch.no_grad():
            distilled, codes = self.decode([parameter.detach() for parameter in parameters])
            batch = torch.cat([predefined.apply(view, distilled) for view in self.views])
        model.train()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings.inner_lr,
            momentum=settings.inner_momentum,
            weight_decay=settings.inner_weight_decay,
        )
        mse_loss(model(batch), codes.flatten(0, 1)).backward()
        optimizer.step()


@torch.no_grad()
def _represented(teacher: Network, images: Tensor, view: str) -> Tensor:
    return teacher.features(predefined.apply(view, images / 255))


def _caught(parameter: Tensor) -> list[Tensor]:
    """Return a list to which a hook appends the gradients of a parameter."""
    caught: list[Tensor] = []
    parameter.requires_grad_().register_hook(lambda gradient: caught.append(gradient.clone()))
    return caught

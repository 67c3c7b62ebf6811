"""SGD with momentum over one tensor whose classes are updated in turn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Classes take turns within an outer step; momentum may move the others meanwhile.

    When one optimizer has the images of all k classes and steps once per class, every such step
    also moves the k - 1 other classes by their decaying velocity v. Between two of its own
    gradients, a class that waits for j turns drifts by ``-lr v (m + m^2 + ... + m^j)`` and its
    velocity falls to ``m^j v``. As no turn uses another class's images, the drift before the turns,
    all gradients, and the steps with the drift after them can each be computed for all classes at
    once.

    Attributes:
        images, velocity: [k ipc c h w], changed in place.
        lr, momentum: of SGD, ``v = m v + g`` and ``x = x - lr v``.
        drift: whether waiting classes move (the released IDM) or stay fixed.
    """

    images: Float[Tensor, "k ipc c h w"]
    velocity: Float[Tensor, "k ipc c h w"]
    lr: float
    momentum: float
    drift: bool

    def arrive(self) -> None:
        """Move every class to where it is when its turn comes."""
        turns = torch.arange(len(self.images), device=self.images.device)
        self._wait(turns)

    def step(self, gradient: Float[Tensor, "k ipc c h w"]) -> None:
        """Step every class in its turn, then let it wait until the last turn is over."""
        self.velocity.mul_(self.momentum).add_(gradient)
        self.images.sub_(self.lr * self.velocity)
        turns = torch.arange(len(self.images), device=self.images.device)
        self._wait(turns.flip(0))

    def _wait(self, turns: Tensor) -> None:
        if not self.drift:
            return
        decay = self.momentum ** turns.to(self.velocity.dtype).view(-1, 1, 1, 1, 1)
        total = self.momentum * (1 - decay) / (1 - self.momentum)
        self.images.sub_(self.lr * total * self.velocity)
        self.velocity.mul_(decay)

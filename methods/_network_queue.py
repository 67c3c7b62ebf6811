"""A queue of networks of different ages, trained on real images, as in IDM."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.network import Network

from ._trained import Trained, descend


class QueuedModel(Trained):
    """A classifier, and a meter of its training accuracy."""

    def __init__(
        self, network: Network, *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(network, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._correct = torch.zeros((), dtype=torch.int64, device=network.head.weight.device)
        self._seen = 0

    @property
    def accuracy(self) -> Float[Tensor, ""]:
        """Accuracy in per cent on training batches since the last reset, 0 if there were none."""
        return 100 * self._correct / max(1, self._seen)

    def reset_meter(self) -> None:
        """Forget the images seen so far."""
        self._correct.zero_()
        self._seen = 0

    def train(self, images: Float[Tensor, "b c h w"], labels: Int64[Tensor, " b"]) -> None:
        """Take one step on a labelled batch, counting correct predictions before it."""
        logits = descend(
            self.network, self.optimizer, images, lambda logits: cross_entropy(logits, labels)
        )
        self._correct += (logits.argmax(1) == labels).sum()
        self._seen += len(labels)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {**super().state_dict(), "correct": self._correct, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the model that `state` was taken from."""
        super().load_state_dict(state)
        self._correct.copy_(state["correct"])
        self._seen = state["seen"]


class NetworkQueue:
    """First in, first out: at most `size` models, of which random ones are used and trained.

    Args:
        new_model: makes a fresh model from a generator.
        initial: number of initial models.
        size: maximum number of models.
        generator: of new models and choices.
    """

    def __init__(
        self,
        new_model: Callable[[torch.Generator], QueuedModel],
        *,
        initial: int,
        size: int,
        generator: torch.Generator,
    ) -> None:
        self.size = size
        self._new_model = new_model
        self._generator = generator
        self.models = [new_model(generator) for _ in range(initial)]

    def push(self) -> None:
        """Add a fresh model and, if the queue was full, drop the oldest."""
        self.models = [*self.models, self._new_model(self._generator)][-self.size :]

    def choose(self, num: int) -> list[QueuedModel]:
        """Return `num` distinct models drawn at random, or all if there are fewer."""
        device = self._generator.device
        order = torch.randperm(len(self.models), generator=self._generator, device=device)
        return [self.models[i] for i in order[:num].tolist()]

    def reset_meters(self) -> None:
        """Reset the meter of every model."""
        for model in self.models:
            model.reset_meter()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {"models": [model.state_dict() for model in self.models]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the queue that `state` was taken from, however long it was."""
        unused = torch.Generator(self._generator.device)
        self.models = [self._new_model(unused) for _ in state["models"]]
        for model, saved in zip(self.models, state["models"], strict=True):
            model.load_state_dict(saved)

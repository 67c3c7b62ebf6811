"""A pool of inner models of different ages."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmark.captured import CapturedStep, tensors_of
from benchmark.network import Network

from ._trained import Trained, descend


class InnerModel(Trained):
    """A regression network, with its age in inner steps."""

    def __init__(
        self, network: Network, *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(network, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.age = 0
        self._descend = self._captured()

    def step(self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b d"]) -> None:
        """Take one inner step of regression (mean squared error) and increment the age."""
        self._descend(images, targets)
        self.age += 1

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {**super().state_dict(), "age": self.age}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the model that `state` was taken from."""
        super().load_state_dict(state)
        self._descend = self._captured()  # the optimizer has other tensors now
        self.age = state["age"]

    def _captured(self) -> CapturedStep:
        network, optimizer = self.network, self.optimizer

        def run(images: Tensor, targets: Tensor) -> tuple[()]:
            descend(network, optimizer, images, lambda outputs: mse_loss(outputs, targets))
            return ()

        return CapturedStep(run, partial(tensors_of, network, optimizer))


class Pool:
    """Inner models of different ages; one that reaches `max_age` is replaced by a fresh one.

    With `restart=False` a slot keeps the age of its replaced model, so that it is replaced again at
    every later visit and never trains, as in the released KRR-ST code.
    """

    def __init__(
        self, size: int, new_model: Callable[[], InnerModel], *, max_age: int, restart: bool
    ) -> None:
        self.max_age = max_age
        self.restart = restart
        self._new_model = new_model
        self.models = [new_model() for _ in range(size)]

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> InnerModel:
        return self.models[index]

    def renew_if_old(self, index: int) -> bool:
        """Replace a model that has reached `max_age`; say whether it was."""
        age = self.models[index].age
        if age < self.max_age:
            return False
        self.models[index] = self._new_model()
        if not self.restart:
            self.models[index].age = age
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {"models": [model.state_dict() for model in self.models]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the pool that `state` was taken from."""
        for model, saved in zip(self.models, state["models"], strict=True):
            model.load_state_dict(saved)

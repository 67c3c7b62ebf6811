"""A network with its optimizer, the basis of models in a pool or a queue."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.network import Network, in_mode


class Trained:
    """A network, in evaluation mode except during its steps, with its SGD optimizer."""

    def __init__(
        self, network: Network, *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        self.network = network.eval()
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the model that `state` was taken from."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def descend(
    network: Network,
    optimizer: torch.optim.Optimizer,
    images: Float[Tensor, "b c h w"],
    loss: Callable[[Float[Tensor, "b k"]], Float[Tensor, ""]],
) -> Float[Tensor, "b k"]:
    """Take one step on a loss of the outputs; return the outputs before the step."""
    with in_mode(network, training=True):
        outputs: Tensor = network(images)
        optimizer.zero_grad(set_to_none=True)
        loss(outputs).backward()
        optimizer.step()
    return outputs.detach()

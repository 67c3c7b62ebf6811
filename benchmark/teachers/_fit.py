"""The training loop of all kinds of teachers: shuffled epochs, warm-up and cosine schedule."""

from collections.abc import Callable
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from timm.optim.lars import Lars
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from benchmark.ranges import expect_counts, expect_not_negative, expect_positive
from benchmark.spec import Loop, UsageError

Optimizer = Literal["lars", "sgd", "adamw"]

_MOMENTUM = 0.9  # solo-learn, solo/args/pretrain.py (LARS); also in the usual SGD recipe
_TRUST = 0.02  # solo-learn, scripts/pretrain/cifar/barlow.yaml: eta
_FIRST_LR = 3e-5  # solo-learn, solo/methods/base.py: warmup_start_lr


@runtime_checkable
class Recipe(Protocol):
    """What the loop needs from a kind of teacher."""

    @property
    def epochs(self) -> int:
        """Passes over the images; the last, incomplete batch of each is dropped."""

    @property
    def batch_size(self) -> int:
        """Images in a step."""

    @property
    def optimizer(self) -> Optimizer:
        """Which optimizer, see `new_optimizer`."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""

    @property
    def weight_decay(self) -> float:
        """Of weights; biases and norms have none."""

    @property
    def warmup_epochs(self) -> int:
        """Epochs of linear warm-up, before the cosine decay to zero."""

    @property
    def probe_every(self) -> int:
        """Epochs between two evaluations of the held-out accuracy."""

    @property
    def compile(self) -> bool:
        """Whether the backbone is compiled, see `prepared`."""


def fit(
    recipe: Recipe,
    module: nn.Module,
    loss: Callable[[Int64[Tensor, " b"]], Float[Tensor, ""]],
    *,
    num_images: int,
    probe: Callable[[], float],
    generator: torch.Generator,
    checkpoint: Loop,
) -> int:
    """Minimise `loss` (a function of the indices of a batch); return the number of steps.

    Logs the loss and, as `held_out`, the last result of `probe`; the first is of the untrained
    network.

    Raises:
        UsageError: a batch is larger than the dataset, or compiling fails.
    """
    per_epoch = _steps_per_epoch(recipe, num_images)
    optimizer = new_optimizer(recipe, module)
    schedule = new_schedule(recipe, optimizer, per_epoch)
    order = torch.zeros(num_images, dtype=torch.int64, device=generator.device)
    held_out = torch.zeros((), dtype=torch.float64)
    total = recipe.epochs * per_epoch
    steps = checkpoint.steps(
        "pretraining",
        total,
        module=module,
        optimizer=optimizer,
        generator=generator,
        order=order,
        held_out=held_out,
    )
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            torch.randperm(num_images, generator=generator, out=order)
            if epoch % recipe.probe_every == 0:
                held_out.fill_(probe())
        schedule.step_update(step)
        try:
            value = loss(order[position * recipe.batch_size :][: recipe.batch_size])
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).splitlines()[0]
            raise UsageError(f"teacher.compile=true: {reason}; expected false here") from error
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        checkpoint.log(step, loss=value, held_out=float(held_out))
    return total


def new_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; biases and norms have no weight decay (and no trust ratio).

    `lars` is timm's with the trust ratio clipped. Its update is solo-learn's: weights move by lr
    min(eta |w| / (|g| + decay |w|) / lr, 1) (g + decay w), with momentum.
    """
    parameters = list(module.parameters())
    weights = {
        "params": [p for p in parameters if p.ndim > 1],
        "weight_decay": recipe.weight_decay,
    }
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW([weights, others], lr=recipe.lr, fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD([weights, others], lr=recipe.lr, momentum=_MOMENTUM, fused=True)
    lars: torch.optim.Optimizer = Lars(
        [weights | {"always_adapt": True}, others],
        lr=recipe.lr,
        momentum=_MOMENTUM,
        trust_coeff=_TRUST,
        trust_clip=True,
    )
    return lars


def new_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, per_epoch: int
) -> CosineLRScheduler:
    """Return linear warm-up and cosine decay to zero; the rate depends only on the step."""
    warmup = recipe.warmup_epochs * per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * per_epoch - warmup,
        warmup_t=warmup,
        warmup_prefix=True,
        warmup_lr_init=_FIRST_LR,
        t_in_epochs=False,
    )


def prepared(recipe: Recipe, backbone: nn.Module) -> nn.Module:
    """Return `backbone`, wrapped by torch.compile if the recipe says so."""
    return cast("nn.Module", torch.compile(backbone)) if recipe.compile else backbone


def pixels(images: Tensor, batch: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Return the images of a batch in [0, 1]."""
    return images[batch.to(images.device)].float() / 255


def check(recipe: Recipe) -> None:
    """Refuse settings that are invalid for any dataset.

    Raises:
        UsageError: for the first one.
    """
    expect_counts(recipe, "epochs", "probe_every")
    expect_positive(recipe, "lr")
    expect_not_negative(recipe, "weight_decay", "warmup_epochs")
    if recipe.batch_size < 2:
        raise UsageError(f"batch_size={recipe.batch_size}: expected 2 or more")
    if recipe.warmup_epochs >= recipe.epochs:
        raise UsageError(
            f"warmup_epochs={recipe.warmup_epochs}: expected fewer than epochs={recipe.epochs}"
        )


def _steps_per_epoch(recipe: Recipe, num_images: int) -> int:
    if recipe.batch_size > num_images:
        raise UsageError(
            f"teacher.batch_size={recipe.batch_size}: expected 2 to the {num_images} source images"
        )
    return num_images // recipe.batch_size

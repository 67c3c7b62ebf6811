"""The training loop of all kinds of teachers: shuffled epochs, warm-up and cosine schedule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from timm.optim.lars import Lars
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from benchmark.ranges import expect_counts, expect_not_negative, expect_positive
from benchmark.settings import NEUTRAL
from benchmark.spec import Loop, Storage, UsageError

Optimizer = Literal["lars", "sgd", "adamw"]

_MOMENTUM = 0.9  # solo-learn, solo/args/pretrain.py (LARS); also in the usual SGD recipe
_TRUST = 0.02  # solo-learn, scripts/pretrain/cifar/barlow.yaml: eta
_FIRST_LR = 3e-5  # solo-learn, solo/methods/base.py: warmup_start_lr


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a teacher is trained: what all kinds of teachers have in common.

    Attributes:
        model: the backbone.
        epochs: passes over the images; the last, incomplete batch of each is dropped.
        batch_size: images in a step.
        optimizer: see `new_optimizer`; `adamw` trains small networks faster.
        lr: peak learning rate.
        weight_decay: of weights; biases and norms have none.
        warmup_epochs: of linear warm-up, before the cosine decay to zero.
        standardise: whether to standardise representations by their statistics on the source
            images, which the teacher stores.
        storage: precision of the stored weights.
        probe_every: epochs between two evaluations of held-out accuracy; changes no weight.
        compile: the backbone, by torch.compile; pays off only in long runs, as it takes a minute.
    """

    model: str
    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr: float
    weight_decay: float
    warmup_epochs: int
    standardise: bool = False
    storage: Storage = "fp32"
    probe_every: int = field(default=10, metadata=NEUTRAL)
    compile: bool = field(default=False, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        """Refuse settings that are invalid for any dataset.

        Raises:
            UsageError: for the first one.
        """
        expect_counts(self, "epochs", "probe_every")
        expect_positive(self, "lr")
        expect_not_negative(self, "weight_decay", "warmup_epochs")
        if self.batch_size < 2:
            raise UsageError(f"batch_size={self.batch_size}: expected 2 or more")
        if self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"warmup_epochs={self.warmup_epochs}: expected fewer than epochs={self.epochs}"
            )


def fit(
    training: Training,
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
    per_epoch = _steps_per_epoch(training, num_images)
    optimizer = new_optimizer(training, module)
    schedule = new_schedule(training, optimizer, per_epoch)
    order = torch.zeros(num_images, dtype=torch.int64, device=generator.device)
    held_out = torch.zeros((), dtype=torch.float64)
    total = training.epochs * per_epoch
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
            if epoch % training.probe_every == 0:
                held_out.fill_(probe())
        schedule.step_update(step)
        try:
            value = loss(order[position * training.batch_size :][: training.batch_size])
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).splitlines()[0]
            raise UsageError(f"teacher.compile=true: {reason}; expected false here") from error
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        checkpoint.log(step, loss=value, held_out=float(held_out))
    return total


def new_optimizer(training: Training, module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer; biases and norms have no weight decay (and no trust ratio).

    `lars` is timm's with the trust ratio clipped. Its update is solo-learn's: weights move by lr
    min(eta |w| / (|g| + decay |w|) / lr, 1) (g + decay w), with momentum.
    """
    parameters = list(module.parameters())
    weights = {
        "params": [p for p in parameters if p.ndim > 1],
        "weight_decay": training.weight_decay,
    }
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    if training.optimizer == "adamw":
        return torch.optim.AdamW([weights, others], lr=training.lr, fused=True)
    if training.optimizer == "sgd":
        return torch.optim.SGD([weights, others], lr=training.lr, momentum=_MOMENTUM, fused=True)
    lars: torch.optim.Optimizer = Lars(
        [weights | {"always_adapt": True}, others],
        lr=training.lr,
        momentum=_MOMENTUM,
        trust_coeff=_TRUST,
        trust_clip=True,
    )
    return lars


def new_schedule(
    training: Training, optimizer: torch.optim.Optimizer, per_epoch: int
) -> CosineLRScheduler:
    """Return linear warm-up and cosine decay to zero; the rate depends only on the step."""
    warmup = training.warmup_epochs * per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=training.epochs * per_epoch - warmup,
        warmup_t=warmup,
        warmup_prefix=True,
        warmup_lr_init=_FIRST_LR,
        t_in_epochs=False,
    )


def prepared(training: Training, backbone: nn.Module) -> nn.Module:
    """Return `backbone`, wrapped by torch.compile if so set."""
    return cast("nn.Module", torch.compile(backbone)) if training.compile else backbone


def pixels(images: Tensor, batch: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Return the images of a batch in [0, 1]."""
    return images[batch.to(images.device)].float() / 255


def _steps_per_epoch(training: Training, num_images: int) -> int:
    if training.batch_size > num_images:
        raise UsageError(
            f"teacher.batch_size={training.batch_size}: expected 2 to {num_images}, the number of "
            "images it is trained on"
        )
    return num_images // training.batch_size

"""Expert trajectories: weights of networks during training on real images.

Each expert starts from a fresh network and takes plain SGD steps in the direction of GSAM (Zhuang
et al., ICLR 2022), adaptive as in ASAM. Trajectory matching adopted it from FTD (Du et al., CVPR
2023), as flat trajectories are easier to match. With the gradient g at the weights w ::

    e   = rho w^2 g / (|| |w| g || + 1e-12)         climb, each weight in proportion to its size
    g_p = gradient at w + e
    g_v = g - cos(g, g_p) ||g|| g_p / ||g_p||       what of g is orthogonal to g_p
    w  <- w - lr (g_p - alpha g_v)

All in single precision, as released: e changes a weight by a few millionths of itself, which half
precision would round away, so that g_p would differ from g by rounding alone. On a GPU convolutions
are in TF32, as they were in the released code, and rounding is a large part of g_p - g.

A snapshot of the weights is saved after every epoch, each in its own file. The random numbers of an
epoch depend on the expert, the epoch and all settings of the training, and there is no momentum, so
a snapshot follows from the previous one: interrupted training resumes after its last complete
epoch, and a missing or damaged file is recreated, with the same numbers (on a GPU, up to rounding).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark import rng
from benchmark.differentiable_augmentation import draw_each
from benchmark.files import expect_room, lock
from benchmark.memory import GIB
from benchmark.spec import Loop, NonFiniteError, Storage, UsageError

from ._checked_file import charge_for, read_checked, write_checked
from ._trajectory import FlatNetwork

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTraining:
    """Settings of an expert's training.

    Attributes:
        lr: constant.
        rho: size of GSAM's perturbation.
        alpha: weight of the orthogonal part that GSAM subtracts.
        batch_size: of real images, augmented independently.
        storage: precision of a snapshot. Training continues from the stored weights, so that half
            precision also gives the same numbers after an interruption.
        augmentations: one of these is drawn for each batch; left out of fingerprints.
    """

    lr: float
    rho: float
    alpha: float
    batch_size: int
    storage: Storage
    augmentations: tuple[str, ...] = field(repr=False)


def gsam_direction(
    loss: Callable[[Tensor], Tensor],
    weights: Float[Tensor, " weights"],
    *,
    rho: float,
    alpha: float,
) -> tuple[Float[Tensor, " weights"], Float[Tensor, ""]]:
    """Return GSAM's descent direction at `weights`, and the loss there."""
    gradient, value = _gradient(loss, weights)
    climb = rho / ((weights.abs() * gradient).norm() + _TINY)
    perturbed, _ = _gradient(loss, weights + climb * weights.square() * gradient)
    norm, perturbed_norm = gradient.norm(), perturbed.norm()
    cosine = gradient @ perturbed / (norm * perturbed_norm + _TINY)
    orthogonal = gradient - cosine * norm * perturbed / (perturbed_norm + _TINY)
    return perturbed - alpha * orthogonal, value


def _gradient(
    loss: Callable[[Tensor], Tensor], weights: Float[Tensor, " weights"]
) -> tuple[Float[Tensor, " weights"], Float[Tensor, ""]]:
    weights = weights.detach().requires_grad_()
    value = loss(weights)
    (gradient,) = torch.autograd.grad(value, weights)
    return gradient, value.detach()


class Snapshots:
    """One file per expert and epoch, with a checksum; damaged files count as missing.

    The name of `folder` is a hash of everything that the training depends on, and seeds it.
    """

    def __init__(self, folder: Path, num_weights: int, storage: Storage) -> None:
        self.folder = folder
        self.num_weights = num_weights
        self.dtype = _DTYPES[storage]

    def num_bytes(self, num: int, epochs: int) -> int:
        """Return what `num` experts with `epochs` epochs and their initial weights take on disk."""
        return num * (epochs + 1) * self.num_weights * self.dtype.itemsize

    def expect_allowed(self, num: int, epochs: int, *, most_gib: float) -> None:
        """Raise a UsageError if these experts take more disk space than is allowed."""
        gib = self.num_bytes(num, epochs) / GIB
        if gib > most_gib:
            raise UsageError(
                f"datm: {num} experts x {epochs + 1} snapshots x {self.num_weights} weights in "
                f"{_NAMES[self.dtype]} take {gib:.3g} GiB of disk, datm.max_expert_gib="
                f"{most_gib:g}: raise it, lower datm.num_experts or datm.expert_epochs, or set "
                "datm.expert_storage=fp16"
            )

    def expect_room(self, num: int, epochs: int) -> None:
        """Raise an OSError if the disk has no room for what is missing of these experts."""
        written = sum(file.stat().st_size for file in self.folder.glob("expert-*/epoch-*"))
        missing = self.num_bytes(num, epochs) - written
        expect_room(self.folder, missing, what=f"datm: experts below {self.folder.parent}")

    def file(self, expert: int, epoch: int) -> Path:
        """Path of a snapshot, which need not exist."""
        return self.folder / f"expert-{expert:04}" / f"epoch-{epoch:04}.safetensors"

    def lock(self, expert: int) -> FileLock:
        """Return the lock of one expert's files."""
        return lock(self.file(expert, 0).parent)

    def read(self, expert: int, epoch: int) -> Float[Tensor, " weights"] | None:
        """Return a snapshot, or None if its file is missing or damaged."""
        found = read_checked(self.file(expert, epoch)) or {}
        weights = found.get("weights", torch.empty(0))
        fits = weights.shape == (self.num_weights,) and weights.dtype == self.dtype
        return weights if fits else None

    def write(
        self, weights: Float[Tensor, " weights"], *, expert: int, epoch: int, seconds: float = 0.0
    ) -> Float[Tensor, " weights"]:
        """Store a snapshot that took `seconds`; return it as stored, on the device of `weights`."""
        stored = weights.detach().to(device="cpu", dtype=self.dtype, copy=True)
        write_checked(self.file(expert, epoch), {"weights": stored}, seconds=seconds)
        return stored.to(weights)


class Experts:
    """Experts on real images, whose snapshots are made when first needed."""

    def __init__(
        self,
        snapshots: Snapshots,
        images: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        *,
        new_network: Callable[[torch.Generator], FlatNetwork],
        training: ExpertTraining,
    ) -> None:
        self.snapshots = snapshots
        self.images = images
        self.labels = labels
        self.new_network = new_network
        self.network = new_network(torch.Generator().manual_seed(0))
        self.training = training

    def train(self, num: int, epochs: int, checkpoint: Loop) -> None:
        """Make the snapshots of the first `num` experts up to `epochs` epochs.

        Each is made once, even if several processes need it at the same time, and its time is
        charged to all that use it.
        """
        for step in checkpoint.steps("expert epochs", num * epochs):
            expert, epoch = divmod(step, epochs)
            file = self.snapshots.file(expert, epoch + 1)
            started = time.monotonic()
            with self.snapshots.lock(expert):
                if file.exists():
                    waited = time.monotonic() - started
                    charge_for(file, checkpoint, waited=waited)
                else:
                    checkpoint.log(step, expert_loss=self._make(expert, epoch + 1))

    def weights(self, expert: int, epoch: int) -> Float[Tensor, " weights"]:
        """Return one expert's weights after `epoch` epochs."""
        weights = self.snapshots.read(expert, epoch)
        if weights is None:
            self._make(expert, epoch)
            weights = self.snapshots.read(expert, epoch)
        if weights is None:
            file = self.snapshots.file(expert, epoch)
            raise OSError(f"{file}: damaged as soon as written: is this disk failing?")
        return weights.to(self.images)

    @torch.no_grad()
    def logits(self, expert: int, epoch: int, rows: Int64[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """Return one expert's logits, after `epoch` epochs, of some unaugmented real images."""
        weights = self.weights(expert, epoch)
        batches = rows.split(self.training.batch_size)
        return torch.cat([self.network(weights, self.images[batch]) for batch in batches])

    def _make(self, expert: int, epoch: int) -> float:
        """Train from the latest valid snapshot to this one; return the last epoch's mean loss."""
        loss, last, weights = 0.0, epoch, None
        while weights is None and last > 0:
            last -= 1
            weights = self.snapshots.read(expert, last)
        if weights is None:
            weights = self.new_network(self._generator(expert, 0)).weights
            weights = self.snapshots.write(weights, expert=expert, epoch=0)
        weights = weights.to(self.images)
        for current in range(last + 1, epoch + 1):
            started = time.monotonic()
            weights, loss = self._epoch(weights, self._generator(expert, current))
            if not math.isfinite(loss) or not bool(weights.isfinite().all()):
                raise NonFiniteError(
                    f"expert {expert} diverged in epoch {current}: choose an expert_lr below "
                    f"{self.training.lr:g} or an expert_rho below {self.training.rho:g}"
                )
            seconds = time.monotonic() - started
            weights = self.snapshots.write(weights, expert=expert, epoch=current, seconds=seconds)
        return loss

    def _generator(self, expert: int, epoch: int) -> torch.Generator:
        return rng.generator("expert", self.snapshots.folder.name, expert, epoch)

    def _epoch(
        self, weights: Float[Tensor, " weights"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " weights"], float]:
        """Return the weights after one more epoch, and its mean loss."""
        training = self.training
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        total = weights.new_zeros(())
        batches = order.split(training.batch_size)
        drawn = draw_each(
            generator,
            [len(rows) for rows in batches],
            operations=training.augmentations,
            device=self.images.device,
        )
        for rows, augment in zip(batches, drawn, strict=True):
            images = augment(self.images[rows])
            loss = partial(self._loss, images=images, labels=self.labels[rows])
            direction, value = gsam_direction(loss, weights, rho=training.rho, alpha=training.alpha)
            weights = weights - training.lr * direction
            total += value * len(rows)
        return weights, float(total / len(order))

    def _loss(self, weights: Tensor, *, images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.network(weights, images), labels)

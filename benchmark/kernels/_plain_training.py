"""Straightforward pretraining: a DataLoader that loads one pair at a time."""

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from benchmark.network import Network
from benchmark.pretrain import Recipe

from ._setting import MEAN, STD, stream


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images under the first of four rotations, one by one, with their targets."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets
        mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (MEAN, STD))
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.images) * len(self.targets)

    def __getitem__(self, pair: int) -> tuple[Tensor, Tensor]:
        view, image = divmod(pair, len(self.images))
        x = torch.rot90(self.images[image] / 255, view, (1, 2))
        return (x - self.mean) / self.std, self.targets[view, image]


def train_plainly(student: Network, pairs: PairDataset, recipe: Recipe, *, epochs: int = 1) -> None:
    """Train in place for some epochs, in the order that the library would draw."""
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    device = pairs.images.device
    generator = stream("order", device)
    student.train()
    for _ in range(epochs):
        order = torch.randperm(len(pairs), generator=generator, device=device)
        batches = order.cpu().tensor_split(math.ceil(len(pairs) / recipe.batch_size))
        loader = DataLoader(
            pairs,
            batch_sampler=[batch.tolist() for batch in batches],
            generator=stream("workers"),
        )
        for x, y in loader:
            optimizer.zero_grad()
            mse_loss(student.head(student.features_of_normalised(x)), y).backward()
            optimizer.step()
    student.eval()

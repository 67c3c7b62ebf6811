"""Straightforward features and probes: DataLoaders and scikit-learn."""

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import Normalize

from benchmark.kernel import Outcome
from benchmark.network import Network
from benchmark.probes.draws import in_tenths
from benchmark.probes.fair import FairProbe
from benchmark.probes.paper import PaperProbe

from ._setting import MEAN, STD, stream


class _Normalised(Dataset[Tensor]):
    """Normalised images, one by one."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.normalise = Normalize(MEAN, STD)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        normalised: Tensor = self.normalise(self.images[index] / 255)
        return normalised


@torch.no_grad()
def extract_plainly(network: Network, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """Return the features of all images, in batches of 256."""
    network.eval()
    loader = DataLoader(_Normalised(images), batch_size=256, generator=stream("workers"))
    return torch.cat([network.features_of_normalised(batch) for batch in loader])


def fair_plainly(
    features: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    probe: FairProbe,
    *,
    strength: float,
) -> Outcome:
    """Return scikit-learn's weights and biases, after trying all strengths, for `strength`."""
    everything = torch.arange(len(labels))[None]
    order, tenth, _ = in_tenths(labels.cpu(), everything, stream("probe"))
    x, y = features.cpu().numpy()[order[0]], labels.cpu().numpy()[order[0]]
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    for tried in probe.strengths:
        _regression(x[tenth:], y[tenth:], probe, tried).score(x[:tenth], y[:tenth])
    best = _regression(x, y, probe, strength)
    weights = best.coef_ / scaler.scale_
    biases = best.intercept_ - weights @ scaler.mean_
    return torch.from_numpy(weights).to(features), torch.from_numpy(biases).to(features)


def _regression(
    x: np.ndarray, y: np.ndarray, probe: FairProbe, strength: float
) -> LogisticRegression:
    regression = LogisticRegression(
        C=1 / (strength * len(y)), tol=probe.tolerance_at(strength), max_iter=probe.max_steps
    )
    return regression.fit(x, y)


def paper_plainly(
    features: Float[Tensor, "n p"], labels: Int64[Tensor, " n"], probe: PaperProbe, *, k: int
) -> Outcome:
    """Return weights and biases of a layer trained on batches from a DataLoader."""
    (n, p), generator = features.shape, stream("probe")
    bound = p**-0.5
    start = (torch.rand(1, k, p + 1, generator=generator) * (2 * bound) - bound).to(features)
    rows = probe._rows(1, n, generator)
    layer = nn.utils.skip_init(nn.Linear, p, k, device=features.device)
    with torch.no_grad():
        layer.weight.copy_(start[0, :, :-1])
        layer.bias.copy_(start[0, :, -1])
    optimizer = torch.optim.SGD(layer.parameters(), lr=probe.lr, momentum=probe.momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, probe.steps)
    loader = DataLoader(
        TensorDataset(features, labels),
        batch_sampler=rows.view(probe.steps, -1).tolist(),
        generator=stream("workers"),
    )
    for x, y in loader:
        optimizer.zero_grad()
        cross_entropy(layer(x), y).backward()
        optimizer.step()
        schedule.step()
    return layer.weight.detach(), layer.bias.detach()

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import OPERATIONS
from benchmark.loop import CheckpointedLoop
from benchmark.methods._experts import Experts, ExpertTraining, Snapshots, gsam_direction
from benchmark.methods._trajectory import FlatNetwork
from benchmark.network import Network
from benchmark.spec import NonFiniteError

RECORDED = Path(__file__).parent / "fixtures" / "datm.safetensors"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(stream, *, widths=(6, 6, 6), k=5, side=16):
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=stream)))
        layers = []
        for c_in, c_out in zip((3, *widths), widths, strict=False):
            conv = nn.Conv2d(c_in, c_out, 3, padding=1)
            layers += [conv, nn.GroupNorm(c_out, c_out), nn.ReLU(), nn.AvgPool2d(2)]
        features = widths[-1] * (side // 2 ** len(widths)) ** 2
        backbone = nn.Sequential(*layers, nn.Flatten())
        return Network(backbone, features, k, mean=(0.0,) * 3, std=(1.0,) * 3)


def plain_gsam(model, loss, *, rho, alpha):
    """The plain twin: parameter by parameter, perturbed in place."""
    parameters = list(model.parameters())
    old = torch.autograd.grad(loss(), parameters)
    size = sum(((p.abs() * g) ** 2).sum() for p, g in zip(parameters, old, strict=True)).sqrt()
    steps = [rho / size * p.detach() ** 2 * g for p, g in zip(parameters, old, strict=True)]
    with torch.no_grad():
        for p, step in zip(parameters, steps, strict=True):
            p += step
    new = torch.autograd.grad(loss(), parameters)
    with torch.no_grad():
        for p, step in zip(parameters, steps, strict=True):
            p -= step
    along = sum((a * b).sum() for a, b in zip(old, new, strict=True))
    along = along / sum((b**2).sum() for b in new)
    return torch.cat(
        [(b - alpha * (a - along * b)).flatten() for a, b in zip(old, new, strict=True)]
    )


def test_the_direction_is_gsams():
    model = network(generator()).double()
    images = torch.randn(7, 3, 16, 16, generator=generator(), dtype=torch.float64)
    labels = torch.arange(7) % 5
    expected = plain_gsam(model, lambda: cross_entropy(model(images), labels), rho=0.5, alpha=0.3)
    flat = FlatNetwork(model)
    direction, loss = gsam_direction(
        lambda w: cross_entropy(flat(w, images), labels), flat.weights, rho=0.5, alpha=0.3
    )
    torch.testing.assert_close(direction, expected, rtol=1e-8, atol=1e-10)
    assert float(loss) == pytest.approx(float(cross_entropy(model(images), labels)))


def test_three_steps_are_the_released_optimizers():
    recorded = load_file(RECORDED)
    flat = FlatNetwork(network(generator()).double())
    images, labels, weights = (recorded[f"gsam_{part}"] for part in ("images", "labels", "start"))
    for expected_weights, expected_loss in zip(
        recorded["gsam_path"], recorded["gsam_losses"], strict=True
    ):
        direction, loss = gsam_direction(
            lambda w: cross_entropy(flat(w, images), labels), weights, rho=0.5, alpha=0.3
        )
        weights = weights - 0.1 * direction
        torch.testing.assert_close(loss, expected_loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(weights, expected_weights, rtol=1e-7, atol=1e-9)


@pytest.fixture(name="experts")
def _experts(tmp_path):
    """Make experts on two dozen images that a few epochs can tell apart."""
    labels = torch.arange(24) % 3
    patterns = torch.randn(3, 3, 8, 8, generator=generator(1))
    images = patterns[labels] + 0.3 * torch.randn(24, 3, 8, 8, generator=generator(2))

    def make(folder="experts", *, lr=0.3, storage="fp32"):
        def new_network(stream):
            return FlatNetwork(network(stream, widths=(4, 4), k=3, side=8))

        size = new_network(generator()).num_weights
        training = ExpertTraining(
            lr=lr, rho=0.01, alpha=0.3, batch_size=10, storage=storage, augmentations=OPERATIONS
        )
        return Experts(
            Snapshots(tmp_path / folder / "key", size, storage),
            images,
            labels,
            new_network=new_network,
            training=training,
        )

    return make


def trajectories(experts, *, num=2, epochs=3):
    return torch.stack(
        [torch.stack([experts.weights(i, e) for e in range(epochs + 1)]) for i in range(num)]
    )


def loop(folder=None):
    return CheckpointedLoop(folder, description="experts")


def test_experts_learn_and_every_snapshot_is_its_own(experts):
    trained, checkpoint = experts(), loop()
    before = torch.get_rng_state()
    trained.train(2, 3, checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    weights = trajectories(trained)
    distances = torch.cdist(weights.flatten(0, 1), weights.flatten(0, 1))
    assert (distances + torch.eye(8) > 1e-3).all()
    losses = [point["expert_loss"] for point in checkpoint.history["expert epochs"]]
    assert losses[2] < losses[0] > 0 < losses[3] > losses[5]
    said = trained.logits(0, 3, torch.arange(24))
    alone = trained.network(weights[0, 3], trained.images[5:6])
    torch.testing.assert_close(said[5:6], alone)


def test_an_epoch_is_plain_descent_on_shuffled_augmented_batches(experts, monkeypatch):
    trained = experts()
    batches = []
    monkeypatch.setattr(
        "benchmark.methods._experts.gsam_direction",
        lambda loss, weights, rho, alpha: (
            batches.append(1) or torch.ones_like(weights),
            loss(weights),
        ),
    )
    start, end = trained.weights(0, 0), trained.weights(0, 1)
    assert len(batches) == 3  # 10, 10 and the rest
    torch.testing.assert_close(end, start - 3 * 0.3)


@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_a_killed_training_goes_on_to_the_same_experts(experts, tmp_path, monkeypatch, storage):
    whole = experts("whole", storage=storage)
    whole.train(2, 3, loop())
    epoch, seen = Experts._epoch, []

    def dying(self, weights, stream):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return epoch(self, weights, stream)

    monkeypatch.setattr(Experts, "_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        experts("killed", storage=storage).train(2, 3, loop(tmp_path / "loop"))
    resumed = experts("killed", storage=storage)
    resumed.train(2, 3, loop(tmp_path / "loop"))
    assert len(seen) == 3 + 4
    assert torch.equal(trajectories(resumed), trajectories(whole))


def spoil(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, spoil, lambda file: file.write_bytes(b"short")])
@pytest.mark.parametrize("epochs", [(2,), (0,), (1, 2, 3)])
def test_a_lost_or_damaged_snapshot_is_made_again(experts, damage, epochs):
    trained = experts()
    expected = trajectories(trained)
    for epoch in epochs:
        damage(trained.snapshots.file(1, epoch))
    assert trained.snapshots.read(1, epochs[-1]) is None
    assert torch.equal(trajectories(experts()), expected)


def test_the_disk_that_they_take_is_known_beforehand(experts):
    trained = experts(storage="fp16")
    trained.train(2, 3, loop())
    files = [file.stat().st_size for file in trained.snapshots.folder.rglob("*.safetensors")]
    assert len(files) == 8
    headers = 8 * 250
    assert 0 <= sum(files) - trained.snapshots.num_bytes(2, 3) <= headers


def test_a_diverging_expert_is_named_and_not_kept(experts):
    wild = experts(lr=1e30)
    diverged = r"expert 0 diverged in epoch 1: choose an expert_lr below"
    with pytest.raises(NonFiniteError, match=diverged):
        wild.train(1, 2, loop())
    assert not wild.snapshots.file(0, 1).exists()


def test_processes_that_want_the_same_experts_make_each_epoch_once(experts, monkeypatch):
    """And all of them count its time."""
    made, epoch = [], Experts._epoch

    def counted(self, weights, stream):
        made.append(weights)
        return epoch(self, weights, stream)

    monkeypatch.setattr(Experts, "_epoch", counted)
    loops = [loop() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda checkpoint: experts().train(2, 3, checkpoint), loops))
    assert len(made) == 6
    late, seconds = loop(), []
    monkeypatch.setattr(late, "charge", seconds.append)
    experts().train(2, 3, late)
    assert len(made) == len(seconds) == 6
    assert all(second > 0 for second in seconds)
    assert late.history == {"expert epochs": []}

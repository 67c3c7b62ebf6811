"""The same code on every device that there is here: numbers close to those of the CPU in fp32."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from benchmark import plugins
from benchmark.compute import Compute
from benchmark.kernel import deviation
from benchmark.loop import CheckpointedLoop
from benchmark.network_factory import NetworkFactory
from benchmark.probes.fair import FairProbe
from benchmark.probes.paper import PaperProbe
from benchmark.spec import ImageShape

ACCELERATORS = ["cuda"] if torch.cuda.is_available() else []
SHAPE = ImageShape(3, 32, 32)
ROUNDING = {"fp32": 5e-3, "bf16": 0.2}  # convolutions of a GPU are in TF32


def generator(device="cpu", seed=0):
    return torch.Generator(device).manual_seed(seed)


def close(found, expected, tolerance):
    return deviation((found.detach().cpu(),), (expected.detach().cpu(),)) <= tolerance


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model", "settings"),
    [*((name, {}) for name in plugins.names("models")), ("convnet", {"norm": "instance"})],
    ids=lambda value: "instance" if value == {"norm": "instance"} else None,
)
def test_models_see_and_learn_alike(model, settings, precision, device):
    narrow = {"convnet": {"widths": (8, 8, 8)}, "vit": {"width": 0.25, "depth": 2}}
    narrow |= {name: {"width": 0.125} for name in ("vgg11", "resnet18", "alexnet", "mobilenet")}
    factory = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.25,) * 3)
    there = replace(
        factory,
        device=torch.device(device),
        precision=precision,
        memory_format=torch.channels_last,
    )
    settings = {**narrow.get(model, {}), **settings}
    reference, network = (make(model, 5, generator(), **settings) for make in (factory, there))
    images = torch.rand(16, 3, 32, 32, generator=generator())
    network.eval(), reference.eval()
    assert close(network(images.to(device)), reference(images), ROUNDING[precision])
    network.train()
    network(images.to(device)).square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize(
    ("device", "name", "precision"),  # of the CPU: test_kernels.py
    list(product(ACCELERATORS, plugins.names("kernels"), ["fp32", "bf16"])),
)
def test_kernels_agree_with_their_twins(device, name, precision):
    compute = Compute(torch.device(device), precision)
    kernel = plugins.load("kernels", name)(compute, small=True)
    assert deviation(kernel.fast(), kernel.plain()) <= max(kernel.tolerance, ROUNDING[precision])


@pytest.mark.parametrize(
    "kind", [FairProbe(strengths=(1.0, 0.1)), PaperProbe(steps=50, batch=32)], ids=lambda k: k.name
)
@pytest.mark.parametrize("p", [12, 60], ids=["more images", "more features"])
def test_probes_fit_alike(kind, p, device):
    labels = torch.arange(48) % 4
    centres = torch.randn(4, p, generator=generator(seed=1))
    features = centres[labels] + torch.randn(48, p, generator=generator(seed=2))

    def logits(place):
        classifiers = kind.fit(
            features.to(place),
            labels.to(place),
            subsets=torch.arange(48)[None],
            num_classes=4,
            generator=generator(),
            checkpoint=CheckpointedLoop(None, description="toy"),
        )
        raw = features @ classifiers.weights[0].cpu().T.float() + classifiers.biases[0].cpu()
        return raw - raw.mean(1, keepdim=True)

    assert close(logits(device), logits("cpu"), 1e-2)

"""TF32 is for convolutions, and for products of features that bf16 has rounded before."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.compute import Compute
from benchmark.kernel import deviation
from benchmark.loop import CheckpointedLoop
from benchmark.methods import _outer_loop
from benchmark.methods._ridge import ridge_predict
from benchmark.methods.krr_st import KrrSt
from benchmark.network import MEMORY_FORMATS
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape
from benchmark.tf32 import choose_tf32, products_in_tf32

S, B, P, D = 6, 9, 20, 4


def allowed():
    return torch.backends.cuda.matmul.allow_tf32


def test_an_environment_does_not_decide_on_tf32(monkeypatch):
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, True
        choose_tf32()
        assert [place.allow_tf32 for place in places] == [True, False]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    gpu = Compute(torch.device("cuda"), "fp32")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert gpu.settings["tf32"]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert not gpu.settings["tf32"]


def test_a_block_leaves_products_as_they_were():
    assert not allowed()
    with pytest.raises(KeyError), products_in_tf32():
        assert allowed()
        raise KeyError
    assert not allowed()


class Watch(TorchDispatchMode):
    """Lists the factors of matrix products, and other operators, by whether TF32 is allowed."""

    def __init__(self):
        super().__init__()
        self.factors = {False: [], True: []}
        self.others = {False: set(), True: set()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.factors[allowed()].append(tuple(tuple(x.shape) for x in args[-2:]))
        else:
            self.others[allowed()].add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def solved(precision):
    stream = torch.Generator().manual_seed(0)
    sizes = ((S, P), (S, D), (B, P))
    support, targets, queries = (torch.randn(size, generator=stream) for size in sizes)
    leaves = support.requires_grad_(), targets.requires_grad_()
    with Watch() as watch:
        predicted = ridge_predict(*leaves, queries, ridge=1e-3, precision=precision)
        gradients = torch.autograd.grad(predicted.square().sum(), leaves)
    return (predicted.detach(), *gradients), watch


def test_only_products_of_features_are_in_tf32_and_only_after_bf16():
    _, watch = solved("bf16")
    assert len(watch.factors[True]) == 2 + 3  # both kernels; three factors that have gradients
    assert all(any(P in shape for shape in pair) for pair in watch.factors[True])
    assert watch.factors[False]
    assert not any(P in shape for pair in watch.factors[False] for shape in pair)
    assert watch.others[True] <= {torch.ops.aten.permute, torch.ops.aten.t}
    assert torch.ops.aten.linalg_cholesky_ex in watch.others[False]
    _, watch = solved("fp32")
    assert not watch.factors[True]


def test_a_cpu_computes_the_same():
    found, expected = solved("bf16")[0], solved("fp32")[0]
    assert deviation(found, expected) < 1e-6


@pytest.mark.parametrize("layout", ["channels-last", "contiguous"])
def test_features_of_inner_models_have_no_more_digits_than_bf16(layout):
    """So that products of them are exact, whatever is rounded to TF32."""
    factory = NetworkFactory(
        shape=ImageShape(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        precision="bf16",
        memory_format=MEMORY_FORMATS[layout],
    )
    settings = KrrSt(inner_widths=(4, 8)).inner_settings
    network = factory("convnet", 3, torch.Generator().manual_seed(0), **settings).eval()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for seen in (network, network.frozen()):
        features = seen.features(images)
        assert features.dtype == torch.float32
        assert torch.equal(features.to(torch.bfloat16).to(torch.float32), features)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_outer_loop_tells_how_its_features_were_computed(precision, monkeypatch, toy_problem):
    told = []

    def spied(*given, precision, **how):
        told.append(precision)
        return ridge_predict(*given, precision=precision, **how)

    monkeypatch.setattr(_outer_loop, "ridge_predict", spied)
    problem = toy_problem()
    factory = replace(problem.new_network, precision=precision)
    method = KrrSt(outer_steps=2, real_batch=12, pool_size=1, inner_widths=(4, 4), staggered=False)
    method.distill(
        replace(problem, new_network=factory),
        generator=torch.Generator().manual_seed(0),
        checkpoint=CheckpointedLoop(None, description="toy"),
    )
    assert told == [precision] * 2

"""With `-m memory`: the stages of N = 5 000 fit 16 GiB, each measured in a process of its own.

Sizes are those of the suite `cifar100`, data is random, and a loop takes a step or two: peaks do
not depend on more. What is measured is written to `reports/memory.md`.
"""

from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from math import isnan
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark import plugins, views
from benchmark.allocation import keep_freed_memory
from benchmark.cost import measure
from benchmark.grid import cells
from benchmark.loop import CheckpointedLoop
from benchmark.memory import GIB
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.network_factory import NetworkFactory
from benchmark.planning.devices import NamedDevice
from benchmark.planning.planner import predict
from benchmark.pretrain import RECIPES, Length, pretrain
from benchmark.probing import PROBES, LabelledFeatures, extract, probe
from benchmark.provenance import provenance
from benchmark.spec import Budget, ImageShape, Problem

REPORT = Path(__file__).parents[1] / "reports" / "memory.md"
CPU = torch.device("cpu")
N, NUM_REAL, D, P, K = 5_000, 50_000, 512, 8_192, 100
SHAPE, MEAN, STD = ImageShape(3, 32, 32), (0.5,) * 3, (0.25,) * 3
MOST_MIB = 16 * 1024
STAGES = (
    "krr-st, an outer step",
    "ours, an outer step",
    "convnet, a step on krr-st's set",
    "resnet18, a step on krr-st's set",
    "features of 1 024 images",
    "fair probe, all labels",
    "fair probe, ten draws of 20 labels a class",
    "paper probe, all labels",
    "paper probe, ten draws of 20 labels a class",
)


def stream():
    return torch.Generator().manual_seed(0)


def new_network(max_memory):
    return NetworkFactory(
        shape=SHAPE,
        mean=MEAN,
        std=STD,
        memory_format=torch.channels_last,
        max_memory=max_memory,
    )


def loop():
    return CheckpointedLoop(None, description="memory")


def problem(max_memory):
    """Make random images; representations of all views are kept, as the harness keeps them."""
    images = torch.randint(256, (NUM_REAL, 3, 32, 32), generator=stream(), dtype=torch.uint8)
    kept = {}

    def representations(view):
        if view not in kept:
            kept[view] = torch.randn(NUM_REAL, D, generator=stream())
        return kept[view]

    for view in views.VIEWS:
        representations(view)
    return Problem(
        source="random",
        images=images,
        representations=representations,
        teacher=lambda x: x,
        labels=None,
        num_classes=None,
        mean=MEAN,
        std=STD,
        budget=Budget(N),
        new_network=new_network(max_memory),
    )


def an_outer_step(name, max_memory):
    method = {"krr-st": KrrSt(), "ours": Ours(approximation_steps=2)}[name]
    replace(method, outer_steps=1, staggered=False).distill(
        problem(max_memory), generator=stream(), checkpoint=loop()
    )


def a_step_on_pairs(student, max_memory):
    stored = {"images": torch.rand(N, 3, 32, 32), "targets": torch.randn(N, D)}
    pretrain(
        new_network(max_memory)(student, D, stream()),
        KrrSt().decode(stored, SHAPE),
        Length(steps=2),
        recipe=RECIPES["mse"],
        generator=stream(),
        checkpoint=loop(),
    )


def features(max_memory):
    network = new_network(max_memory)("convnet", D, stream())
    images = torch.randint(256, (1_024, 3, 32, 32), generator=stream(), dtype=torch.uint8)
    extract(network, images, checkpoint=loop())


def one_probe(name, labels, max_memory):
    few = {"fair": {"strengths": (1.0,), "max_steps": 2}, "paper": {"steps": 2}}[name]
    train, test = (
        LabelledFeatures(
            features=torch.randn(n, P, generator=stream()),
            labels=torch.arange(n) % K,
            fingerprint=f"{n}",
        )
        for n in (NUM_REAL, 10_000)
    )
    probe(
        train,
        test=test,
        num_classes=K,
        kind=PROBES[name](**few),
        labels_per_class=labels,
        seed=0,
        checkpoint=loop(),
        max_memory=max_memory,
    )


def peak_mib(stage, max_memory):
    """Do one stage, as a process of the command line would."""
    torch.set_num_threads(1)
    keep_freed_memory()
    what, _, how = stage.partition(", ")
    with measure(CPU) as spent:
        if how == "an outer step":
            an_outer_step(what, max_memory)
        elif how.startswith("a step"):
            a_step_on_pairs(what, max_memory)
        elif what.endswith(" probe"):
            number = [int(word) for word in how.split() if word.isdigit()]
            one_probe(what.split()[0], number[-1] if number else None, max_memory)
        else:
            features(max_memory)
    return spent.peak_memory_mib


def planned_mib(max_memory):
    """Return what the plan of the suite `cifar100` expects such stages to hold, as it is shown."""
    suite = replace(
        plugins.load("suites", "cifar100"),
        methods=("krr-st", "ours"),
        controls=(),
        ablation=(),
        budgets=(N,),
        seeds=(0,),
        students=("convnet", "resnet18"),
        downstream=("cifar100",),
        labels_per_class=(None, 20),
        precision="fp32",
    )
    device = NamedDevice("h100", suite, max_memory=max_memory)  # memory is that of any device
    tasks = predict(suite, cells(suite), device).tasks
    held = defaultdict(int)
    for task in tasks:  # of probes the largest, which is that of convnet's features
        line = task.stage, task.line
        held[line] = max(held[line], task.memory / 2**20)
    lines = {
        "krr-st, an outer step": ("distillation", f"krr-st, N = {N}"),
        "ours, an outer step": ("distillation", f"ours, N = {N}"),
        "convnet, a step on krr-st's set": ("pretraining", "convnet"),
        "resnet18, a step on krr-st's set": ("pretraining", "resnet18"),
        "fair probe, all labels": ("probes", "fair, all labels, on cifar100"),
        "fair probe, ten draws of 20 labels a class": ("probes", "fair, 20 labels, on cifar100"),
        "paper probe, all labels": ("probes", "paper, all labels, on cifar100"),
        "paper probe, ten draws of 20 labels a class": ("probes", "paper, 20 labels, on cifar100"),
    }
    return pd.Series({stage: held[line] for stage, line in lines.items()})


@pytest.fixture(scope="module")
def found():
    """Collect peaks by stage and budget; all of them together make the report."""
    peaks = {}
    yield peaks
    if len(peaks) == len(STAGES) * 2:
        measured = pd.Series(peaks).unstack(sort=False)
        planned = pd.DataFrame({gib: planned_mib(gib * GIB) for gib in measured.columns})
        table = pd.concat({"measured": measured, "planned": planned}, axis=1).swaplevel(axis=1)
        table = table[[(gib, kind) for gib in measured.columns for kind in ("measured", "planned")]]
        table.columns = [f"{gib} GiB, {kind}" for gib, kind in table.columns]
        table = table.rename_axis("stage").map(lambda mib: "–" if isnan(mib) else f"{mib:,.0f}")
        made = provenance(CPU)
        REPORT.write_text(
            f"# Peak memory at N = {N:,}\n\nMade by `pytest -m memory`: the most resident memory "
            "(MiB) of a process that does one stage at the sizes of the suite `cifar100` (50 000 "
            "images, d = 512, 8 192 features, 100 classes; the probes stop after two steps), in "
            "fp32 on one thread of a CPU. Columns: `--max-memory`. An outer step ends with an "
            "inner step on 1 000 pairs, which batch normalisation keeps whole, and a probe of all "
            "labels with one solution: there the budget changes nothing. Planned is what `plan` "
            "counts: tensors alone, without the libraries (about 740 MiB), what operations take "
            "for themselves, and what a process keeps of what it freed. "
            f"Torch {made['torch']}, commit {made['commit']}.\n\n"
            f"{table.to_markdown(colalign=('left', *['right'] * len(table.columns)))}\n",
            encoding="utf-8",
        )


@pytest.mark.memory
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can tell")
@pytest.mark.parametrize("gib", [16, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_fits_16_gib(found, stage, gib):
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        peak = processes.submit(peak_mib, stage, gib * GIB).result()
    assert peak < MOST_MIB
    found[stage, gib] = peak

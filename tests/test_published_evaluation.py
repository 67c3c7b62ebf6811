"""With `-m evaluation`: the whole evaluation of a student, beside a plain program's.

A ConvNet is pretrained on N = 100 images and probed twice on all images of CIFAR-100 and CIFAR-10,
with the settings of the suite `cifar100`. The plain program uses DataLoaders, extracts features
again for each probe, and solves the fair one with scikit-learn, at the strengths that the library
tries. Either runs in a process of its own; that of the plain one does not keep freed memory. What
is measured is written to `reports/evaluation.md`.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark import plugins
from benchmark.allocation import keep_freed_memory
from benchmark.compute import Compute
from benchmark.convolutions import choose
from benchmark.grid import probe_of
from benchmark.images import final_probe, load_splits
from benchmark.kernels import _setting
from benchmark.kernels._plain_probing import extract_plainly, fair_plainly, paper_plainly
from benchmark.kernels._plain_training import PairDataset, train_plainly
from benchmark.pretrain import RECIPES, pretrain
from benchmark.probing import extract
from benchmark.provenance import provenance
from benchmark.spec import ImageShape, TrainingSet
from benchmark.teacher import load_teacher, represent_all, shipped_teachers

REPORT = Path(__file__).parents[1] / "reports" / "evaluation.md"
DATA = os.environ.get("BENCHMARK_DATA", "")
CPU = torch.device("cpu")
N, SIDE, D, SOURCE = 100, 32, 512, "cifar100"
DOWNSTREAM = ("cifar100", "cifar10")
SUITE = plugins.load("suites", SOURCE)
LENGTH, RECIPE = SUITE.length, RECIPES["mse"]
FAIR, PAPER = probe_of(SUITE, "fair"), probe_of(SUITE, "paper")
CLOSE = 1  # points of accuracy between students of one seed, in bf16 and fp32


class Watched(_setting.BareLoop):
    """A loop that counts the strengths which the fair probe tries."""

    def __init__(self):
        super().__init__()
        self.tried = 0

    def steps(self, name, total, **state):
        for step in super().steps(name, total, **state):
            self.tried += not state["search"].over
            yield step


class Phases(dict):
    """Seconds by phase and dataset."""

    @contextmanager
    def timed(self, *phase):
        started = time.perf_counter()
        yield
        self[phase] = self.get(phase, 0.0) + time.perf_counter() - started
        sys.stderr.write(f"{' of '.join(phase)}: {self[phase]:.1f} s\n")


def images_of(name, cache):
    """Return all images, training images first, and labels of either."""
    splits = load_splits(name, size=SIDE, root=Path(DATA), cache=cache)
    with final_probe():
        test = splits.open_test()
    images = torch.cat([splits.train.images, test.images])
    return images, splits.train.labels, test.labels, splits.num_classes


def pairs(cache):
    """Return random images of the source and the shipped teacher's representations of them."""
    train = load_splits(SOURCE, size=SIDE, root=Path(DATA), cache=cache).train
    chosen = torch.randperm(len(train.images), generator=_setting.stream("images"))[:N]
    teacher = load_teacher(
        shipped_teachers()["cifar100-teacher"],
        _setting.factories(Compute(CPU, "fp32"), SIDE)[0],
        ImageShape(3, SIDE, SIDE),
    )
    return train.images[chosen], represent_all(teacher, train.images[chosen])[None]


def top1(weights, biases, features, labels):
    hits = (torch.nn.functional.linear(features, weights, biases).argmax(1) == labels).sum()
    return 100 * int(hits) / len(labels)


def evaluate_fast(images, targets, compute, cache):
    """Return seconds, accuracies, and the fair probe's strengths, tried and chosen."""
    keep_freed_memory()
    torch.set_num_threads(compute.threads)
    spent, accuracy, strengths = Phases(), {}, {}
    student, _ = _setting.networks(compute, SIDE, "convnet", D)
    with spent.timed("pretraining"):
        pretrain(
            student,
            TrainingSet(images=images, views=("identity",), targets=targets, objective="mse"),
            LENGTH,
            recipe=RECIPE,
            generator=_setting.stream("order"),
            checkpoint=_setting.BareLoop(),
        )
    for name in DOWNSTREAM:
        everything, labels, test_labels, k = images_of(name, cache)
        n = len(labels)
        with spent.timed("features", name):
            features = extract(student, everything, checkpoint=_setting.BareLoop())
        for probe, loop in ((FAIR, Watched()), (PAPER, _setting.BareLoop())):
            with spent.timed(f"{probe.name} probe", name):
                found = probe.fit(
                    features[:n],
                    labels,
                    subsets=torch.arange(n)[None],
                    num_classes=k,
                    generator=_setting.stream("probe"),
                    checkpoint=loop,
                    precision=compute.precision,
                )
            accuracy[probe.name, name] = top1(
                found.weights[0], found.biases[0], features[n:], test_labels
            )
            if probe is FAIR:
                tried = tuple(sorted(FAIR.strengths, reverse=True)[: loop.tried])
                strengths[name] = tried, found.strength
    return spent, accuracy, strengths


def evaluate_plainly(images, targets, compute, strengths, cache):
    """Return seconds and accuracies."""
    torch.set_num_threads(compute.threads)
    spent, accuracy = Phases(), {}
    _, student = _setting.networks(compute, SIDE, "convnet", D)
    with spent.timed("pretraining"):
        train_plainly(student, PairDataset(images, targets), RECIPE, epochs=LENGTH.epochs)
    for name, (tried, chosen) in strengths.items():
        everything, labels, test_labels, k = images_of(name, cache)
        n = len(labels)

        def fair(x, y, tried=tried, chosen=chosen):
            search = {**vars(FAIR), "strengths": tried}
            return fair_plainly(x, y, type(FAIR)(**search), strength=chosen)

        def paper(x, y, k=k):
            return paper_plainly(x, y, PAPER, k=k)

        for probe, fit in (("fair", fair), ("paper", paper)):
            with spent.timed("features", name):
                features = extract_plainly(student, everything)
            with spent.timed(f"{probe} probe", name):
                weights, biases = fit(features[:n], labels)
            accuracy[probe, name] = top1(weights, biases, features[n:], test_labels)
    return spent, accuracy


def in_a_process(function, *arguments):
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def columns(**found):
    """Return a table with one column for each mapping, and tuples as names of rows."""
    rows = pd.Index([*next(iter(found.values()))], tupleize_cols=False)
    return pd.DataFrame(
        {name: [column[row] for row in rows] for name, column in found.items()}, rows
    )


def ratio(seconds):
    return seconds["plain"] / seconds[["fast", "fast again"]].mean(axis=1)


def document(seconds, accuracy, strengths, compute):
    """Return the report: a table of seconds, with sums, and one of accuracies."""
    by_dataset = {
        f"pretraining and both probes of {name}": seconds.loc[
            [phase for phase in seconds.index if phase[1:] in ((), (name,))]
        ].sum()
        for name in DOWNSTREAM
    }
    scikit_learn = [phase for phase in seconds.index if phase[0] == "fair probe"]
    sums = pd.DataFrame(
        {
            **by_dataset,
            "all of it": seconds.sum(),
            "all but the fair probes": seconds.drop(index=scikit_learn).sum(),
        }
    ).T
    seconds = pd.concat([seconds.rename(index=" of ".join), sums])
    seconds["ratio"] = ratio(seconds).map("{:.2f}".format)
    seconds[["plain", "fast", "fast again"]] = seconds[["plain", "fast", "fast again"]].round(1)
    accuracy = accuracy.rename(index="{0[0]} probe of {0[1]}".format).map("{:.2f}".format)
    searched = "; ".join(
        f"on {name} {', '.join(f'{s:g}' for s in tried)}, of which {chosen:g} is chosen"
        for name, (tried, chosen) in strengths.items()
    )
    made, right = provenance(CPU), ["right"]
    return (
        "# The evaluation of a student, beside a plain program's\n\n"
        "Made by `pytest -m evaluation`: seconds of pretraining a ConvNet (128-256-512) on "
        f"N = {N} images for {LENGTH.epochs:,} epochs, and of both probes with all labels, on all "
        "images of CIFAR-100 and CIFAR-10 (60 000 each), with the settings of the suite "
        "`cifar100`. Plain: fp32, DataLoaders without workers, features extracted for each probe, "
        "scikit-learn's logistic regression at the strengths that the library tries "
        f"({searched}), each from zero to the final tolerance (the library compares them at up to "
        "ten times that, and stops early at one that is too weak), in a process that does not keep "
        "freed memory. Fast ran before and after plain; the ratio is to the mean. Backbones in "
        f"{compute.precision} (fast), "
        f"{made['device']}, torch {made['torch']}, commit {made['commit']}.\n\n"
        f"{seconds.to_markdown(colalign=('left', *right * 4), disable_numparse=True)}\n\n"
        "Top-1 accuracy of the same student, pretrained and probed by either; images are random "
        "ones of CIFAR-100's training split, targets representations of the shipped teacher.\n\n"
        f"{accuracy.to_markdown(colalign=('left', *right * 2), disable_numparse=True)}\n"
    )


@pytest.mark.evaluation
@pytest.mark.skipif(not DATA, reason="BENCHMARK_DATA does not name a folder with CIFAR")
def test_the_whole_evaluation_agrees_with_a_plain_one(tmp_path):
    compute = Compute(CPU, *choose(CPU, tmp_path), threads=torch.get_num_threads())
    for name in DOWNSTREAM:
        images_of(name, tmp_path)  # decoded once, before anything is timed
    given = (*pairs(tmp_path), compute)
    fast, accuracy, strengths = in_a_process(evaluate_fast, *given, tmp_path)
    plain, plain_accuracy = in_a_process(evaluate_plainly, *given, strengths, tmp_path)
    again, same_accuracy, _ = in_a_process(evaluate_fast, *given, tmp_path)
    assert same_accuracy == accuracy
    seconds = columns(plain=plain, fast=fast, **{"fast again": again})
    accuracies = columns(plain=plain_accuracy, fast=accuracy)
    REPORT.write_text(document(seconds, accuracies, strengths, compute), encoding="utf-8")
    assert (accuracies["plain"] - accuracies["fast"]).abs().max() < CLOSE

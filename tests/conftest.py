import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from benchmark import loop, plugins, views
from benchmark.grid import Suite, Variant
from benchmark.network_factory import NetworkFactory
from benchmark.rows import PROTOCOL, Row
from benchmark.spec import Budget, ImageShape, Problem, TrainingSet


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin every test with the same random numbers, those of its layers' weights included."""
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> str:
    """Run a test on every device that there is here."""
    name: str = request.param
    return name


@dataclass(frozen=True)
class _Entry:
    """The entry point of a plug-in of another package."""

    plugin: object
    value: str = "theirs:plugin"

    def load(self) -> object:
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, object], None]:
    """Add a plug-in, or an error that importing it raises, as other packages do."""
    added: dict[str, dict[str, _Entry]] = defaultdict(dict)
    monkeypatch.setattr(plugins, "_foreign", lambda kind: added[kind])

    def add(kind: str, name: str, plugin: object) -> None:
        added[kind][name] = _Entry(plugin)

    return add


@pytest.fixture
def saved_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loops that save as often as they can do so, however short their steps are."""
    monkeypatch.setattr(loop, "_SAVING_SHARE", math.inf)


@pytest.fixture
def labelled_problem() -> Callable[..., Problem]:
    """Make a tiny problem of `k` classes, each a pattern of its own under noise."""

    def make(*, N: int, k: int = 3, per_class: int = 12, side: int = 8) -> Problem:
        stream = torch.Generator().manual_seed(0)
        shape = ImageShape(3, side, side)
        labels = torch.arange(k * per_class) % k
        patterns = torch.rand(k, 3, side, side, generator=stream)
        noise = torch.randn(len(labels), 3, side, side, generator=stream)
        images = ((patterns[labels] + 0.1 * noise).clamp(0, 1) * 255).to(torch.uint8)
        representations = images.flatten(1)[:, :5] / 255
        mean, std = (0.5, 0.5, 0.4), (0.3, 0.3, 0.2)
        return Problem(
            source="toy",
            images=images,
            representations=lambda view: representations,
            teacher=lambda x: x.flatten(1)[:, :5],
            labels=labels,
            num_classes=k,
            mean=mean,
            std=std,
            budget=Budget(N),
            new_network=NetworkFactory(shape=shape, mean=mean, std=std),
        )

    return make


@pytest.fixture
def toy_problem() -> Callable[..., Problem]:
    """Make a tiny unlabelled problem; its teacher, a fixed random layer, sees every view anew."""

    def make(*, N: int = 8, n: int = 60, side: int = 8, d: int = 6) -> Problem:
        stream = torch.Generator().manual_seed(1)
        smooth = torch.rand(n, 3, side // 4, side // 4, generator=stream).repeat_interleave(4, 2)
        noise = torch.rand(n, 3, side, side, generator=stream)
        images = (255 * (0.7 * smooth.repeat_interleave(4, 3) + 0.3 * noise)).to(torch.uint8)
        weight = torch.randn(3 * side * side, d, generator=stream) / side

        def teacher(x: torch.Tensor) -> torch.Tensor:
            return torch.tanh((x - 0.5).flatten(1) @ weight)

        @cache
        def representations(view: str) -> torch.Tensor:
            return teacher(views.apply(view, images / 255))

        mean, std = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)
        return Problem(
            source="toy",
            images=images,
            representations=representations,
            teacher=teacher,
            labels=None,
            num_classes=None,
            mean=mean,
            std=std,
            budget=Budget(N),
            new_network=NetworkFactory(shape=ImageShape(3, side, side), mean=mean, std=std),
        )

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a dataset of three classes, each a pattern of its own under noise, as 16x16 files."""
    root = tmp_path_factory.mktemp("data") / "patterns"
    stream = torch.Generator().manual_seed(0)
    for label in range(3):
        pattern = torch.rand(3, 4, 4, generator=stream).repeat_interleave(4, 1)
        pattern = pattern.repeat_interleave(4, 2)
        for split, number in (("train", 20), ("test", 8)):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for image in range(number):
                noise = torch.rand(3, 16, 16, generator=stream)
                to_pil_image(0.4 * pattern + 0.6 * noise).save(folder / f"{image}.png")
    return root


@pytest.fixture(scope="session")
def toy_suite(image_folder: Path) -> Suite:
    """Make a suite of the shape of the real ones that runs in seconds."""
    loop = {
        "outer_steps": 3,
        "real_batch": 16,
        "pool_size": 2,
        "max_age": 3,
        "inner_widths": (4, 4),
    }
    bases = {"num_image_bases": 3, "num_target_bases": 3, "approximation_steps": 5}
    return Suite(
        name="toy",
        title="patterns",
        notes="Nothing to be learnt from it.",
        source=str(image_folder),
        size=16,
        teacher="supervised",
        methods=("random", "krr-st", "ours"),
        controls=("untrained", "pca", "full", "teacher"),
        ablation=(
            Variant(
                label="ours: bases only",
                method="ours",
                settings={"augmentations": (), "approximation": False},
            ),
        ),
        students=("convnet", "resnet-small"),
        downstream=(str(image_folder),),
        budgets=(4, 6),
        seeds=(0,),
        recipe="equal-steps",
        student_epochs=3,
        student_steps=4,
        labels_per_class=(None, 2),
        settings={
            "krr-st": loop,
            "ours": {**loop, **bases},
            "pca": bases,
            "supervised": {
                "model": "resnet-small",
                "epochs": 1,
                "batch_size": 16,
                "standardise": True,
            },
            "teacher-model": {"widths": (4, 8)},
            "mse": {"batch_size": 8},
            "paper": {"steps": 10, "batch": 16},
            "convnet": {"widths": (4, 4)},
            "resnet-small": {"widths": (4, 4)},
        },
        precision="fp32",
        layout="channels-last",
    )


@pytest.fixture
def whole() -> Callable[[TrainingSet], tuple[Tensor, Tensor]]:
    """Read all images [m c h w] and all targets [v m d] of a training set, however it is kept."""

    def read(data: TrainingSet) -> tuple[Tensor, Tensor]:
        v, m, _ = data.targets.shape
        pairs = torch.cartesian_prod(torch.arange(v), torch.arange(m))
        targets = data.targets[pairs[:, 0], pairs[:, 1]]
        return data.images[torch.arange(m)], targets.unflatten(0, (v, m))

    return read


@pytest.fixture(scope="session")
def new_row() -> Callable[..., Row]:
    """Make a row of the published main table, with changes."""

    def make(**changes: Any) -> Row:
        label = changes.get("label", "krr-st")
        row = {
            "key": json.dumps(changes, sort_keys=True),
            "context": "context",
            "protocol": PROTOCOL,
            "suite": "toy",
            "label": label,
            "method": label,
            "settings": {"outer_steps": 100},
            "N": 100,
            "source": "cifar100",
            "size": 32,
            "teacher": "barlow-twins",
            "teacher_held_out": {"all_labels": 70.0, "10_labels_per_class": 40.0},
            "student": "convnet",
            "student_settings": {},
            "downstream": "cifar100",
            "recipe": "paper",
            "probe": "paper",
            "probe_settings": {"steps": 5000},
            "labels_per_class": None,
            "seed": 0,
            "value": 50.0,
            "draws": [changes.get("value", 50.0)],
            "strength": None,
            "converged": True,
            "num_images": 100,
            "num_views": 1,
            "losses": {"outer_loss": [1.0, 0.5]},
            "changes": {},
            "distilled": "set",
            "storage": {"pixels": [307_200, 1_228_800], "representations": [51_200, 204_800]},
            "file_bytes": 1_437_696,
            "compressed_bytes": 1_300_000,
            "num_numbers": 358_400,
            "num_bytes": 1_433_600,
            "student_steps": 1000,
            "teacher_seconds": 3600.0,
            "distill_seconds": 60.0,
            "pretrain_seconds": 10.0,
            "features_seconds": 2.0,
            "probe_seconds": 3.0,
            "distill_peak_mib": 1000.0,
            "pretrain_peak_mib": None,
            "features_peak_mib": None,
            "device": "a GPU",
            "precision": "bf16",
            "provenance": {
                "commit": "c0ffee",
                "torch": "2.14",
                "timm": "1.0",
                "finished_at": "2026-01-01T00:00:00+00:00",
            },
        }
        return Row(**{**row, **changes})

    return make

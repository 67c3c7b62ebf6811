"""The published tables (Yu, Yao, Chiu, ICLR 2025): source CIFAR-100, linear probe, per cent."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil
from typing import Any

from benchmark.rows import Row

BUDGET = 100  # of the tables with a single budget
STUDENTS = ("convnet", "vgg11", "resnet18", "alexnet", "mobilenet", "vit")
_BY_STUDENT = {
    "random": (43.66, 23.76, 19.26, 28.82, 11.99, 20.70),
    "dsa": (39.38, 19.97, 20.11, 31.57, 9.58, 20.03),
    "idm": (38.71, 14.24, 19.05, 33.71, 8.18, 17.41),
    "datm": (38.73, 26.04, 21.20, 29.31, 10.17, 20.11),
    "krr-st": (47.00, 27.78, 18.92, 31.27, 10.11, 20.82),
    "ours": (52.41, 35.35, 20.90, 36.88, 24.14, 23.33),
}
DATASETS = ("cifar100", "cifar10", "cub2011", "stanford-dogs")
_BY_DOWNSTREAM = {
    "random": (43.66, 68.56, 8.88, 12.18),
    "dsa": (39.38, 65.67, 6.89, 9.97),
    "idm": (38.71, 64.45, 7.09, 9.56),
    "datm": (38.73, 66.17, 6.73, 9.70),
    "krr-st": (47.00, 72.14, 10.43, 13.42),
    "ours": (52.41, 76.83, 12.24, 15.34),
}
_BUDGETS = (25, 50, 100, 1000, 5000)
_BY_BUDGET = {
    "random": (41.61, 41.80, 43.66, 49.82, 52.76),
    "dsa": (None, None, 39.38, 36.16, 36.25),
    "idm": (None, None, 38.71, 37.21, 42.19),
    "datm": (None, None, 38.73, 44.98, 46.23),
    "krr-st": (44.06, 45.79, 47.00, 51.89, 52.49),
    "ours": (51.41, 52.08, 52.41, 53.54, 55.53),
}
_ABLATION = {"krr-st": (47.00,), "ours: bases only": (48.57,), "ours": (52.41,)}
_CHANGES: Mapping[str, Any] = {
    "ours: bases only": {"ours": {"augmentations": [], "approximation": False}}
}


_EPOCHS, _BATCH = 1_000, 256  # of pretraining a student

Place = tuple[str, int | None, str, str]  # label, N, student, downstream dataset


def place_of(row: Row) -> Place:
    """Return where the number of a row stands in tables, whatever its seed and probe."""
    return row.label, row.N, row.student, row.downstream


def published(row: Row) -> float | None:
    """Return the published accuracy of exactly the setting of `row`, or None."""
    return PUBLISHED.get(place_of(row)) if not departures(row) else None


def departures(row: Row) -> list[str]:
    """Return in words how a row's settings depart from the published ones, whatever its place."""
    found = []
    if row.source != "cifar100":
        found.append(f"source {row.source}")
    if row.size != 32:
        found.append(f"{row.size}x{row.size} images")
    if row.teacher != "barlow-twins":  # it names its source if that differs
        found.append(f"teacher {row.teacher}")
    if row.recipe != "paper":
        found.append(f"recipe {row.recipe}")
    if row.probe != "paper":
        found.append(f"probe {row.probe}")
    if row.labels_per_class is not None:
        found.append(f"{row.labels_per_class} labels a class")
    wanted = _CHANGES.get(row.label, {})
    owners = {**row.changes, **wanted}
    if changed := [owner for owner in owners if row.changes.get(owner) != wanted.get(owner)]:
        found.append(f"settings of {', '.join(sorted(changed))}")
    num_pairs = (row.num_images or 0) * (row.num_views or 0)
    steps = _EPOCHS * ceil(num_pairs / _BATCH)
    if row.student_steps != steps:
        epochs = f"{_EPOCHS:,} epochs of this set"
        found.append(f"{row.student_steps:,} student steps instead of {steps:,} ({epochs})")
    return found


def _table(
    budgets: Sequence[int],
    students: Sequence[str],
    datasets: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
) -> dict[Place, float]:
    places = list(product(budgets, students, datasets))
    return {
        (label, *place): value
        for label, line in values.items()
        for place, value in zip(places, line, strict=True)
        if value is not None
    }


TABLES: Mapping[str, Mapping[Place, float]] = {
    "Cross-architecture": _table((BUDGET,), STUDENTS, ("cifar100",), _BY_STUDENT),
    "Downstream transfer": _table((BUDGET,), ("convnet",), DATASETS, _BY_DOWNSTREAM),
    "Storage budgets": _table(_BUDGETS, ("convnet",), ("cifar100",), _BY_BUDGET),
    "Ablation": _table((BUDGET,), ("convnet",), ("cifar100",), _ABLATION),
}
PUBLISHED: Mapping[Place, float] = {
    place: value for table in TABLES.values() for place, value in table.items()
}

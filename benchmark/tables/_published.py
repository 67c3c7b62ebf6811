"""The published tables (Yu, Yao, Chiu, ICLR 2025): source CIFAR-100, linear probe, per cent."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from benchmark.rows import Row

_STUDENTS = ("convnet", "vgg11", "resnet18", "alexnet", "mobilenet", "vit")
_BY_STUDENT = {
    "random": (43.66, 23.76, 19.26, 28.82, 11.99, 20.70),
    "dsa": (39.38, 19.97, 20.11, 31.57, 9.58, 20.03),
    "idm": (38.71, 14.24, 19.05, 33.71, 8.18, 17.41),
    "datm": (38.73, 26.04, 21.20, 29.31, 10.17, 20.11),
    "krr-st": (47.00, 27.78, 18.92, 31.27, 10.11, 20.82),
    "ours": (52.41, 35.35, 20.90, 36.88, 24.14, 23.33),
}
_DOWNSTREAM = ("cifar100", "cifar10", "cub2011", "stanford-dogs")
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
_ABLATION = {"ours: bases only": 48.57}
_CHANGES: Mapping[str, Any] = {
    "ours: bases only": {"ours": {"augmentations": [], "approximation": False}}
}


_EPOCHS, _BATCH = 1_000, 256  # of pretraining a student


def published(row: Row) -> float | None:
    """Return the published accuracy of exactly the setting of `row`, or None."""
    is_published = (
        row.source == "cifar100"
        and row.teacher == "barlow-twins"
        and row.recipe == row.probe == "paper"
        and row.labels_per_class is None
        and row.changes == _CHANGES.get(row.label, {})
        and row.student_steps == _EPOCHS * ceil(_num_pairs(row) / _BATCH)
    )
    return _FOUND.get((row.label, row.N, row.student, row.downstream)) if is_published else None


def _num_pairs(row: Row) -> int:
    return (row.num_images or 0) * (row.num_views or 0)


_FOUND: dict[tuple[str, int | None, str, str], float | None] = {
    **{
        (label, 100, student, "cifar100"): value
        for label, values in _BY_STUDENT.items()
        for student, value in zip(_STUDENTS, values, strict=True)
    },
    **{
        (label, 100, "convnet", dataset): value
        for label, values in _BY_DOWNSTREAM.items()
        for dataset, value in zip(_DOWNSTREAM, values, strict=True)
    },
    **{
        (label, budget, "convnet", "cifar100"): value
        for label, values in _BY_BUDGET.items()
        for budget, value in zip(_BUDGETS, values, strict=True)
    },
    **{(label, 100, "convnet", "cifar100"): value for label, value in _ABLATION.items()},
}

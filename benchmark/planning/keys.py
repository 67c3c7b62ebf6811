"""Keys of tasks, by which rows and the store find them: each begins with one of `STAGES`."""

from collections.abc import Hashable

Key = tuple[Hashable, ...]

STAGES = (
    *("teacher", "representations", "by-products", "distillation", "pretraining", "features"),
    "probes",
)

TEACHER: Key = ("teacher",)  # of the task that pretrains it


def representations(view: str) -> Key:
    """Return the key of the task that represents all training images under a view."""
    return "representations", view


def by_products(label: str, work: Hashable) -> Key:
    """Return the key of the task that makes what all sets of a method share."""
    return "by-products", label, work


def distillation(label: str, N: int | None, seed: int) -> Key:
    """Return the key of the task that makes a distilled set."""
    return "distillation", label, N, seed


def pretraining(label: str, N: int | None, seed: int, student: str) -> Key:
    """Return the key of the task that pretrains a student on it."""
    return "pretraining", label, N, seed, student


def features(label: str, N: int | None, seed: int, student: str, downstream: str) -> Key:
    """Return the key of the task that extracts the student's features of a dataset."""
    return "features", label, N, seed, student, downstream


def probe(probed: Key, name: str, labels_per_class: int | None) -> Key:
    """Return the key of the task that probes features, given the key of these."""
    return "probes", *probed, name, labels_per_class

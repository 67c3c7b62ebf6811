"""Print the table of `ours` minus `pca` by the length of students.

    python reports/cifar100-small/longer_students.py

p: paired by seed, t-test, not corrected.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import rows
from benchmark.reporting.statistics import Samples, less, mean_of, samples_of, summarise

_FILES = {500: "rows", 2000: "student-steps-2000", 8000: "student-steps-8000"}
_STUDENTS = {
    "convnet": "ConvNet",
    "vgg11": "VGG11",
    "resnet18": "ResNet18",
    "alexnet": "AlexNet",
    "mobilenet": "MobileNet",
}


def main() -> None:
    """Print the table in Markdown."""
    read = {steps: rows.read(Path(__file__).with_name(f"{n}.jsonl")) for steps, n in _FILES.items()}
    columns = [(probe, steps) for probe in ("fair", "paper") for steps in _FILES]
    found = {
        (probe, steps, student): _ours_minus_pca(read[steps], probe, student)
        for probe, steps in columns
        for student in _STUDENTS
    }
    heads = [f"`{probe}`, {steps:_} steps".replace("_", " ") for probe, steps in columns]
    means = {c: mean_of([found[*c, student] for student in _STUDENTS]) for c in columns}
    changes = {c: less(means[c], means[c[0], 500]) for c in columns}
    _print("`ours` minus `pca`, mean of three seeds", heads)
    _print(":--", ["--:"] * len(columns))
    for student, title in _STUDENTS.items():
        _print(title, [_number(found[*c, student]) for c in columns])
    _print("mean of the five", [_number(means[c], p=True) for c in columns])
    _print(
        "its change since 500 steps",
        [_number(changes[c], p=True) if c[1] > 500 else "" for c in columns],
    )


def _ours_minus_pca(known: Sequence[rows.Row], probe: str, student: str) -> Samples:
    ours, pca = (
        samples_of(
            [
                row
                for row in known
                if (row.label, row.probe, row.student) == (label, probe, student)
                and (row.N, row.downstream, row.labels_per_class) == (100, "cifar100", None)
            ]
        )
        for label in ("ours", "pca")
    )
    return less(ours, pca)


def _number(samples: Samples, *, p: bool = False) -> str:
    estimate = summarise(samples)
    assert estimate is not None
    number = f"{estimate.mean:+.1f}".replace("-", "\N{MINUS SIGN}")
    if not p:
        return number
    assert estimate.p is not None
    return f"{number} (p {'< 0.001' if estimate.p < 1e-3 else f'= {estimate.p:.3f}'})"


def _print(title: str, cells: Sequence[str]) -> None:
    sys.stdout.write(f"| {' | '.join([title, *cells])} |\n")


if __name__ == "__main__":
    main()

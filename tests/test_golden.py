"""The layout of every table: whatever changes it shows in what is kept in `fixtures`.

A change that is meant is made by copying over the file that the failing test names.
"""

from pathlib import Path

import pytest

from benchmark.reporting import report

FIXTURES = Path(__file__).parent / "fixtures"
ACCURACY = {"random": 40, "krr-st": 40, "pca": 47, "ours": 48, "ours: bases only": 46}
STUDENTS = {"convnet": 0, "vit": -20}
BUDGETS = {100: 0, 25: -3}
DATASETS = {"cifar100": 0, "cifar10": 25}
PROTOCOLS = {("fair", None): 4, ("paper", None): 0, ("fair", 10): -12}
BASES_ONLY = {"ours": {"augmentations": [], "approximation": False}}


@pytest.fixture
def rows(new_row):
    """Make the rows of two methods and three controls: every number follows from its place."""
    places = [
        (label, N, student, dataset)
        for label in ACCURACY
        for N in BUDGETS
        for student in STUDENTS
        for dataset in DATASETS
        if N == 100 or student == "convnet"
        if ":" not in label or (N, student) == (100, "convnet")
    ]
    places += [
        ("untrained", None, student, dataset) for student in STUDENTS for dataset in DATASETS
    ]
    places += [("teacher", None, "teacher", dataset) for dataset in DATASETS]
    return [
        made_up(new_row, place, protocol, seed)
        for seed in range(3)
        for place in places
        for protocol in PROTOCOLS
    ]


def made_up(new_row, place, protocol, seed):
    (label, N, student, dataset), (probe, amount) = place, protocol
    middle = ACCURACY.get(label, 38) + STUDENTS.get(student, 20) + BUDGETS.get(N, 0)
    middle += DATASETS[dataset] + PROTOCOLS[protocol]
    shake = (sum(map(ord, label)) * (3 * seed + 7) + len(student) * 5 + seed * 11) % 13 / 13
    draws = [middle + shake + 0.1 * (draw - 1) * seed for draw in range(1 if amount is None else 3)]
    stored = {
        "distilled": None,
        "num_numbers": None,
        "num_bytes": None,
        "storage": {},
        "losses": {},
    }
    return new_row(
        label=label,
        method=label.partition(":")[0],
        N=N,
        student=student,
        downstream=dataset,
        probe=probe,
        labels_per_class=amount,
        seed=seed,
        value=sum(draws) / len(draws),
        draws=draws,
        changes=BASES_ONLY if ":" in label else {},
        device="a CPU" if seed == 2 else "a GPU",
        distill_seconds=60.0 + seed,
        **(stored if N is None else {}),
    )


@pytest.mark.parametrize("form", ["md", "csv", "tex"])
def test_tables_are_laid_out_as_they_were(rows, form, tmp_path):
    render = {"md": "markdown", "csv": "csv", "tex": "latex"}[form]
    built = report.build(rows, title="", notes="")
    text = "\n\n".join(getattr(table, render)() for table in built.tables) + "\n"
    new, old = tmp_path / f"tables.{form}", FIXTURES / f"tables.{form}"
    new.write_text(text, encoding="utf-8")
    assert text == old.read_text(encoding="utf-8"), f"if this is meant: cp {new} {old}"

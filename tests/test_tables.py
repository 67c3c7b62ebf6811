from dataclasses import replace

import pytest

from benchmark import plugins
from benchmark.tables._grid import first_student, main_budget, main_downstream
from benchmark.tables._published import published

TABLES = {name: plugins.load("tables", name) for name in plugins.names("tables")}
STUDENTS = ("convnet", "vit")
DATASETS = ("cifar100", "cifar10")


@pytest.fixture
def full_grid(new_row):
    """Make rows of three grids, as a suite would give them."""
    found = []
    for seed in (0, 1):
        for probe, amount in (("fair", None), ("paper", None), ("fair", 10)):
            protocol = {"seed": seed, "probe": probe, "labels_per_class": amount}
            for dataset in DATASETS:
                protocol["downstream"] = dataset
                for student in STUDENTS:
                    for label in ("untrained", "random", "krr-st", "ours", "pca"):
                        N = None if label == "untrained" else 100
                        found.append(new_row(label=label, student=student, N=N, **protocol))
                for label in ("random", "krr-st", "ours", "pca"):
                    found.append(new_row(label=label, N=25, **protocol))
                found.append(new_row(label="ours: bases only", method="ours", **protocol))
                found.append(new_row(label="teacher", student="teacher", N=None, **protocol))
    return found


def texts(table):
    return [[cell.text for cell in line] for line in table.body]


@pytest.mark.parametrize("name", TABLES)
def test_no_rows_make_no_table(name):
    assert TABLES[name]([]) == []


@pytest.mark.parametrize("name", TABLES)
def test_one_row_is_enough(new_row, name):
    for row in (
        new_row(),
        new_row(N=None),
        new_row(label="teacher", student="teacher", N=None, num_images=None, num_numbers=None),
        new_row(label="mine", downstream="digits"),
    ):
        for table in TABLES[name]([row]):
            assert table.markdown().startswith(f"### {table.title}\n\n")
            assert "None" not in table.markdown()


def test_one_row_of_any_kind_is_in_some_accuracy_table(new_row):
    for changes in ({}, {"N": None}, {"downstream": "digits"}, {"student": "teacher", "N": None}):
        tables = TABLES["cross-architecture"]([new_row(value=12.34, **changes)])
        assert "12.34" in tables[0].markdown()


@pytest.mark.parametrize("name", TABLES)
def test_a_full_grid_fills_every_cell(full_grid, name):
    tables = TABLES[name](full_grid)
    assert tables
    for table in tables:
        assert all(len(line) == len(table.columns) for line in table.body)
        assert table.notes.startswith(
            "Distilled from cifar100, teacher barlow-twins, recipe paper."
        )
        if name not in ("cost", "losses"):
            places = [i for i, name in enumerate(table.columns) if name not in ("", "average rank")]
            cells = [line[i] for line in texts(table) for i in places]
            assert all("50.00 ± 0.00" in cell for cell in cells)
    assert TABLES[name](full_grid) == tables


def test_which_tables_a_full_grid_gives(full_grid):
    titles = {name: [table.title for table in make(full_grid)] for name, make in TABLES.items()}
    assert titles == {
        "ablation": ["Ablation, N = 100, convnet"],
        "budgets": [
            "Storage budgets, convnet: fair probe, all labels",
            "Storage budgets, convnet: paper probe, all labels",
            "Storage budgets, convnet: fair probe, 10 labels a class",
        ],
        "cost": ["Storage and cost"],
        "cross-architecture": [
            "Cross-architecture, N = 100: fair probe, all labels",
            "Cross-architecture, N = 100: paper probe, all labels",
            "Cross-architecture, N = 100: fair probe, 10 labels a class",
        ],
        "downstream": [
            "Downstream transfer, N = 100, convnet: fair probe, all labels",
            "Downstream transfer, N = 100, convnet: paper probe, all labels",
            "Downstream transfer, N = 100, convnet: fair probe, 10 labels a class",
        ],
        "losses": ["Losses of distillation"],
    }


def test_a_small_table_to_the_letter(new_row):
    rows = [
        new_row(label="ours", seed=0, value=52.0),
        new_row(label="ours", seed=1, value=53.0),
        new_row(label="ours", student="vit", seed=0, value=23.0, changes={"vit": {"depth": 4}}),
        new_row(label="untrained", N=None, value=36.5),
        new_row(label="teacher", student="teacher", N=None, value=65.0),
        new_row(label="mine", student="vit", value=1.0),
    ]
    (table,) = TABLES["cross-architecture"](rows)
    assert table.markdown() == (
        "### Cross-architecture, N = 100: paper probe, all labels\n\n"
        "Distilled from cifar100, teacher barlow-twins, recipe paper. "
        "Students pretrained on the distilled set, probed on cifar100. "
        "Average rank: of lines with a budget, over the columns that all of these fill.\n\n"
        "|           |                           convnet |   vit |   average rank |\n"
        "|:----------|----------------------------------:|------:|---------------:|\n"
        "| untrained |                             36.50 |     – |              – |\n"
        "| ours      | 52.50 ± 6.35 (paper 52.41, +0.09) | 23.00 |           1.00 |\n"
        "| teacher   |                             65.00 | 65.00 |              – |\n"
        "| mine      |                                 – |  1.00 |           2.00 |"
    )


def test_what_has_no_budget_stands_in_every_column_of_budgets(full_grid):
    table = TABLES["budgets"](full_grid)[0]
    assert list(table.columns) == ["", "N = 25", "N = 100", "average rank"]
    lines = {line[0]: line[1:] for line in texts(table)}
    assert lines["untrained"] == lines["teacher"] == ["50.00 ± 0.00", "50.00 ± 0.00", "–"]
    assert "ours: bases only" not in lines


def test_the_ablation_goes_from_krr_st_to_ours(full_grid):
    (table,) = TABLES["ablation"](full_grid)
    assert [line[0] for line in texts(table)] == ["krr-st", "ours: bases only", "pca", "ours"]
    without = [row for row in full_grid if row.label != "krr-st"]
    (table,) = TABLES["ablation"](without)
    assert texts(table)[0] == ["krr-st", "–", "–", "–"]
    assert TABLES["ablation"]([row for row in full_grid if row.label == row.method]) == []


def test_losses_are_means_over_seeds_and_count_where_they_fell(new_row):
    falls = [{"loss": [4.0, 1.0]}, {"loss": [2.0, 3.0], "rate": [0.5, 0.25]}]
    rows = [
        new_row(label=label, N=N, seed=seed, student=student, losses=losses)
        for student in ("convnet", "vit")
        for label, N in (("dsa", 100), ("dsa", 10))
        for seed, losses in enumerate(falls)
    ]
    (table,) = TABLES["losses"]([*rows, new_row(label="random", losses={})])
    assert texts(table) == [
        ["dsa", N, *line]
        for N in ("10", "100")
        for line in (["loss", "3", "2", "1 of 2"], ["rate", "0.5", "0.25", "1 of 1"])
    ]
    assert TABLES["losses"]([new_row(losses={})]) == []


def test_costs_are_means_over_seeds_and_sums_over_datasets(new_row):
    rows = [
        new_row(
            seed=seed,
            downstream=dataset,
            probe=probe,
            distill_seconds=10.0 + 2 * seed,
            features_seconds=4.0,
            probe_seconds=1.0,
        )
        for seed in (0, 1)
        for dataset in DATASETS
        for probe in ("fair", "paper")
    ]
    (table,) = TABLES["cost"](rows)
    (line,) = texts(table)
    assert dict(zip(table.columns, line, strict=True)) == {
        "": "krr-st",
        "N": "100",
        "images x views": "100 x 1",
        "numbers": "358,400",
        "bytes": "1,433,600",
        "distil, s": "11.0",
        "peak, MiB": "1,000",
        "student steps": "1,000",
        "pretrain, s": "10.0",
        "probe, s": "12.0",  # features of two datasets, two probes on each
    }
    nothing = {"num_images": None, "num_views": None, "num_numbers": None, "num_bytes": None}
    row = new_row(label="untrained", N=None, distill_peak_mib=None, **nothing)
    (line,) = texts(TABLES["cost"]([row])[0])
    assert line[:7] == ["untrained", "–", "–", "–", "–", "60.0", "–"]


def test_published_numbers_are_those_of_the_paper(new_row):
    assert published(new_row(label="krr-st")) == 47.00
    assert published(new_row(label="ours", student="vgg11")) == 35.35
    assert published(new_row(label="ours", N=5000, num_images=256, student_steps=1000)) == 55.53
    assert published(new_row(label="random", downstream="stanford-dogs")) == 12.18
    assert published(new_row(label="dsa", N=25)) is None
    only = new_row(
        label="ours: bases only",
        method="ours",
        changes={"ours": {"augmentations": [], "approximation": False}},
    )
    assert published(only) == 48.57


@pytest.mark.parametrize(
    "change",
    [
        {"source": "cifar10"},
        {"teacher": "supervised"},
        {"recipe": "equal-steps"},
        {"probe": "fair"},
        {"labels_per_class": 10},
        {"N": 99},
        {"N": None},
        {"student": "resnet10t"},
        {"downstream": "digits"},
        {"label": "mine"},
        {"changes": {"krr-st": {"outer_steps": 20}}},
        {"changes": {"teacher": {"epochs": 20}}},
        {"student_steps": 10},
        {"num_images": 300},
    ],
)
def test_published_numbers_stand_beside_nothing_else(new_row, change):
    assert published(new_row()) is not None
    assert published(replace(new_row(), **change)) is None


def test_what_the_main_grids_are_is_seen_from_rows(full_grid, new_row):
    assert first_student(full_grid) == "convnet"
    assert main_budget(full_grid) == 100
    assert main_downstream(full_grid) == "cifar100"
    assert first_student([]) is main_budget([]) is main_downstream([]) is None
    assert first_student([new_row(student="teacher")]) is None
    assert main_downstream([new_row(downstream="b"), new_row(downstream="a")]) == "b"

import csv
import io
import random
import re
from dataclasses import replace

import pytest
from scipy import stats

from benchmark import plugins
from benchmark.reporting.marks import judged
from benchmark.reporting.order import conditions, first_student, main_budget, main_downstream
from benchmark.reporting.published import published

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


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_two_machines_fill_the_same_cells(full_grid, name):
    elsewhere = {"device": "a CPU", "precision": "fp32"}
    mixed = [replace(row, **elsewhere) if row.seed else row for row in full_grid]
    one, two = TABLES[name](full_grid), TABLES[name](mixed)
    if name == "cost":  # which has a line for each
        assert [2 * len(table.body) for table in one] == [len(table.body) for table in two]
    else:
        assert one == two


def test_the_whole_published_grid_fills_every_table(new_row):
    methods = ("random", "dsa", "idm", "datm", "krr-st", "ours")
    students = ("convnet", "vgg11", "resnet18", "alexnet", "mobilenet", "vit")
    rows = [
        new_row(label=label, student=student, N=N, seed=seed, value=40.0 + seed)
        for label in methods
        for student in students
        for N in (100, 25, 50, 1000, 5000)
        for seed in range(5)
    ]
    tables = {table.name: table for make in TABLES.values() for table in make(rows)}
    for name, columns in (("cross-architecture-paper-all", 6), ("budgets-paper-all", 5)):
        lines = texts(tables[name])
        assert [line[0] for line in lines] == list(methods)
        assert all(cell.startswith("42.00 ± 1.96") for line in lines for cell in line[1:-1])
        assert len(tables[name].columns) == columns + 2
    assert len(tables["storage"].body) == len(tables["cost"].body) == 30


def test_one_row_of_any_kind_is_in_some_accuracy_table(new_row):
    for changes in ({}, {"N": None}, {"downstream": "digits"}, {"student": "teacher", "N": None}):
        tables = TABLES["cross-architecture"]([new_row(value=12.34, **changes)])
        assert "12.34" in tables[0].markdown()


@pytest.mark.parametrize("name", TABLES)
def test_a_full_grid_makes_whole_tables(full_grid, name):
    tables = TABLES[name](full_grid)
    assert tables
    assert tables[0].headline
    for table in tables:
        assert all(len(line) == len(table.columns) for line in table.body)
        assert len(set(table.columns)) == len(table.columns)
    assert TABLES[name](full_grid) == tables


@pytest.mark.parametrize("name", ["ablation", "budgets", "cross-architecture", "downstream"])
def test_a_full_grid_fills_every_cell(full_grid, name):
    for table in TABLES[name](full_grid):
        assert table.notes.startswith(
            "Distilled from cifar100, teacher barlow-twins, recipe paper."
        )
        for line in texts(table):
            cells = dict(zip(table.columns, line, strict=True))
            assert all(
                "50.00 ± 0.00" in cells[name] for name in cells.keys() - {"", "average rank"}
            )


def test_names_of_tables_are_those_of_files_and_no_two_alike(full_grid):
    names = [table.name for make in TABLES.values() for table in make(full_grid)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)


def test_which_tables_a_full_grid_gives(full_grid):
    titles = {name: [table.title for table in make(full_grid)] for name, make in TABLES.items()}
    protocols = (
        "fair probe, all labels",
        "paper probe, all labels",
        "fair probe, 10 labels a class",
    )
    assert titles == {
        "ablation": ["Ablation, N = 100, convnet"],
        "accuracy-per-byte": [f"Accuracy per byte, convnet: {words}" for words in protocols],
        "budgets": [f"Storage budgets, convnet: {words}" for words in protocols],
        "cost": ["Cost"],
        "cross-architecture": [f"Cross-architecture, N = 100: {words}" for words in protocols],
        "downstream": [f"Downstream transfer, N = 100, convnet: {words}" for words in protocols],
        "ladder": ["One step at a time, N = 100", "One step at a time, N = 25"],
        "losses": ["Losses of distillation"],
        "paired": [
            f"Paired differences{which}: {words}"
            for words in protocols
            for which in (", N = 100", " by budget, convnet")
        ],
        "probe-sensitivity": ["Probe sensitivity, N = 100: all labels"],
        "provenance": ["Published numbers", "Published numbers, each"],
        "storage": ["Storage", "Storage by component"],
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
        "Students pretrained on the distilled set. Probed on cifar100. "
        "Nothing is tested against `random`, which was not run. "
        "Means over seeds 0, except where n is given: ours (0, 1). Average rank: among rows with a "
        "budget, over 1 of 2 columns, where all of them have numbers.\n\n"
        "|           |                                  convnet |   vit |   average rank |\n"
        "|:----------|-----------------------------------------:|------:|---------------:|\n"
        "| untrained |                                    36.50 |     – |              – |\n"
        "| ours      | 52.50 ± 6.35, n = 2 (paper 52.41, +0.09) | 23.00 |           1.00 |\n"
        "| teacher   |                                    65.00 | 65.00 |              – |\n"
        "| mine      |                                        – |  1.00 |           2.00 |"
    )


def test_what_is_shorter_than_published_is_said_under_each_table(new_row):
    long = new_row(label="random", method="random", student_steps=5000)
    short = {"teacher": {"epochs": 60, "lr": 1}, "ours": {"outer_steps": 400}}
    ours = new_row(label="ours", method="ours", student_steps=1000, changes=short)
    ours = replace(ours, recipe="equal-steps")
    assert conditions([long]) == "Distilled from cifar100, teacher barlow-twins, recipe paper"
    assert conditions([ours]) == (
        "Distilled from cifar100, teacher barlow-twins, recipe equal-steps; not at the published "
        "scale: 400 outer steps (ours), 1000 student steps, 60 teacher epochs"
    )
    assert conditions([replace(ours, label="ours: none")]).count("400 outer steps") == 0
    dsa = new_row(label="dsa", method="dsa", changes={"dsa": {"num_inner_models": 12}})
    assert conditions([dsa]).endswith("not at the published scale: 12 inner models (dsa)")


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
    assert texts(table)[0] == ["krr-st", "–", "–", "–", "–"]
    assert "Nothing is tested against `krr-st`, which was not run." in table.notes
    assert TABLES["ablation"]([row for row in full_grid if row.label == row.method]) == []
    untrained = [
        replace(row, label="untrained: otherwise") for row in full_grid if row.method == "untrained"
    ]
    assert untrained
    assert len(TABLES["ablation"]([*full_grid, *untrained])) == 1  # a variant without a budget
    assert TABLES["ablation"](untrained) == []


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
    (table,) = TABLES["cost"]([*rows, replace(rows[0], key="new", seed=7, device="a CPU")])
    assert [dict(zip(table.columns, line, strict=True)) for line in texts(table)][1] == {
        "": "krr-st",
        "N": "100",
        "device": "a GPU",
        "distil, s": "11.0",
        "distil, MiB": "1,000",
        "student steps": "1,000",
        "pretrain, s": "10.0",
        "pretrain, MiB": "–",
        "features, s": "8.0",  # of two datasets
        "features, MiB": "–",
        "probes, s": "4.0",  # two on each
    }
    assert texts(table)[0][:4] == ["krr-st", "100", "a CPU", "10.0"]


def test_storage_is_told_in_all_and_by_component(new_row):
    parts = {"pixels": [300, 300], "representations": [50, 200]}
    sizes = {"num_numbers": 350, "num_bytes": 500, "file_bytes": 900, "compressed_bytes": 400}
    rows = [
        new_row(label="random", seed=seed, student=student, storage=parts, **sizes)
        for seed in (0, 1)
        for student in STUDENTS
    ]
    rows.append(
        new_row(label="random", seed=2, storage=parts, **{**sizes, "compressed_bytes": 460})
    )
    rows.append(new_row(label="ours", storage={"bases": [7, 28], "other": [1, 8]}, num_images=1200))
    rows.append(new_row(label="full", N=None, num_numbers=None))
    totals, components = TABLES["storage"](rows)
    assert texts(totals) == [
        ["random", "100", "100 x 1", "350", "1,400", "500", "900", "420"],
        ["ours", "100", "1,200 x 1", "358,400", "1,433,600", "1,433,600", "1,437,696", "1,300,000"],
    ]
    assert list(components.columns) == ["", "N", "pixels", "bases", "representations", "other"]
    assert texts(components) == [
        ["random", "100", "300 (300)", "–", "50 (200)", "–"],
        ["ours", "100", "–", "7 (28)", "–", "1 (8)"],
    ]


def test_accuracy_per_byte_by_hand(new_row):
    rows = [
        new_row(label="untrained", N=None, value=30.0, num_bytes=None),
        new_row(label="random", value=40.0, num_bytes=1024, compressed_bytes=1000),
        new_row(label="random", N=50, value=38.0, num_bytes=512),
        new_row(label="krr-st", value=40.0, num_bytes=4096),
        new_row(label="ours", value=42.0, num_bytes=4096),
    ]
    (table,) = TABLES["accuracy-per-byte"](rows)
    assert texts(table) == [
        ["random", "50", "512", "1,300,000", "38.00", "76", "+8.00", "+16", "yes", "1.00"],
        ["random", "100", "1,024", "1,000", "40.00", "40", "+10.00", "+10", "yes", "1.00"],
        ["krr-st", "100", "4,096", "1,300,000", "40.00", "10", "+10.00", "+2.5", "no", "3.00"],
        ["ours", "100", "4,096", "1,300,000", "42.00", "10.5", "+12.00", "+3", "yes", "2.00"],
    ]
    assert table.notes.endswith(
        "Not tested against `random`: fewer than three seeds in common, or no variance over "
        "them. Average rank: among rows with a budget, over 1 of 2 budgets, where all of them have "
        "numbers. Ranks are by points per KiB."
    )


def test_accuracy_per_byte_is_tested_within_each_budget(new_row):
    values = {"random": [40.0, 41.0, 42.0], "dsa": [40.5, 40.5, 42.4], "ours": [50.0, 51.5, 52.0]}
    rows = [
        new_row(label=label, N=N, seed=seed, value=value + N, draws=[value + N])
        for label, line in values.items()
        for N in (10, 20)
        for seed, value in enumerate(line)
    ]
    (table,) = TABLES["accuracy-per-byte"](rows)
    marked = {(line[0].text, line[1].text): line[4].mark for line in table.body}
    assert marked == {
        (label, N): mark
        for label, mark in {"random": "", "dsa": "noise", "ours": "best"}.items()
        for N in ("10", "20")
    }
    pairs = (("dsa", 1), ("ours", 2))  # Holm's factors
    for label, times in pairs:
        p = times * stats.ttest_rel(values[label], values["random"]).pvalue
        found = [line[4].parts["p"] for line in table.body if line[0].text == label]
        assert found == pytest.approx([p, p])
    assert "Bold: significantly better than every other row at the same budget." in table.notes
    assert "not significantly different from `random`" in table.notes


def test_probes_stand_side_by_side_and_agree_on_an_order_or_not(new_row):
    values = {"random": (40.0, 30.0), "krr-st": (41.0, 33.0), "ours": (42.0, 32.0)}
    rows = [
        new_row(label=label, probe=probe, seed=seed, value=value + seed)
        for label, pair in values.items()
        for probe, value in zip(("fair", "paper"), pair, strict=True)
        for seed in (0, 1)
    ]
    rows.append(new_row(label="teacher", student="teacher", N=None, probe="fair", value=60.0))
    (table,) = TABLES["probe-sensitivity"](rows)
    assert texts(table) == [
        ["random", "40.50, 30.50 (-10.00 ± 0.00)", "3.00", "3.00"],
        ["krr-st", "41.50, 33.50 (-8.00 ± 0.00)", "2.00", "1.00"],
        ["ours", "42.50, 32.50 (-10.00 ± 0.00)", "1.00", "2.00"],
        ["teacher", "–", "–", "–"],
        ["rank agreement", "0.33", "–", "–"],  # two pairs of three in the same order
    ]
    assert table.columns[-2:] == ["average rank, fair", "average rank, paper"]
    sorted_by = [line[1].value for line in table.body]
    assert sorted_by == [40.5, 41.5, 42.5, None, pytest.approx(1 / 3)]
    assert table.body[0][1].parts == {
        "paper": 30.5,
        "difference": -10.0,
        "difference half-width": 0.0,
        "n": 2,
    }
    assert TABLES["probe-sensitivity"]([row for row in rows if row.probe == "fair"]) == []


def test_paired_differences_are_tested_line_by_line(new_row):
    values = {
        "random": [40.0, 41.0, 42.0],
        "krr-st": [40.1, 40.9, 42.3],
        "ours": [45.0, 46.2, 47.1],
    }
    rows = [
        new_row(label=label, student=student, seed=seed, value=value + shift)
        for student, shift in (("convnet", 0), ("vit", -20))
        for label, line in values.items()
        for seed, value in enumerate(line)
    ]
    (table,) = TABLES["paired"](rows)
    assert list(table.columns) == ["", "probed on", "convnet", "vit", "mean"]
    assert [line[0] for line in texts(table)] == [
        "krr-st - random",
        "ours - random",
        "ours - krr-st",
    ]
    tests = [
        stats.ttest_rel(values[one], values[other])
        for one, other in (("krr-st", "random"), ("ours", "random"), ("ours", "krr-st"))
    ]
    for line, test, times in zip(table.body, tests, (1, 2, 1), strict=True):
        low, high = test.confidence_interval(0.95)
        p = f"p = {times * test.pvalue:.3f}" if times * test.pvalue >= 0.001 else "p < 0.001"
        for cell in line[2:]:
            assert cell.text == f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}, {p}"
    by_label = {label: {row.key for row in rows if row.label == label} for label in values}
    assert set(table.body[1][4].keys) == by_label["ours"] | by_label["random"]
    vit = {row.key for row in rows if row.student == "vit"}
    assert set(table.body[1][3].keys) == vit & (by_label["ours"] | by_label["random"])
    marks = [[cell.mark for cell in line[2:]] for line in table.body]
    assert marks == [["noise"] * 3, [""] * 3, [""] * 3]


def test_where_random_was_not_run_random_labels_is_what_others_are_compared_with(new_row):
    values = {"random-labels": [40.0, 41.0, 41.5], "dsa": [40.5, 40.9, 41.2], "idm": [50.0, 51, 52]}
    rows = [
        new_row(label=label, seed=seed, value=float(value))
        for label, line in values.items()
        for seed, value in enumerate(line)
    ]
    (table,) = TABLES["paired"](rows)
    assert [line[0] for line in texts(table)] == ["dsa - random-labels", "idm - random-labels"]
    (table,) = TABLES["cross-architecture"](rows)
    assert [line[1].mark for line in table.body] == ["", "noise", "best"]
    assert "not significantly different from `random-labels`" in table.notes


def test_a_method_that_lacks_a_student_has_no_mean(new_row):
    rows = [
        new_row(label=label, student=student, value=value)
        for label, student, value in (
            ("random", "convnet", 40.0),
            ("random", "vit", 20.0),
            ("ours", "convnet", 41.0),
        )
    ]
    (table,) = TABLES["paired"](rows)
    assert texts(table) == [["ours - random", "cifar100", "+1.00", "–", "–"]]
    assert "No p: not tested (fewer than three seeds in common" in table.notes


def test_paired_differences_are_there_for_every_budget_and_dataset(new_row):
    values = {
        "random": [40.0, 41.0, 42.0],
        "krr-st": [41.0, 42.5, 42.0],
        "ours": [45.0, 46.2, 47.1],
    }
    places = {(10, "cifar100"): 0, (20, "cifar100"): 1, (10, "cifar10"): 3}
    rows = [
        new_row(label=label, N=N, downstream=dataset, seed=seed, value=value * (1 + shift / 10))
        for (N, dataset), shift in places.items()
        for label, line in values.items()
        for seed, value in enumerate(line)
    ]
    by_student, table = TABLES["paired"](rows)
    assert [line[:2] for line in texts(by_student)] == [line[:2] for line in texts(table)]
    assert by_student.columns == ["", "probed on", "convnet"]
    assert table.name == "paired-by-budget-paper-all"
    assert list(table.columns) == ["", "probed on", "N = 10", "N = 20"]
    pairs = ["krr-st - random", "ours - random", "ours - krr-st"]
    names = [[name, dataset] for dataset in ("cifar100", "cifar10") for name in pairs]
    assert [line[:2] for line in texts(table)] == names
    for line in table.body:
        one, other = line[0].text.split(" - ")
        p = stats.ttest_rel(values[one], values[other]).pvalue
        shown = [cell for cell in line[2:] if cell.value is not None]
        assert len(shown) == (2 if line[1].text == "cifar100" else 1)
        for cell in shown:  # Holm's factor is 1 or 2: see the test above
            assert cell.parts["p"] / p == pytest.approx(2 if line[0].text == pairs[1] else 1)


def test_every_published_number_has_a_status_and_a_reason(new_row):
    rows = [
        *(new_row(label="krr-st", seed=seed, value=46.0 + seed) for seed in (0, 1, 2)),
        new_row(label="ours", value=48.0),
        new_row(label="random", value=45.0),
        new_row(label="random", probe="fair", value=50.0),
        new_row(label="random", N=25, changes={"paper": {"steps": 9}}, student_steps=7),
    ]
    totals, each = TABLES["provenance"](rows)
    assert texts(totals) == [
        ["Cross-architecture", "36", "1", "1", "1", "0", "33"],
        ["Downstream transfer", "24", "1", "1", "1", "0", "21"],
        ["Storage budgets", "24", "1", "1", "1", "1", "20"],
        ["Ablation", "3", "1", "0", "1", "0", "1"],
    ]
    lines = {tuple(line[:4]): line[4:] for line in texts(each)}
    assert len(lines) == len(each.body) == 36 + 18 + 18 + 1  # of each table what is not in others
    place = ("100", "convnet", "cifar100")
    assert lines["krr-st", *place] == ["47.00", "47.00 ± 2.48", "+0.00", "reproduced", "–"]
    assert lines["ours", *place] == ["52.41", "48.00", "-4.41", "missed", "–"]
    assert lines["random", *place] == ["43.66", "45.00", "+1.34", "above", "–"]
    assert lines["random", "25", *place[1:]] == [
        *("41.61", "50.00", "+8.39", "other settings"),
        "settings of paper; 7 student steps instead of 1,000 (1,000 epochs of this set)",
    ]
    why = {key: line[-1] for key, line in lines.items() if line[3] == "not attempted"}
    assert why["dsa", *place] == "dsa was not run"
    assert why["krr-st", "25", *place[1:]] == "not at N = 25"
    assert why["krr-st", "100", "vit", "cifar100"] == "not with vit"
    assert why["krr-st", "100", "convnet", "cub2011"] == "not probed on cub2011"


def test_where_no_published_number_was_tried_each_is_listed_as_such(new_row):
    totals, each = TABLES["provenance"]([new_row(downstream="digits")])
    assert [line[-1] for line in texts(totals)] == ["36", "24", "24", "3"]
    assert len(each.body) == 73
    assert {line[-2] for line in texts(each)} == {"not attempted"}
    assert all(line[-1] not in ("", "–") for line in texts(each))


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
        {"teacher": "barlow-twins of imagenet"},
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
    assert main_downstream([new_row(downstream="b"), new_row(downstream="a")]) == "a"
    assert main_budget([new_row(N=7), new_row(N=3)]) == 3
    ablation = [new_row(N=7, label="ours"), new_row(N=7, label="ours: bases only")]
    assert main_budget([*ablation, new_row(N=3, label="ours")]) == 7
    assert main_budget([new_row(N=3), new_row(N=100)]) == 100
    assert main_budget([new_row(N=3), new_row(N=100), new_row(N=3, student="vit")]) == 3
    assert first_student([new_row(student="a"), new_row(student="vit")]) == "vit"
    assert first_student([new_row(student="b"), new_row(student="a")]) == "a"


@pytest.mark.parametrize("name", TABLES)
def test_the_order_of_rows_does_not_matter(full_grid, name):
    """With values that no sum of floats adds up to the same in every order."""
    rows = [
        replace(row, value=value, draws=[value], distill_seconds=value, features_seconds=value)
        for place, row in enumerate(full_grid)
        for value in [50 + 0.1 * (place % 7)]
    ]
    stream = random.Random(0)
    expected = rendered(TABLES[name](rows))
    for _ in range(2):
        stream.shuffle(rows)
        assert rendered(TABLES[name](rows)) == expected


def rendered(tables):
    return [(table.markdown(), table.csv(), table.latex()) for table in tables]


ODD = [
    {"num_bytes": 0},
    {"num_bytes": 0, "num_numbers": 0, "storage": {}},
    {"probe": "My Probe"},
    {"probe": "???"},
    {"label": "a|b*c`d\ne", "method": "a|b*c`d\ne"},
    {"label": "λ漢", "student": "vit`\n|", "downstream": "**", "source": "`"},
    {"label": "mean", "student": "mean", "downstream": ""},
    {"student": "teacher", "N": 7},
    {"draws": []},
    {"changes": {"krr-st": {}}, "label": "x"},
    {"device": ""},
]


@pytest.mark.parametrize("changes", ODD)
def test_odd_rows_are_shown_all_the_same(full_grid, new_row, changes):
    odd = [new_row(seed=seed, **changes) for seed in (0, 1)]
    for rows in (odd, [*full_grid[::29], *odd]):
        for make in TABLES.values():
            for table in make(rows):
                lines = table.markdown().partition("\n|")[2].splitlines()
                assert len(lines) == 2 + len(table.body)
                assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[1:]} == {
                    len(table.columns) + 1
                }
                assert table.latex().isascii()
                (header, *_) = csv.reader(io.StringIO(table.csv()))
                assert len(header) >= len(table.columns)


def test_costs_are_told_of_every_device_and_accuracies_of_every_seed_once(new_row):
    one, other = (
        new_row(seed=0, device=device, value=value, draws=[value], distill_seconds=seconds)
        for device, value, seconds in (("a GPU", 40.0, 5.0), ("a CPU", 41.0, 50.0))
    )
    rows = [one, other, new_row(seed=1, value=43.0, draws=[43.0], distill_seconds=7.0)]
    (table,) = TABLES["cost"](rows)
    assert [line[2:4] for line in texts(table)] == [["a CPU", "50.0"], ["a GPU", "6.0"]]
    (table,) = TABLES["cross-architecture"](rows)
    assert texts(table)[0][1].startswith("42.00 ± ")


def test_csv_has_all_that_markdown_shows(new_row):
    rows = [
        new_row(label=label, seed=seed, value=value + seed * step)
        for label, value, step in (("random", 40.0, 1.0), ("ours", 50.0, 1.5))
        for seed in range(3)
    ]
    (table,) = TABLES["cross-architecture"](rows)
    header, _, ours = csv.reader(io.StringIO(table.csv()))
    found = dict(zip(header, ours, strict=True))
    assert [name for name in header if name.startswith("convnet")] == [
        *("convnet", "convnet half-width", "convnet n"),
        *("convnet published", "convnet gap", "convnet p", "convnet mark"),
    ]
    test = stats.ttest_rel([50, 51.5, 53], [40, 41, 42])
    assert float(found["convnet p"]) == pytest.approx(test.pvalue)
    assert (found["convnet n"], found["convnet mark"]) == ("3", "best")
    assert (found["convnet published"], found["convnet gap"]) == ("52.41", "-0.91")
    _, parts = TABLES["storage"](rows)
    header, *lines = csv.reader(io.StringIO(parts.csv()))
    assert lines[0][header.index("pixels bytes")] == "1228800.0"
    totals, _ = TABLES["storage"](rows)
    header, *lines = csv.reader(io.StringIO(totals.csv()))
    assert lines[0][header.index("images x views views")] == "1"


def test_bold_is_never_the_worse_line(new_row):
    """Where seeds are unequal, the higher mean may be the lower line on the seeds of both."""
    values = {"ours": [10.0, 11.0, 12.0, 99.0], "random": [20.0, 21.1, 22.0]}
    rows = [
        new_row(label=label, seed=seed, value=value, draws=[value])
        for label, line in values.items()
        for seed, value in enumerate(line)
    ]
    column = {label: [row for row in rows if row.label == label] for label in values}
    assert {mark for mark, _ in judged(column, reference="random").values()} == {""}


def three_seeds(new_row, **changes):
    values = {"random": 40.0, "krr-st": 45.0, "ours": 50.0}
    return [
        new_row(label=label, seed=seed, value=value + seed, draws=[value + seed], **changes)
        for label, value in values.items()
        for seed in range(3)
    ]


@pytest.mark.parametrize("name", ["cross-architecture", "accuracy-per-byte"])
def test_it_is_said_which_means_are_over_other_seeds(new_row, name):
    rows = three_seeds(new_row)
    (whole,) = TABLES[name](rows)
    assert "n = " not in whole.markdown() and "Means over" not in whole.notes
    (table,) = TABLES[name]([row for row in rows if row.label != "ours" or row.seed == 1])
    assert "Means over seeds 0, 1, 2, except where n is given: ours (1)." in table.notes
    assert [line[0] for line in texts(table) if any("n = 1" in cell for cell in line)] == ["ours"]
    assert "Ranks use means over the seeds that all of them have (1)." in table.notes


def test_a_poor_seed_more_costs_no_rank_and_is_counted(new_row):
    rows = [*three_seeds(new_row), new_row(label="random", seed=3, value=5.0, draws=[5.0])]
    rows += [new_row(label="dsa", seed=seed, value=39.0 + seed) for seed in range(3)]
    (table,) = TABLES["cross-architecture"](rows)
    lines = {line[0]: line[1:] for line in texts(table)}
    assert ", n = 4" in lines["random"][0]
    assert (lines["random"][1], lines["dsa"][1]) == ("3.00", "4.00")
    assert float(lines["random"][0].split()[0]) < float(lines["dsa"][0].split()[0])


def test_probes_are_compared_on_the_seeds_that_both_have(new_row):
    rows = [*three_seeds(new_row, probe="fair"), *three_seeds(new_row, probe="paper")]
    rows = [row for row in rows if row.label != "ours" or row.probe == "fair" or row.seed]
    (table,) = TABLES["probe-sensitivity"](rows)
    lines = {line[0]: line[1] for line in texts(table)}
    assert lines["ours"] == "51.50, 51.50 (+0.00 ± 0.00), n = 2"
    assert lines["random"] == "41.00, 41.00 (+0.00 ± 0.00)"
    assert lines["rank agreement"] == "1.00"
    assert "except where n is given: ours (1, 2)." in table.notes


def test_differences_of_fewer_seeds_than_others_are_counted(new_row):
    rows = [row for row in three_seeds(new_row) if row.label != "ours" or row.seed]
    (table,) = TABLES["paired"](rows)
    assert [line[2].count(", n = ") for line in texts(table)] == [1, 1, 0]
    (table,) = TABLES["paired"](three_seeds(new_row))
    assert "n = " not in table.markdown()


def test_a_student_may_be_called_mean(new_row):
    rows = [
        replace(row, student=student)
        for student, labels in (("mean", {"random", "ours"}), ("vit", {"random", "krr-st"}))
        for row in three_seeds(new_row)
        if row.label in labels
    ]
    (table,) = TABLES["paired"](rows)
    assert list(table.columns) == ["", "probed on", "vit", "mean", "mean of all"]
    assert all(len(line) == 5 for line in table.body)
    table.markdown()


def test_who_lacks_a_budget_in_part_is_said_not_to_compete(new_row):
    rows = [*three_seeds(new_row), new_row(label="mine", N=None), new_row(label="mine", seed=1)]
    (table,) = TABLES["cross-architecture"](rows)
    assert "Neither tested nor ranked, as some of their rows lack a budget: mine." in table.notes


def test_components_of_other_packages_are_stored_too(new_row):
    _, table = TABLES["storage"]([new_row(storage={"sketch": [7, 28], "pixels": [3, 3]})])
    assert list(table.columns) == ["", "N", "pixels", "sketch"]
    assert texts(table) == [["krr-st", "100", "3 (3)", "7 (28)"]]


@pytest.mark.parametrize("name", ["cross-architecture", "paired", "accuracy-per-byte"])
def test_the_own_classifier_leads_where_all_that_competes_was_read_by_it(new_row, name):
    head, fair = three_seeds(new_row, probe="head"), three_seeds(new_row, probe="fair")
    full = [new_row(label="full", N=None, probe="fair")]
    lead, other = TABLES[name]([*fair, *head, *full])
    assert (lead.headline, other.headline) == (True, False)
    assert lead.title.endswith("the student's own classifier")
    assert other.title.endswith("fair probe, all labels")
    lead, *_ = TABLES[name]([*fair, *(row for row in head if row.label != "ours")])
    assert lead.title.endswith("fair probe, all labels")


def test_transfer_is_shown_for_probes_of_several_datasets_only(new_row):
    rows = [
        *three_seeds(new_row, probe="head"),
        *three_seeds(new_row, probe="fair"),
        *three_seeds(new_row, probe="fair", downstream="cifar10"),
    ]
    (table,) = TABLES["downstream"](rows)
    assert table.headline and table.title.endswith("fair probe, all labels")


def test_costs_say_what_rows_do_not_tell(new_row):
    (table,) = TABLES["cost"]([new_row()])
    assert "took 3,600 s on a device that is not recorded." in table.notes
    assert "which does not distinguish methods" in table.notes

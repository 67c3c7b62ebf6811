import json
from dataclasses import replace

import pytest
from scipy import stats

from benchmark import plugins
from benchmark.reporting import published
from benchmark.tables.ladder import _BASES, _NONE, ladder

VALUES = {  # three seeds, whose rows are to be told apart by their method
    "untrained": (30.0, 31.5, 30.5),
    "random": (33.0, 36.0, 34.0),
    "krr-st": (33.5, 36.0, 35.5),
    "ours": (36.0, 38.5, 39.0),
    "pca": (36.0, 38.0, 39.5),
}


def rows_of(new_row, values, **settings):
    return [
        new_row(
            label=label,
            N=None if label == "untrained" else 100,
            seed=seed,
            value=value,
            **settings,
        )
        for label, found in values.items()
        for seed, value in enumerate(found)
    ]


def lines_of(table):
    return {line[0].text: line[1:] for line in table.body}


def test_variants_are_called_as_suites_call_them():
    variants = {v.label: v.settings for v in plugins.load("suites", "cifar100").ablation}
    assert {_NONE, _BASES} <= {*variants}
    as_rows_tell = {label: {"ours": settings} for label, settings in variants.items()}
    for label, changes in published._CHANGES.items():
        assert json.dumps(changes) == json.dumps(as_rows_tell[label])


def test_steps_are_paired_tests_corrected_for_all_of_a_column(new_row):
    (table,) = ladder(rows_of(new_row, VALUES))
    steps = (("random", "untrained"), ("krr-st", "random"), ("ours", "krr-st"), ("ours", "pca"))
    lines = lines_of(table)
    assert list(lines) == [f"{above} - {below}" for above, below in steps]
    ps = {
        f"{above} - {below}": stats.ttest_rel(VALUES[above], VALUES[below]).pvalue
        for above, below in steps
    }
    worst = 0.0
    for rank, name in enumerate(sorted(ps, key=ps.__getitem__)):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[name]))
        _, difference = lines[name]
        assert difference.parts["p"] == pytest.approx(worst)
        assert difference.mark == ("noise" if worst >= 0.05 else "")
    assert lines["random - untrained"][1].value == pytest.approx(11 / 3)


def test_every_budget_has_its_table(new_row):
    smaller = {label: VALUES[label] for label in ("random", "ours", "pca")}
    fewer = [replace(row, N=25, value=row.value - 3) for row in rows_of(new_row, smaller) if row.N]
    main, other = ladder(rows_of(new_row, VALUES) + fewer)
    assert (main.title, main.headline) == ("One step at a time, N = 100", True)
    assert (other.title, other.headline) == ("One step at a time, N = 25", False)
    assert list(lines_of(other)) == ["random - untrained", "ours - pca"]
    assert lines_of(other)["random - untrained"][1].value == pytest.approx(11 / 3 - 3)


def test_a_mean_is_that_of_students_with_both_methods(new_row):
    low = {label: tuple(value - 10 for value in VALUES[label]) for label in ("random", "krr-st")}
    shifted = {**low, "krr-st": tuple(value + 2 for value in low["krr-st"])}
    rows = rows_of(new_row, VALUES) + rows_of(new_row, shifted, student="vit")
    (table,) = ladder(rows)
    assert table.columns[2:] == [
        "paper probe, all labels: convnet",
        "paper probe, all labels: mean of students",
    ]
    _, own, mean = lines_of(table)["krr-st - random"]
    assert own.value == pytest.approx(2 / 3)
    assert mean.value == pytest.approx(2 / 3 + 1)  # two points more in one of two students
    assert len(mean.keys) == 2 * 2 * 3
    _, own, mean = lines_of(table)["ours - krr-st"]
    assert own.value is not None
    assert mean.value is None  # of one student alone
    assert "A mean of students" not in table.notes  # all of them, where there is one


def test_a_mean_of_some_students_is_told(new_row):
    rows = [row for who in ("convnet", "vit") for row in rows_of(new_row, VALUES, student=who)]
    rows += rows_of(new_row, {"random": VALUES["random"]}, student="vgg11")
    (table,) = ladder(rows)
    assert "A mean of students is over those that have numbers of both methods." in table.notes


def test_numbers_of_seeds_are_shown_where_they_differ(new_row):
    (whole,) = ladder(rows_of(new_row, VALUES))
    assert not any(", n = " in cells[-1].text for cells in lines_of(whole).values())
    (table,) = ladder(rows_of(new_row, {**VALUES, "pca": VALUES["pca"][:2]}))
    lines = lines_of(table)
    assert ", n = 3, p = " in lines["krr-st - random"][1].text
    assert lines["ours - pca"][1].text.endswith(", n = 2")


def test_other_budgets_and_steps_that_were_not_run_have_no_line(new_row):
    some = {label: VALUES[label] for label in ("random", "ours", "pca")}
    others = [new_row(label="krr-st", N=25, seed=seed) for seed in range(3)]
    (table,) = ladder(rows_of(new_row, some) + others)
    assert list(lines_of(table)) == ["ours - pca"]
    apart = rows_of(new_row, {"ours": VALUES["ours"]})
    apart += rows_of(new_row, {"pca": VALUES["pca"]}, probe="fair")
    assert ladder(apart) == []

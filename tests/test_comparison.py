"""Two runs side by side: settings that differ, numbers that differ, and which of it is noise."""

from dataclasses import replace

import pytest
from scipy import stats

from benchmark.reporting.comparison import compare

BEFORE = {"krr-st": [40.0, 41.0, 42.0], "ours": [50.0, 51.0, 52.0]}
AFTER = {"krr-st": [40.2, 40.9, 42.0], "ours": [53.0, 54.3, 54.9]}


@pytest.fixture
def run(new_row):
    """Make rows of two students, seed by seed, with changes to all of them."""

    def make(values, **changes):
        return [
            new_row(label=label, seed=seed, student=student, value=value - 10 * (student == "vit"))
            for label, numbers in values.items()
            for student in ("convnet", "vit")
            for seed, value in enumerate(numbers)
        ]

    return make


def texts(table):
    return [[cell.text for cell in line] for line in table.body]


def test_a_run_does_not_differ_from_itself(run):
    (settings,) = compare(run(BEFORE), run(BEFORE))
    assert settings.body == []
    assert settings.notes == (
        "No setting differs. No number differs: all 4 that both have are equal."
    )


def test_equal_numbers_are_counted_and_not_shown(run):
    """They count as tests: what a run left as it was could have changed."""
    after = run({**BEFORE, "ours": AFTER["ours"]})
    settings, methods, numbers = compare(run(BEFORE), after)
    assert settings.notes == "No setting differs. Equal in both, and not shown: 2 of 4 numbers."
    assert [line[0] for line in texts(methods)] == ["ours"]
    assert [line[0] for line in texts(numbers)] == ["ours", "ours"]
    p = stats.ttest_rel(AFTER["ours"], BEFORE["ours"]).pvalue
    assert numbers.body[0][-1].parts["p"] == pytest.approx(4 * p)  # of four lines
    assert methods.body[0][-1].parts["p"] == pytest.approx(2 * p)  # of two methods
    one_seed_more = [*run(BEFORE), replace(run(BEFORE)[0], seed=7)]
    assert len(compare(run(BEFORE), one_seed_more)) == 3


def test_changes_are_tested_over_equal_seeds(run):
    _, methods, numbers = compare(run(BEFORE), run(AFTER))
    tests = [stats.ttest_rel(AFTER[label], BEFORE[label]) for label in BEFORE]
    ps = [min(1, times * test.pvalue) for times, test in zip((1, 2), tests, strict=True)]
    expected = []
    for test, p in zip(tests, ps, strict=True):
        low, high = test.confidence_interval(0.95)
        expected.append(f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}, n = 3, p = {p:.3f}")
    assert texts(methods) == [["krr-st", expected[0]], ["ours", expected[1]]]
    assert [line[1].mark for line in methods.body] == ["noise", ""]
    assert [line[:5] for line in texts(numbers)] == [
        ["krr-st", "100", "convnet", "cifar100", "41.00 ± 2.48"],
        ["krr-st", "100", "vit", "cifar100", "31.00 ± 2.48"],
        ["ours", "100", "convnet", "cifar100", "51.00 ± 2.48"],
        ["ours", "100", "vit", "cifar100", "41.00 ± 2.48"],
    ]
    assert [line[5] for line in texts(numbers)][1] == "31.03 ± 2.25"


def test_settings_that_differ_are_named_by_their_owner(run):
    before = run(BEFORE)
    after = [
        replace(
            row,
            settings={"outer_steps": 200, "new": None},
            student_settings={"depth": 2} if row.student == "vit" else {},
            probe_settings={"steps": 5000},
            changes={"teacher": {"epochs": 20}},
            student_steps=50,
            device="a CPU",
        )
        for row in before
        if row.seed < 2 and row.label == "krr-st"
    ]
    settings, *_ = compare(before, after)
    assert texts(settings) == [
        ["seeds", "0, 1, 2", "0, 1"],
        ["device", "a GPU", "a CPU"],
        ["methods", "krr-st, ours", "krr-st"],
        ["krr-st.outer_steps", "100", "200"],
        ["krr-st.student steps at N = 100", "1000", "50"],
        ["teacher.epochs", "–", "20"],
        ["krr-st.new", "–", "null"],
        ["vit.depth", "–", "2"],
    ]


def test_what_only_one_run_has_is_no_number(run, new_row):
    (settings,) = compare(run(BEFORE), [new_row(probe="fair", value=1.0)])
    assert ["probes", "paper-all", "fair-all"] in texts(settings)
    _, methods, numbers = compare(run(BEFORE), [new_row(value=44.0), new_row(label="dsa")])
    assert texts(methods) == [["krr-st", "+4.00, n = 1"]]
    assert [line[-3:] for line in texts(numbers)] == [
        ["41.00 ± 2.48, n = 3", "44.00, n = 1", "+4.00, n = 1"]
    ]
    for table in (methods, numbers):
        assert "No p: not tested (fewer than three seeds in common" in table.notes
        assert table.body[0][-1].parts["n"] == 1


def test_without_common_seeds_there_is_no_difference_to_test(run, new_row):
    _, methods, numbers = compare(run(BEFORE), [new_row(seed=9, value=44.0)])
    why = "no seed in common"
    assert texts(methods) == [["krr-st", why]]
    assert [line[-3:] for line in texts(numbers)] == [["41.00 ± 2.48, n = 3", "44.00, n = 1", why]]


def test_runs_that_have_nothing_in_common_say_what_each_has(new_row):
    one = new_row()
    (settings,) = compare([one, new_row(downstream="digits")], [new_row(label="dsa", N=25)])
    assert settings.notes == (
        "In common: nothing; only in A: methods krr-st; budgets 100; downstream digits, "
        "only in B: methods dsa; budgets 25."
    )
    crossed = [replace(one, N=25), replace(one, student="vit")]
    (settings,) = compare([one, replace(one, N=25, student="vit")], crossed)
    assert "In common: nothing; both have the same names, in different comb" in settings.notes


def test_nothing_is_compared_with_nothing(new_row):
    (settings,) = compare([], [])
    assert settings.body == []
    assert settings.notes == "No setting differs. No rows in A and B."
    (settings,) = compare([], [new_row()])
    assert ["source", "–", "cifar100, 32x32"] in texts(settings)


def test_the_order_of_rows_does_not_matter(run):
    before, after = run(BEFORE), run(AFTER)
    one, other = compare(before, after), compare(before[::-1], after[::-1])
    assert [table.markdown() for table in one] == [table.markdown() for table in other]


def test_rows_that_do_not_count_are_said(run, new_row):
    old = [new_row(context="old", teacher="another")]
    settings, *_ = compare([*old, *run(BEFORE)], run(BEFORE))
    assert settings.notes == (
        "No setting differs. No number differs: all 4 that both have are equal. "
        "A: 1 of 13 rows are not in the report: 1 differing from the last row in teacher."
    )

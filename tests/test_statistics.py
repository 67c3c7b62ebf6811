"""Intervals and tests hold what they claim: against scipy, against least squares, by simulation."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import stdtrit

from benchmark.reporting import marks, ranks, statistics
from benchmark.reporting.statistics import (
    Estimate,
    estimate,
    holm,
    less,
    mean_of,
    samples_of,
    summarise,
)

# ---- against other code


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_with_all_labels_it_is_student_s_t(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    found = estimate(values[:, None])
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.n == n
    if n >= statistics.MIN_SEEDS:
        assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    else:
        assert found.p is None


def projected(design, values):
    """Return the sum of squares that a design explains beyond the mean, and its rank."""
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return ((fitted - values.mean()) ** 2).sum(), np.linalg.matrix_rank(design) - 1


def test_with_few_labels_it_is_the_two_way_analysis_of_variance():
    n, m = 4, 7
    stream = np.random.default_rng(0)
    grid = stream.normal(size=(n, 1)) + 2 * stream.normal(size=(1, m)) + stream.normal(size=(n, m))
    of_seeds = np.kron(np.eye(n), np.ones((m, 1)))
    of_subsets = np.kron(np.ones((n, 1)), np.eye(m))
    seeds, seeds_rank = projected(of_seeds, grid.ravel())
    subsets, subsets_rank = projected(of_subsets, grid.ravel())
    both, both_rank = projected(np.hstack([of_seeds, of_subsets]), grid.ravel())
    rest = (((grid - grid.mean()) ** 2).sum() - both) / (n * m - 1 - both_rank)
    parts = seeds / seeds_rank, subsets / subsets_rank - rest
    assert min(parts) > 0
    satterthwaite = sum(parts) ** 2 / (parts[0] ** 2 / seeds_rank + parts[1] ** 2 / subsets_rank)
    cochran = np.average(stats.t.ppf(0.975, [seeds_rank, subsets_rank]), weights=parts)
    quantile = (stats.t.ppf(0.975, satterthwaite) + cochran) / 2
    error = np.sqrt(sum(parts) / (n * m))
    found = estimate(grid)
    assert found.standard_error == pytest.approx(error)
    assert found.half_width == pytest.approx(quantile * error)
    exceeded = abs(grid.mean()) / error
    cochran = np.average(stats.t.isf(found.p / 2, [seeds_rank, subsets_rank]), weights=parts)
    assert (stats.t.isf(found.p / 2, satterthwaite) + cochran) / 2 == pytest.approx(exceeded)


@pytest.mark.parametrize("mean", [0.0, 1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("share", [2e-9, 1e-8, 1e-4, 0.5])
def test_tiny_means_and_tiny_parts_have_a_p_value(mean, share):
    """Rounding can leave no change of sign between the ends of the search for it."""
    for degrees in (2.0, 9.0):
        found = Estimate(mean, 3, 1.0, ((1 - share, 2.0), (share, degrees)))
        assert found.p == pytest.approx(1, abs=1e-4)


def test_subsets_that_add_nothing_leave_student_s_t_of_the_seeds():
    """Here all values of a subset have the same mean."""
    grid = np.array([[1.0, 3.0], [2.0, 0.0], [9.0, 9.0]])
    assert np.ptp(grid.mean(0)) == 0
    assert estimate(grid) == estimate(grid.mean(1, keepdims=True))


@pytest.mark.parametrize("shape", [(3, 1), (1, 10)], ids=["seeds alone", "subsets alone"])
def test_a_variance_of_one_kind_alone_is_that_of_student_s_t(shape):
    """What rounding leaves of the other kind has no share in it."""
    stream = np.random.default_rng(0)
    for _ in range(50):
        values = stream.integers(-300, 300, shape) / 100
        found = estimate(np.broadcast_to(values, (3, 10)).copy())
        expected = stats.ttest_1samp(values.ravel(), 0)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-6)


def test_a_mean_of_zero_but_for_rounding_is_tested():
    """Differences of 510 predictions each, whose sum is zero: t is then 1e-16."""
    ours = """311 298 307 309 298 314 306 299 312 323 322 303 299 316 310 319 319 312 315 326
              302 299 299 309 299 311 309 300 304 310"""
    theirs = """309 308 304 311 310 309 311 308 316 320 301 313 292 319 303 305 304 312 319 302
                302 301 302 319 308 311 307 307 306 321"""
    a, b = (100 * np.array(x.split(), dtype=float).reshape(3, 10) / 510 for x in (ours, theirs))
    found = estimate(a - b)
    assert 0 < abs(found.mean) < 1e-12
    assert found.p == pytest.approx(1)


def test_a_paired_test_is_that_of_scipy(new_row):
    stream = np.random.default_rng(1)
    ours, theirs = stream.normal(50, 1, 6), stream.normal(49, 1, 6)
    rows = [
        [new_row(label=label, seed=seed, value=value) for seed, value in enumerate(values)]
        for label, values in (("ours", ours.tolist()), ("random", theirs.tolist()))
    ]
    found = summarise(less(*map(samples_of, rows)))
    test = stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(test.pvalue)
    assert found.mean == pytest.approx((ours - theirs).mean())
    low, high = test.confidence_interval(0.95)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_holm_on_a_worked_example():
    """By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then no less than that for 0.04."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.5}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


# ---- by simulation


def simulated(n, m, *, of_seeds, of_subsets, rest, times=3000):
    """Draw grids around zero whose seeds, subsets and single values all vary."""
    stream = np.random.default_rng([n, m])
    for _ in range(times):
        yield (
            of_seeds * stream.normal(size=(n, 1))
            + of_subsets * stream.normal(size=(1, m))
            + rest * stream.normal(size=(n, m))
        )


MIXED = [
    {"m": 10, "of_seeds": 1, "of_subsets": 0, "rest": 0.3},
    {"m": 10, "of_seeds": 1.4, "of_subsets": 1, "rest": 0.5},
    {"m": 10, "of_seeds": 0.35, "of_subsets": 1, "rest": 0.1},
    {"m": 10, "of_seeds": 0.3, "of_subsets": 0.3, "rest": 1},
]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        *((n, {"m": 1, "of_seeds": 1, "of_subsets": 0, "rest": 0}) for n in (2, 3, 4, 5)),
        *((n, sizes) for n in (3, 4, 5) for sizes in MIXED),
    ],
)
def test_intervals_cover_95_percent_and_tests_alarm_in_5(n, sizes):
    """Where seeds vary, where subsets do, and in the two ratios that are hardest for n = 3."""
    found = [estimate(grid) for grid in simulated(n, **sizes)]
    covered = np.mean([abs(one.mean) <= one.half_width for one in found])
    assert 0.93 <= covered <= 0.97
    if n >= statistics.MIN_SEEDS:
        alarmed = np.mean([one.p < 0.05 for one in found])
        assert alarmed == pytest.approx(1 - covered)


@pytest.mark.parametrize(
    "sizes", [*MIXED, {"m": 10, "of_seeds": 1, "of_subsets": 0.3, "rest": 0.3}]
)
def test_alarms_stay_rare_where_many_tests_ask_for_small_p(sizes):
    """As where eight of them share 5 %: at most 1.8 times too many; by one tail for all, 2.2."""
    found = [estimate(grid) for grid in simulated(3, **sizes, times=20000)]
    assert np.mean([one.p < 0.05 / 8 for one in found]) <= 1.9 * 0.05 / 8


def test_two_seeds_and_several_subsets_have_no_interval():
    """Nor could that of Satterthwaite be given: it would hold far less than it claims."""
    covered = []
    for grid in simulated(2, 10, of_seeds=2, of_subsets=1, rest=0.5):
        found = estimate(grid)
        assert found == statistics.Estimate(grid.mean(), 2)
        assert (found.half_width, found.p) == (None, None)
        parts = 10 * grid.mean(1).var(ddof=1), 2 * grid.mean(0).var(ddof=1)
        degrees = sum(parts) ** 2 / (parts[0] ** 2 + parts[1] ** 2 / 9)
        error = np.sqrt(sum(parts) / 20)
        covered.append(abs(grid.mean()) <= stdtrit(degrees, 0.975) * error)
    assert np.mean(covered) < 0.92


def test_subsets_of_a_seed_are_no_experiments_of_their_own():
    """What would happen if they were taken for independent ones."""
    grids = list(simulated(3, 10, of_seeds=1, of_subsets=0, rest=0.3, times=1000))
    alarms = [stats.ttest_1samp(grid.ravel(), 0).pvalue < 0.05 for grid in grids]
    assert np.mean(alarms) > 0.4


@pytest.fixture
def columns(new_row):
    """Make columns of five methods that are all as good as `random`, over `n` seeds."""

    def make(n, times):
        stream = np.random.default_rng(n)
        labels = ("random", "dsa", "idm", "krr-st", "pca", "ours")
        row = {label: new_row(label=label) for label in labels}
        for _ in range(times):
            shared = stream.normal(50, 1, n)  # of a seed: it is what pairing takes out
            yield {
                label: [
                    _with(row[label], seed=seed, value=float(shared[seed] + stream.normal(0, 0.5)))
                    for seed in range(n)
                ]
                for label in labels
            }

    return make


def _with(row, **changes):
    changed = object.__new__(type(row))
    for name, value in {**vars(row), **changes}.items():
        object.__setattr__(changed, name, value)
    return changed


def marks_of(column, reference="random"):
    """Return the marks of a column, by label."""
    judged = marks.judged(column, reference=reference)
    return {label: mark for label, (mark, _) in judged.items() if mark}


@pytest.mark.parametrize("n", [3, 5])
def test_of_columns_without_differences_one_in_twenty_shows_any(n, columns):
    found = [marks_of(column) for column in columns(n, 700)]
    outside = np.mean([list(marks.values()).count("noise") < 5 for marks in found])
    best = np.mean(["best" in marks.values() for marks in found])
    assert 0.01 <= outside <= 0.06
    assert best <= 0.05


def test_differences_that_are_there_are_seen(columns):
    """Ten seeds and a gap of four standard deviations of a difference."""
    better = [
        {**column, "ours": [_with(row, value=row.value + 3) for row in column["ours"]]}
        for column in columns(10, 100)
    ]
    found = [marks_of(column).get("ours") for column in better]
    assert found.count("best") == 100


# ---- marks, ranks and samples


def column(new_row, **values):
    """Make a column; of each label, values for seeds 0, 1, ..."""
    return {
        label: [new_row(label=label, seed=seed, value=value) for seed, value in enumerate(numbers)]
        for label, numbers in values.items()
    }


def test_marks_by_hand(new_row):
    found = column(
        new_row,
        random=[40.0, 41.0, 42.0, 43.0],
        dsa=[40.5, 40.5, 42.5, 42.5],
        idm=[30.0, 31.1, 32.2, 33.0],
        ours=[50.0, 51.1, 52.0, 53.0],
    )
    assert marks_of(found) == {"dsa": "noise", "ours": "best"}
    assert marks_of(found, reference="idm") == {"ours": "best"}
    assert marks_of(found, reference="datm") == {"ours": "best"}


def test_what_has_no_budget_does_not_compete(new_row):
    found = column(new_row, random=[40.0, 41.0, 42.1], ours=[50.0, 51.1, 52.0])
    full = [new_row(label="full", N=None, seed=seed, value=60.0 + seed) for seed in range(3)]
    assert marks_of({**found, "full": full}) == {"ours": "best"}
    assert ranks.average_ranks([marks.scores({**found, "full": full})]).of == {
        "ours": 1,
        "random": 2,
    }


def test_two_seeds_are_too_few_and_what_is_the_same_is_noise(new_row):
    assert marks_of(column(new_row, random=[40.0, 41.0], ours=[60.0, 61.1])) == {}
    same = [40.0, 41.0, 42.0]
    assert marks_of(column(new_row, random=same, ours=same)) == {"ours": "noise"}
    uneven = [40.1, 41.7, 42.3]
    beyond = [value + 9.3 for value in uneven]  # no spread but rounding: nothing to test with
    assert len({ours - theirs for ours, theirs in zip(beyond, uneven, strict=True)}) > 1
    assert marks_of(column(new_row, random=uneven, ours=beyond)) == {}


def test_a_difference_that_is_only_significant_uncorrected_is_noise_and_never_best(new_row):
    ours = [50.0, 51.0, 52.2]
    theirs = [45.0, 47.5, 46.3]
    p = stats.ttest_rel(ours, theirs).pvalue
    assert 0.05 / 5 < p < 0.05
    others = {label: [41.0, 40.0, 39.3] for label in ("dsa", "idm", "datm", "krr-st")}
    found = column(new_row, random=theirs, ours=ours, **others)
    assert marks_of(found)["ours"] == "noise"


def test_equally_many_hits_share_a_rank_however_seeds_divide_them():
    by_seed = {
        "idm": {0: 92.74509803921569, 1: 93.13725490196079, 2: 93.52941176470588},
        "datm": {0: 93.33333333333333, 1: 93.92156862745098, 2: 92.15686274509804},
        "random": {0: 93.0, 1: 92.0, 2: 91.0},
    }
    assert ranks.average_ranks([by_seed]).of == {"idm": 1.5, "datm": 1.5, "random": 3.0}


def test_ranks_are_means_over_columns_that_all_fill(new_row):
    first = column(new_row, random=[1.0, 3.0], dsa=[2.0], ours=[5.0])
    second = column(new_row, random=[1.0], dsa=[3.0], ours=[2.0])
    third = {**column(new_row, random=[9.0], ours=[1.0]), "dsa": []}
    first, second, third = map(marks.scores, (first, second, third))
    found = ranks.average_ranks([first, second, third])
    assert found.of == {"ours": 1.5, "random": 3.0, "dsa": 1.5}  # on seed 0
    assert found.note == (
        "Average rank: among rows with a budget, over 2 of 3 columns, where all of them have "
        "numbers. Ranks use means over the seeds that all of them have (0)."
    )
    found = ranks.average_ranks([third], noun="budgets")
    assert found.of == {"random": 1, "ours": 2}
    assert found.note == "Average rank: among rows with a budget, over all budgets."
    nothing = ranks.average_ranks(
        [{"ours": {0: 1.0}, "dsa": {0: 2.0}}, {"ours": {0: 3.0}}, {"random": {0: 1.0}}]
    )
    assert (nothing.of, nothing.headings, nothing.cells("ours")) == ({}, [], [])
    assert nothing.note == (
        "No average rank: none of the columns has numbers for every row with a budget."
    )
    for columns in ([{"ours": {0: 1.0}}], []):
        assert ranks.average_ranks(columns) == ranks.Ranks({}, "")


def test_ranks_need_a_seed_that_all_have():
    """One seed more, and a poor one, costs nobody a rank."""
    equal = {"random": {0: 50.0, 1: 52.0}, "ours": {0: 40.0, 1: 42.0}}
    more = {**equal, "random": {**equal["random"], 3: 0.0}}
    apart = {"random": {0: 50.0}, "ours": {1: 60.0}}
    assert ranks.average_ranks([more]).of == {"random": 1, "ours": 2}
    assert ranks.average_ranks([more]).note.endswith("seeds that all of them have (0, 1).")
    assert ranks.average_ranks([equal]).note.endswith("over all columns.")
    found = ranks.average_ranks([equal, apart])
    assert found.of == {"random": 1, "ours": 2}
    assert "over 1 of 2 columns, where all of them have numbers on common seeds." in found.note
    found = ranks.average_ranks([apart])
    assert (found.of, found.note) == (
        {},
        "No average rank: none of the columns has numbers for every row with a budget on a common "
        "seed.",
    )


def test_samples_pair_by_seed_and_by_subset_where_they_can(new_row):
    few = {"labels_per_class": 10, "value": 2.0}
    ours = samples_of(
        [new_row(seed=0, draws=[1.0, 3.0], **few), new_row(seed=1, draws=[2.0, 2.0], **few)]
    )
    theirs = samples_of([new_row(seed=1, draws=[0.0, 1.0], **few), new_row(seed=2, value=9.0)])
    (difference,) = less(ours, theirs).items()
    assert (difference[0], difference[1].tolist()) == (1, [2.0, 1.0])
    assert less(ours, samples_of([new_row(seed=0, value=5.0)]))[0].tolist() == [-3.0]
    assert mean_of([ours, theirs])[1].tolist() == [1.0, 1.5]
    assert summarise({}) is None
    assert mean_of([]) == {}
    assert format(summarise(samples_of([new_row(value=2.0)]))) == "2.00"


def test_samples_are_in_the_order_of_their_seeds(new_row):
    rows = [new_row(seed=seed, value=0.1 * seed) for seed in range(9)]
    assert list(samples_of(rows[::-1])) == list(range(9))
    assert summarise(samples_of(rows[::-1])) == summarise(samples_of(rows))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"random": [1.0, 2.0], "dsa": [3.0, 5.0]}, "Not tested against `random`: fewer than "),
        ({"random": [], "dsa": [1.0, 2.0, 4.0]}, "Nothing is tested against `random`, which was "),
        ({"random": [1.0, 2.0, 4.0], "dsa": [3.0, 5.0, 5.5]}, ""),
        ({"random": [1.0, 2.0, 4.0]}, ""),
    ],
)
def test_it_is_said_what_was_not_tested(new_row, values, sentence):
    found = marks.legend([], {"vit": column(new_row, **values)}, reference="random")
    assert found.startswith(sentence) and bool(found) is bool(sentence)


def test_it_is_said_which_cells_were_not_tested(new_row):
    three, two = [1.0, 2.0, 4.0], [3.0, 5.0]
    columns = {
        "vit": column(new_row, random=three, dsa=two, ours=[4.0, 4.0, 5.5]),
        "a`b": column(new_row, random=three, dsa=[3.0, 4.5, 5.0], ours=two),
    }
    assert marks.legend([], columns, reference="random") == (
        "Not tested against `random`, fewer than three seeds in common, or no variance over them: "
        "dsa (vit), ours (a'b). "
        "Means over seeds 0, 1, 2, except where n is given: dsa (0, 1), ours (0, 1)."
    )

import pickle
from dataclasses import replace

import pytest
import torch

from benchmark import plugins
from benchmark.arguments import new_parser
from benchmark.check import check, owners, teacher_owners
from benchmark.commands._suite import suite_of
from benchmark.grid import (
    CELL_FLAGS,
    FLAGS,
    Cell,
    Protocol,
    Variant,
    cells,
    default_of,
    method_of,
    probe_of,
    protocols,
    recipe_of,
    teacher_of,
    with_settings,
)
from benchmark.pretrain import RECIPES
from benchmark.spec import OwnEvaluation, TrainingSet, UsageError


def names(suite):
    return [str(cell) for cell in cells(suite)]


def test_three_grids_share_their_first_student_and_main_budget(toy_suite):
    suite = replace(toy_suite, controls=("untrained", "teacher"), methods=("random", "ours"))
    assert names(suite) == [
        "untrained, convnet, seed 0",
        "untrained, resnet-small, seed 0",
        "teacher, teacher, seed 0",
        "random, N = 4, convnet, seed 0",
        "random, N = 4, resnet-small, seed 0",
        "ours, N = 4, convnet, seed 0",
        "ours, N = 4, resnet-small, seed 0",
        "random, N = 6, convnet, seed 0",
        "ours, N = 6, convnet, seed 0",
        "ours: bases only, N = 4, convnet, seed 0",
    ]
    assert names(replace(suite, ablation_budgets=(5, 6))) == [
        *names(suite),
        "ours: bases only, N = 6, convnet, seed 0",
    ]


def test_every_cell_is_there_once_for_each_seed(toy_suite):
    suite = replace(toy_suite, controls=("random", "full"), methods=("random",), seeds=(3, 5))
    found = cells(suite)
    assert len(set(found)) == len(found)
    for seed in (3, 5):
        assert [str(cell) for cell in found if cell.seed == seed] == [
            f"{cell}, seed {seed}"
            for cell in (
                *("random, N = 4, convnet", "random, N = 4, resnet-small"),
                *("full, convnet", "full, resnet-small", "random, N = 6, convnet"),
            )
        ]


def test_cells_that_share_a_distilled_set_stand_next_to_each_other(toy_suite):
    sets = [
        (cell.variant.label, cell.N) for cell in cells(toy_suite) if cell.variant.label == "krr-st"
    ]
    assert sets == sorted(sets, key=lambda pair: pair[1])


def test_an_ablation_without_its_method_is_left_out(toy_suite):
    assert not any("bases only" in name for name in names(replace(toy_suite, methods=("krr-st",))))


def test_a_cell_can_be_a_key_and_travel_to_another_process(toy_suite):
    for cell in cells(toy_suite):
        assert {pickle.loads(pickle.dumps(cell)): 1}[cell] == 1
    assert pickle.loads(pickle.dumps(toy_suite)) == toy_suite


def test_cells_of_other_settings_are_other_cells():
    plain, changed = (
        Cell(variant=Variant(label="a", method="ours", settings=settings), N=1, student="s", seed=0)
        for settings in ({}, {"bases": False})
    )
    assert plain != changed


def test_settings_of_a_variant_come_after_those_of_the_suite(toy_suite):
    (variant,) = toy_suite.ablation
    method = method_of(toy_suite, variant)
    assert method.augmentations == ()
    assert method.approximation is False
    assert method.num_image_bases == 3
    assert method.ridge == default_of("ours").ridge
    assert method_of(toy_suite, Variant(label="ours", method="ours")).approximation is True


def test_records_are_the_published_ones_with_the_suites_changes(toy_suite):
    assert recipe_of(toy_suite, "mse") == replace(RECIPES["mse"], batch_size=8)
    assert recipe_of(toy_suite, "cross-entropy") == RECIPES["cross-entropy"]
    assert probe_of(toy_suite, "paper") == replace(default_of("paper"), steps=10, batch=16)
    assert probe_of(toy_suite, "fair") == default_of("fair")
    suite = with_teacher(toy_suite, {"epochs": "7"})
    assert (teacher_of(suite).epochs, teacher_of(suite).batch_size) == (7, 16)


def with_teacher(suite, changes):
    return replace(suite, settings={**suite.settings, "teacher": changes})


@pytest.mark.parametrize("kind", ["methods", "teachers"])
def test_every_plug_in_with_fields_has_defaults(kind):
    for name in plugins.names(kind):
        assert default_of(name) == plugins.load(kind, name)()
    assert default_of("mse") is RECIPES["mse"]
    assert default_of("convnet") is None


def test_protocols_are_all_pairs(toy_suite):
    variant = Variant(label="ours", method="ours")
    assert protocols(toy_suite, variant, toy_suite.source) == [
        Protocol("fair", None),
        Protocol("paper", None),
        Protocol("fair", 2),
        Protocol("paper", 2),
    ]


def test_only_students_of_labels_have_a_classifier_and_only_of_the_source(toy_suite):
    suite = replace(toy_suite, probes=("head", "fair"))
    fair = [Protocol("fair", None), Protocol("fair", 2)]
    found = {
        (name, downstream): protocols(suite, Variant(label="any", method=name), downstream)
        for name in ("dsa", "krr-st", "full", "teacher")
        for downstream in (suite.source, "digits")
    }
    assert found.pop(("dsa", suite.source)) == [Protocol("head", None), *fair]
    assert list(found.values()) == [fair] * 7
    few = replace(
        suite, labels_per_class=(2,)
    )  # of which the classifier, which sees none, takes no
    own = protocols(few, Variant(label="any", method="dsa"), suite.source)
    assert own == [Protocol("head", None), Protocol("fair", 2)]


def test_the_own_recipe_is_the_suites_with_what_the_method_says(toy_suite):
    data = TrainingSet(
        images=torch.zeros(1, 3, 4, 4),
        views=("identity",),
        targets=torch.full((1, 1, 2), 0.5),
        objective="cross-entropy",
        own=OwnEvaluation(recipe={"lr": 0.02, "batch_size": 128}),
    )

    def own_recipe(suite, data):
        return recipe_of(suite, data.objective, own=data.own.recipe)

    suite = replace(toy_suite, settings={"cross-entropy": {"weight_decay": "0.5"}})
    usual = replace(RECIPES["cross-entropy"], weight_decay=0.5)
    assert own_recipe(suite, data) == usual
    own = replace(suite, recipe="own")
    assert own_recipe(own, data) == replace(usual, lr=0.02, batch_size=128)
    assert own_recipe(own, replace(data, own=OwnEvaluation())) == usual
    with pytest.raises(UsageError, match=r"^cross-entropy: lr=-0.1: expected a number above 0"):
        own_recipe(own, replace(data, own=OwnEvaluation(recipe={"lr": -0.1})))


def test_a_probe_that_gives_no_number_is_refused(toy_suite):
    suite = replace(toy_suite, probes=("head",), methods=("dsa",), controls=(), ablation=())
    check(suite, cells(suite))
    for changes in ({"methods": ("krr-st",)}, {"downstream": ("digits",)}):
        other = replace(suite, **changes)
        with pytest.raises(UsageError, match=r"^--probes head: .* add the probe fair$"):
            check(other, cells(other))


def test_assignments_are_added_to_a_copy(toy_suite):
    settings = with_settings(toy_suite, ["mse.lr=0.3", "dsa.ipc=1", "mse.lr=0.4", "a.b=c=d"])
    assert settings["mse"] == {"batch_size": 8, "lr": "0.4"}
    assert settings["dsa"] == {"ipc": "1"}
    assert settings["a"] == {"b": "c=d"}
    assert toy_suite.settings["mse"] == {"batch_size": 8}


@pytest.mark.parametrize("text", ["", "a", "a=1", "a.b", ".b=1", "a.=1", "=1", "a=b.c"])
def test_an_assignment_that_is_none_is_refused(toy_suite, text):
    with pytest.raises(UsageError, match=f"^--set {text}: expected OWNER.NAME=VALUE$"):
        with_settings(toy_suite, [text])


@pytest.mark.parametrize(
    ("name", "controls"),
    [
        ("cifar100", {"untrained", "pca", "random-labels", "random-bytes"}),
        ("quick", {"untrained", "pca"}),
        ("supervised", {"random-labels"}),
    ],
)
def test_the_suites_that_ship_make_sense(name, controls):
    suite = plugins.load("suites", name)
    wanted = cells(suite)
    check(suite, wanted)
    assert suite.source in suite.downstream
    assert controls <= {cell.variant.label for cell in wanted}
    assert len({str(cell) for cell in wanted}) == len(wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probes": ("fare",)}, "unknown probe 'fare': did you mean 'fair'"),
        ({"students": ("convnt",)}, "unknown model 'convnt'"),
        ({"settings": {"quick": {"x": 1}}}, "unknown owner of a setting 'quick'"),
        ({"settings": {"dsa": {"x": 1}}}, "unknown setting of dsa 'x'"),
        ({"settings": {"resnet10t": {"pretrained": True}}}, "resnet10t.pretrained: expected"),
        ({"settings": {"vit": {"depth": "x"}}}, "vit.depth=x: expected int"),
        ({"settings": {"teacher": {"momentum": 1}}}, "unknown setting of supervised 'momentum'"),
        ({"settings": {"barlow-twins": {"x": 1}}}, "unknown setting of barlow-twins 'x'"),
        ({"settings": {"krr-st": {"max_age": 0}}}, "krr-st: max_age=0: expected 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_whether_it_is_needed_or_not(toy_suite, changes, message):
    suite = replace(toy_suite, methods=("random",), controls=(), **changes)
    with pytest.raises(UsageError, match=f"^{message}"):
        check(suite, cells(suite))


def test_a_suite_of_another_package_with_an_unknown_recipe_is_refused(toy_suite):
    suite = replace(toy_suite)
    object.__setattr__(suite, "recipe", "equal_steps")  # types are checked in these tests alone
    with pytest.raises(UsageError, match=r"^unknown recipe 'equal_steps': did you mean 'equal-st"):
        check(suite, [])


def test_owners_are_those_who_take_part(toy_suite):
    suite = replace(toy_suite, methods=("random",), controls=("teacher",), probes=("fair",))
    teacher = {"supervised", "teacher", "teacher-model"}
    assert teacher_owners(suite) == teacher
    students = {"convnet", "resnet-small"}
    everyone = {"random", "fair", "mse", "cross-entropy", *students, *teacher}
    assert owners(suite, cells(suite)) == everyone
    assert teacher_owners(replace(suite, teacher="a/file.safetensors")) == set()


def test_no_ablation_leaves_variants_out_and_is_told_of():
    def suite(*flags):
        return suite_of(new_parser().parse_args(["run", "--suite", "cifar100-small", *flags]))

    with_, without = suite(), suite("--no-ablation", "--seeds", "0")
    assert with_.ablation
    assert {cell.variant.label for cell in cells(without)} == {
        *without.methods,
        *without.controls,
    }
    assert (with_.flags, without.flags) == ("", "--seeds 0 --no-ablation")


def test_every_flag_of_a_suite_is_known_by_what_it_changes():
    (commands,) = (action for action in new_parser()._actions if action.dest == "command")
    run = commands.choices["run"]
    groups = {group.title.partition(" (")[0]: group for group in run._action_groups}
    grid = {action.dest for action in groups["what to run"]._group_actions}
    assert grid - {"suite", "no_ablation"} == set(FLAGS) - {"precision", "layout"}
    assert set(CELL_FLAGS) < set(FLAGS)


def test_flags_are_told_of_in_their_order():
    given = (
        *("--source digits", "--size 8", "--teacher supervised", "--methods random"),
        *("--controls none", "--students vit", "--downstream digits", "--budgets 4,2"),
        *("--seeds 0", "--recipe equal-steps", "--probes fair", "--labels-per-class all,2"),
        *("--precision fp32", "--layout contiguous", "--student-steps 3", "--no-ablation"),
        "--set vit.depth=1",
    )
    backwards = [word for flag in reversed(given) for word in flag.split()]
    assert suite_of(new_parser().parse_args(["run", *backwards])).flags == " ".join(given)
    assert [flag.split()[0][2:].replace("-", "_") for flag in given if "no-" not in flag] == [
        *FLAGS
    ]

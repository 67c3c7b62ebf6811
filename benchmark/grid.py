"""What to run: suites are data, which flags modify and which expand to cells."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_args

from benchmark import plugins
from benchmark.network import Layout, Precision
from benchmark.pretrain import RECIPES, Length, Recipe
from benchmark.probes.linear import Probe
from benchmark.probing import HEAD, PROBES, HeadProbe
from benchmark.settings import expect_dataclass, replace
from benchmark.spec import (
    Limit,
    Method,
    Objective,
    OwnEvaluation,
    Supervision,
    TrainingSet,
    UsageError,
    unknown,
)

TEACHER = "teacher"  # the control that probes the teacher itself instead of a student
TEACHER_MODEL = "teacher-model"  # owner of the backbone settings of a teacher pretrained here

# Flags that change a suite and take values, in the order of `Suite.flags`.
FLAGS = (
    *("source", "size", "teacher", "methods", "controls", "students", "downstream", "budgets"),
    *("seeds", "recipe", "probes", "labels_per_class", "precision", "layout", "student_steps"),
    "set",
)
# Those that only choose which numbers there are; after any other, a suite's notes may not apply.
CELL_FLAGS = (
    *("methods", "controls", "students", "downstream", "budgets", "seeds"),
    *("probes", "labels_per_class"),
)

RecipeName = Literal["paper", "equal-steps", "own"]
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with some of its fields changed, and its label in tables."""

    label: str
    method: str
    settings: Settings = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named grid of experiments.

    Three grids share it: every method with every student at the main budget (cross-architecture and
    transfer), every method at every budget with the first student, and the ablation with the first
    student at the main budget and those named.

    Attributes:
        name: on the command line.
        title: one line for `list suites`.
        notes: for readers of the report: its scale, and how it departs from the paper.
        source: dataset that is distilled.
        size: side of all images.
        teacher: name of a teacher kind, or of a file shipped with the package.
        methods, controls: run unless others are requested.
        ablation: variants in addition to `krr-st` and `ours`.
        ablation_budgets: those at which the ablation runs, besides the main one.
        students: names of models; the first is also the student of budgets and ablation.
        downstream: datasets that students are probed on.
        where_present: optional ones, left out if they are not found.
        budgets: N, the main one first.
        seeds: of whole experiments (distillation, student and probe), which share one teacher.
        recipe: how long students are pretrained: for `student_steps` with `equal-steps`, otherwise
            for `student_epochs`; `own` also gives a method its own published evaluation
            (`spec.OwnEvaluation`).
        probes, labels_per_class: every combination gives a number (None: all labels).
        settings: changes of defaults, by owner: a method, model, probe, kind of teacher, or a
            recipe by its objective (`mse`, `cross-entropy`); `teacher` is whichever kind of teacher
            is pretrained, and `teacher-model` its backbone.
        precision, layout: of all networks; None means that a measurement on the device decides.
        flags: what the command line changed, as flags.
    """

    name: str
    title: str
    notes: str
    source: str
    size: int
    teacher: str
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    ablation: tuple[Variant, ...]
    students: tuple[str, ...]
    downstream: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    recipe: RecipeName = "paper"
    student_steps: int
    student_epochs: int = 1000
    probes: tuple[str, ...] = ("fair", "paper")
    labels_per_class: tuple[int | None, ...] = (None, 10)
    settings: Mapping[str, Settings] = field(default_factory=dict)
    precision: Precision | None = None
    layout: Layout | None = None
    where_present: tuple[str, ...] = ()
    ablation_budgets: tuple[int, ...] = ()
    flags: str = ""

    @property
    def length(self) -> Length:
        """How long students are pretrained."""
        if self.recipe == "equal-steps":
            return Length(steps=self.student_steps)
        return Length(epochs=self.student_epochs)


class Protocol(NamedTuple):
    """One way to turn features into a number: a probe and its labels per class (None: all)."""

    probe: str
    labels_per_class: int | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One distilled set and one student pretrained on it; `N` is None where it does not matter."""

    variant: Variant
    N: int | None
    student: str
    seed: int

    def __str__(self) -> str:
        budget = "" if self.N is None else f", N = {self.N}"
        return f"{self.variant.label}{budget}, {self.student}, seed {self.seed}"


def cells(suite: Suite) -> list[Cell]:
    """Return every cell of a suite once, those that share a distilled set side by side."""
    main = suite.budgets[0]
    variants = [
        Variant(label=name, method=name)
        for name in dict.fromkeys((*suite.controls, *suite.methods))
    ]
    wanted = [
        Cell(variant=variant, N=main, student=student, seed=seed)
        for seed in suite.seeds
        for variant in variants
        for student in suite.students
    ]
    wanted += [
        Cell(variant=variant, N=budget, student=suite.students[0], seed=seed)
        for seed in suite.seeds
        for budget in suite.budgets[1:]
        for variant in variants
    ]
    wanted += [
        Cell(variant=variant, N=budget, student=suite.students[0], seed=seed)
        for seed in suite.seeds
        for budget in suite.budgets
        if budget == main or budget in suite.ablation_budgets
        for variant in suite.ablation
        if variant.method in suite.methods
    ]
    return list(dict.fromkeys(map(_without_budget, wanted)))


def _without_budget(cell: Cell) -> Cell:
    """Return a cell without its budget if that has no effect; the teacher has no student either."""
    if cell.variant.method == TEACHER:
        return Cell(variant=cell.variant, N=None, student=TEACHER, seed=cell.seed)
    if method_class(cell.variant.method).limit != "none":
        return cell
    return Cell(variant=cell.variant, N=None, student=cell.student, seed=cell.seed)


def default_of(owner: str) -> Any:
    """Return the published defaults of a recipe, probe, method or kind of teacher, or None."""
    if owner in PROBES:
        return PROBES[owner]()
    for kind in ("methods", "teachers"):
        if owner in plugins.names(kind):
            return plugins.load(kind, owner)()
    return next((recipe for name, recipe in RECIPES.items() if name == owner), None)


def method_of(suite: Suite, variant: Variant) -> Method:
    """Return the method of a variant: published defaults, then the suite's, then the variant's.

    Raises:
        UsageError: no such method, or no such field.
    """
    changes = {**suite.settings.get(variant.method, {}), **variant.settings}
    method: Method = replace(variant.method, method_class(variant.method)(), changes)
    return method


def method_class(name: str) -> Any:
    """Return the class of a method.

    Raises:
        UsageError: there is none, or it does not satisfy `spec.Method`.
    """
    made = plugins.load("methods", name)
    _expect_plugin(f"method {name}", made, ("distill", "decode"), limit=Limit)
    return made


def views_of(method: Method) -> tuple[str, ...]:
    """Return the views under which a method needs the teacher's representations."""
    views: tuple[str, ...] = getattr(method, "views", ("identity",))
    return views


def teacher_of(suite: Suite) -> Any:
    """Return the suite's kind of teacher: published defaults, then the suite's settings of it.

    Raises:
        UsageError: no such kind, or no such field, or it does not satisfy
            `pretrain_teacher.TeacherKind`.
    """
    made = plugins.load("teachers", suite.teacher)
    members = ("pretrain", "model", "standardise", "storage")
    _expect_plugin(f"teacher {suite.teacher}", made, members)
    changes = {**suite.settings.get(suite.teacher, {}), **suite.settings.get(TEACHER, {})}
    return replace(suite.teacher, made(), changes)


def _expect_plugin(owner: str, made: Any, members: Sequence[str], **literals: Any) -> None:
    """Refuse a plug-in that is no dataclass with defaults, or lacks what the harness uses.

    Args:
        owner: what it is, for messages.
        made: the class.
        members: that it must have, besides its supervision.
        **literals: the types of its other literals.
    """
    expect_dataclass(owner, made)
    for field_ in fields(made):
        if field_.default is MISSING and field_.default_factory is MISSING:
            raise UsageError(f"{owner}: its setting {field_.name} has no default")
    for attribute, allowed in {"supervision": Supervision, **literals}.items():
        if (found := getattr(made, attribute, None)) not in get_args(allowed):
            choices = ", ".join(map(repr, get_args(allowed)))
            raise UsageError(f"{owner}: its {attribute} is {found!r}, expected {choices}")
    settings = {field_.name for field_ in fields(made)}
    if lacking := [name for name in members if name not in settings and not hasattr(made, name)]:
        raise UsageError(f"{owner}: it has no {' and no '.join(lacking)}")


def recipe_of(
    suite: Suite, objective: Objective, *, own: Mapping[str, Any] | None = None
) -> Recipe:
    """Return how students are pretrained: the published recipe of an objective, then the suite's.

    Under `own`, a method's `own` changes come on top.

    Raises:
        UsageError: no such field, or an invalid value, such as a negative rate.
    """
    recipe: Recipe = replace(objective, RECIPES[objective], suite.settings.get(objective, {}))
    return replace(objective, recipe, own) if own and suite.recipe == "own" else recipe


def evaluation_of(suite: Suite, data: TrainingSet) -> OwnEvaluation:
    """Return the evaluation of `data`: its method's own under `own`, otherwise the default."""
    return data.own if suite.recipe == "own" else OwnEvaluation()


def protocols(suite: Suite, variant: Variant, downstream: str) -> list[Protocol]:
    """Return every combination of probe and number of labels for a method's student.

    A student has its own classifier only if the method saw labels, and only for their classes.
    """
    fitted = [name for name in suite.probes if name != HEAD]
    pairs = [Protocol(name, amount) for amount in suite.labels_per_class for name in fitted]
    if HEAD in suite.probes and downstream == suite.source and is_supervised(variant):
        return [Protocol(HEAD, None), *pairs]
    return pairs


def is_supervised(variant: Variant) -> bool:
    """Say whether a method sees labels."""
    if variant.method == TEACHER:
        return False
    return bool(method_class(variant.method).supervision == "labels")


def probe_of(suite: Suite, name: str) -> Probe | HeadProbe:
    """Return a probe: published defaults, then the suite's settings.

    Raises:
        UsageError: no such probe, or no such field.
    """
    if name not in PROBES:
        raise unknown("probe", name, list(PROBES))
    probe: Probe | HeadProbe = replace(name, PROBES[name](), suite.settings.get(name, {}))
    return probe


def with_settings(suite: Suite, assignments: Sequence[str]) -> Mapping[str, Settings]:
    """Return the suite's settings after ``owner.name=value`` assignments.

    Raises:
        UsageError: an assignment does not have that form.
    """
    settings: dict[str, dict[str, Any]] = {
        owner: dict(values) for owner, values in suite.settings.items()
    }
    for assignment in assignments:
        target, equals, value = assignment.partition("=")
        owner, dot, name = target.partition(".")
        if not (equals and dot and owner and name):
            raise UsageError(f"--set {assignment}: expected OWNER.NAME=VALUE")
        settings.setdefault(owner, {})[name] = value
    return settings

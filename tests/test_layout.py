"""The house stands as designed: who imports whom, one public name a plug-in, nothing too long."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = ("methods", "models", "datasets", "teachers", "suites", "tables", "figures", "kernels")
HARNESS = [
    file
    for file in sorted((ROOT / "benchmark").rglob("*.py"))
    if file.relative_to(ROOT).parts[1] not in KINDS
]
PLUGINS = {kind: sorted((ROOT / "benchmark" / kind).glob("*.py")) for kind in KINDS}
FILES = [*HARNESS, *(file for files in PLUGINS.values() for file in files)]
MAY_IMPORT = {  # besides the shared files of its own folder
    "models": {"benchmark.spec"},
    "methods": {
        "benchmark.spec",
        "benchmark.network",
        "benchmark.views",
        "benchmark.captured",
        "benchmark.augment",
        "benchmark.differentiable_augmentation",
        "benchmark.files",
        "benchmark.memory",
        "benchmark.ranges",
        "benchmark.rng",
        "benchmark.settings",
        "benchmark.tf32",
        "benchmark.whitening",
        "benchmark.workload",
    },
    "datasets": {"benchmark.spec"},
    "teachers": {
        "benchmark.augment",
        "benchmark.held_out",
        "benchmark.network",
        "benchmark.ranges",
        "benchmark.rng",
        "benchmark.settings",
        "benchmark.spec",
        "benchmark.teacher",
        "benchmark.workload",
    },
    "suites": {"benchmark.grid"},
    "tables": {
        "benchmark.grid",
        "benchmark.rows",
        "benchmark.spec",
        "benchmark.reporting.markdown",
        "benchmark.reporting.marks",
        "benchmark.reporting.order",
        "benchmark.reporting.published",
        "benchmark.reporting.ranks",
        "benchmark.reporting.seeds",
        "benchmark.reporting.statistics",
        "benchmark.reporting.table",
    },
    "figures": {  # a figure chooses and averages rows as tables do
        "benchmark.grid",
        "benchmark.rows",
        "benchmark.reporting.figure",
        "benchmark.reporting.order",
        "benchmark.reporting.statistics",
        "benchmark.reporting.stored_sets",
        "benchmark.reporting.style",
    },
}
BUILDS_ON = {  # plug-ins that are others, changed: a control that is `ours` standing still
    "pca.py": {"ours"},
    "cifar100_small_labels.py": {"cifar100_small"},
}


def name_of(file):
    return str(file.relative_to(ROOT))


def imports(file):
    """Yield the absolute name of every module, or name in a package, that a file imports."""
    package = ("benchmark", *file.relative_to(ROOT / "benchmark").parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            if module in ("benchmark", *(f"benchmark.{kind}" for kind in KINDS)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def own(file):
    return {name for name in imports(file) if name.split(".")[0] == "benchmark"}


@pytest.mark.parametrize("kind", MAY_IMPORT)
def test_plug_ins_import_their_own_shared_files_and_little_else(kind):
    for file in PLUGINS[kind]:
        allowed = MAY_IMPORT[kind] | {
            f"benchmark.{kind}.{name}" for name in BUILDS_ON.get(file.name, ())
        }
        for name in own(file) - allowed:
            assert name.startswith(f"benchmark.{kind}._"), f"{name_of(file)} imports {name}"


def test_the_harness_reaches_plug_ins_through_plugins_alone():
    """What it may import from their folders is how images lie on a disk."""
    for file in HARNESS:
        for name in own(file):
            _, *parts = name.split(".")
            if parts and parts[0] in KINDS:
                assert parts[0] == "datasets" and parts[1].startswith("_"), (
                    f"{name_of(file)} imports {name}"
                )


def test_nothing_imports_the_tests_or_reaches_out_of_its_package():
    for file in FILES:
        for name in imports(file):
            assert name.split(".")[0] not in ("tests", "conftest", "methods", "models", ""), (
                f"{name_of(file)} imports {name}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_plug_in_has_one_public_name(kind):
    for file in PLUGINS[kind]:
        if file.name.startswith("_"):
            continue
        exported = [
            ast.literal_eval(node.value)
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        assert [len(names) for names in exported] == [1], name_of(file)


def test_no_file_is_too_long():
    lengths = {name_of(file): len(file.read_text().splitlines()) for file in FILES}
    assert {file: length for file, length in lengths.items() if length > 400} == {}


def test_no_function_is_too_long():
    long = [
        f"{name_of(file)}: {node.name} ({length} lines)"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and (length := node.end_lineno - node.lineno + 1) > 60
    ]
    assert long == []


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "common", "misc", "base"}
    assert [name_of(file) for file in FILES if file.stem.strip("_") in drawers] == []


def test_every_module_says_what_it_is():
    undocumented = [
        name_of(file) for file in FILES if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert undocumented == []


def test_annotations_stay_objects():
    """The shape checks of the tests read them at run time."""
    lazy = [name_of(file) for file in FILES if "__future__" in set(imports(file))]
    assert lazy == []


def test_nothing_draws_from_a_global_stream_of_python():
    assert [name_of(file) for file in FILES if "random" in set(imports(file))] == []

import ast
import importlib
import importlib.util
import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from benchmark import methods, plugins, provenance, source_code
from benchmark.methods.krr_st import KrrSt
from benchmark.spec import UsageError


@pytest.mark.parametrize(
    "kind", ["methods", "models", "datasets", "teachers", "suites", "tables", "figures", "kernels"]
)
def test_every_file_is_a_plug_in_and_nothing_else_is(kind):
    folder = Path(plugins.__file__).parent / kind
    files = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    assert plugins.names(kind) == sorted(stem.replace("_", "-") for stem in files)
    for name in plugins.names(kind):
        plugins.load(kind, name)


def test_a_plug_in_is_the_one_public_object_of_its_file():
    assert plugins.load("methods", "krr-st") is KrrSt


def test_a_wrong_name_gets_help_in_one_line():
    with pytest.raises(UsageError) as caught:
        plugins.load("methods", "krrst")
    message = str(caught.value)
    assert message.startswith("unknown method 'krrst': did you mean 'krr-st'? known: ")
    assert all(name in message for name in plugins.names("methods"))
    assert len(message.splitlines()) == 1


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(UsageError, match=r"^unknown model 'qqqq': known: "):
        plugins.load("models", "qqqq")


@pytest.mark.parametrize("name", ["_ridge", "-ridge", "../conftest", ""])
def test_shared_code_and_other_files_are_out_of_reach(name):
    with pytest.raises(UsageError, match="unknown method"):
        plugins.load("methods", name)


@pytest.fixture(autouse=True)
def _installed_anew():
    for known in (plugins._own, plugins._foreign):
        known.cache_clear()
    yield
    for known in (plugins._own, plugins._foreign):
        known.cache_clear()


@pytest.fixture
def new_file(tmp_path, monkeypatch):
    """Add a file to the folder of methods."""
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])

    def add(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        plugins._own.cache_clear()
        monkeypatch.delitem(sys.modules, f"benchmark.methods.{name}", raising=False)

    return add


def test_a_new_file_is_a_new_plug_in(new_file):
    new_file("my_own", '__all__ = ["Mine"]\nMine = "the method"\n')
    assert "my-own" in plugins.names("methods")
    assert plugins.load("methods", "my-own") == "the method"


def test_an_exported_name_that_is_not_there_is_told(new_file):
    new_file("unfinished", '__all__ = ["Nope"]\n')
    expected = "^benchmark.methods.unfinished: __all__ lists 'Nope', which is not defined$"
    with pytest.raises(UsageError, match=expected):
        plugins.load("methods", "unfinished")


@pytest.mark.parametrize(("text", "number"), [("", 0), ('__all__ = ["A", "B"]\nA = B = 1\n', 2)])
def test_a_file_that_exports_none_or_two_names_is_told_so(new_file, text, number):
    new_file("unfinished", text)
    expected = f"^benchmark.methods.unfinished: expected one public name in __all__, not {number}$"
    with pytest.raises(UsageError, match=expected):
        plugins.load("methods", "unfinished")


def test_a_file_that_cannot_be_imported_is_told_with_its_line(new_file):
    new_file("faulty", "x = 1\nimport nothing_of_this_name\n")
    expected = r"faulty cannot be loaded: ModuleNotFoundError: .*faulty.py, line 2\)$"
    with pytest.raises(UsageError, match=expected):
        plugins.load("methods", "faulty")


def test_other_packages_add_plug_ins_but_replace_none(monkeypatch):
    groups = {
        "benchmark.methods": [
            EntryPoint("theirs", "json:dumps", "benchmark.methods"),
            EntryPoint("krr-st", "json:loads", "benchmark.methods"),
            EntryPoint("module", "json", "benchmark.methods"),
        ]
    }
    monkeypatch.setattr(plugins, "entry_points", lambda group: groups.get(group, []))
    assert "theirs" in plugins.names("methods")
    assert plugins.load("methods", "theirs") is json.dumps
    two = "^method krr-st: there are two, benchmark.methods.krr_st and json:loads: rename one$"
    with pytest.raises(UsageError, match=two):
        plugins.load("methods", "krr-st")
    a_module = "^method module: json is a module, expected MODULE:NAME$"
    with pytest.raises(UsageError, match=a_module):
        plugins.load("methods", "module")
    assert "theirs" not in plugins.names("models")


def test_what_is_installed_is_looked_through_once(monkeypatch):
    asked = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: asked.append(group) or [])
    for _ in range(3):
        plugins.names("methods")
    assert asked == ["benchmark.methods"]


def forget_code():
    source_code.code_of.cache_clear()
    source_code._read.cache_clear()
    source_code._content.cache_clear()


def test_code_is_as_it_was_when_it_was_loaded(new_file):
    """A long run goes on with it, whatever becomes of its files."""
    plain = '__all__ = ["Mine"]\n\nclass Mine:\n    x = 1\n'
    new_file("mine", plain)
    forget_code()
    plugins.load("methods", "mine")
    provenance.remember_code()
    file = Path(sys.modules["benchmark.methods.mine"].__file__)
    file.write_text(plain.replace("1", "2"))
    before = plugins.code_of("methods", "mine")
    forget_code()
    assert plugins.code_of("methods", "mine") != before
    file.write_text(plain)
    forget_code()
    assert plugins.code_of("methods", "mine") == before


def test_code_is_what_runs_and_not_how_it_is_written(new_file):
    plain = '__all__ = ["Mine"]\n\nclass Mine:\n    x = 1\n    def f(self): raise E("no")\n'
    commented = (
        '"""About it."""\n__all__ = ["Mine"]\n# why\nclass Mine:\n    "It."\n    x = (1)\n'
        "    def f(self):\n        raise E('never', 3)\n"
    )
    codes = {}
    for name, text in (("one", plain), ("two", commented), ("three", plain.replace("1", "2"))):
        new_file("mine", text)
        forget_code()
        codes[name] = plugins.code_of("methods", "mine")
    assert codes["one"] == codes["two"] != codes["three"]
    assert plugins.code_of("methods", "pca") != plugins.code_of("methods", "ours")


@pytest.mark.parametrize("child", ["from .parent import f", "from benchmark.methods import parent"])
def test_code_that_is_imported_counts_however_far(new_file, child):
    codes = []
    for value in (1, 2):
        new_file("grandparent", f"x = {value}\n")
        new_file("parent", "def f():\n    from .grandparent import x\n")
        new_file("child", f'__all__ = ["Child"]\n{child}\nclass Child:\n    pass\n')
        forget_code()
        codes.append(plugins.code_of("methods", "child"))
    assert codes[0] != codes[1]


def test_code_that_moves_no_number_does_not_count(new_file, monkeypatch):
    monkeypatch.setattr(source_code, "_MOVES_NO_NUMBER", {"benchmark.methods.bars"})
    codes = []
    for value in (1, 2):
        new_file("bars", f"x = {value}\n")
        new_file("child", '__all__ = ["Child"]\nfrom .bars import x\nclass Child:\n    pass\n')
        forget_code()
        codes.append(plugins.code_of("methods", "child"))
    assert codes[0] == codes[1]


@pytest.mark.parametrize("name", ["ours", "random-bytes", "datm"])
def test_how_much_a_budget_is_counts(name, monkeypatch):
    """A key holds N, not how many numbers that is: `spec` says so."""
    before, read = plugins.code_of("methods", name), source_code._read
    monkeypatch.setattr(
        source_code,
        "_read",
        lambda file, module: ("new", []) if module == "benchmark.spec" else read(file, module),
    )
    source_code.code_of.cache_clear()
    assert plugins.code_of("methods", name) != before
    source_code.code_of.cache_clear()


def test_compiled_code_counts_by_its_bytes(tmp_path):
    codes = []
    for content in (b"\0one", b"\0two"):
        (tmp_path / "fast.so").write_bytes(content)
        forget_code()
        codes.append(source_code._read(tmp_path / "fast.so", "mine.fast"))
    assert codes[0] != codes[1]


@pytest.mark.parametrize("name", sorted(source_code._MOVES_NO_NUMBER))
def test_what_moves_no_number_exists(name):
    assert importlib.util.find_spec(name) is not None


def test_code_reads_the_same_in_every_version_of_python():
    """Later ones have more fields, such as `type_params`, and dump no empty ones."""
    tree = ast.parse("def f(x=None):\n    return [x]")
    assert source_code._text(tree) == (
        "Module(body=[FunctionDef(name='f', args=arguments(args=[arg(arg='x')], "
        "defaults=[Constant()]), body=[Return(value=List(elts=[Name(id='x', ctx=Load())], "
        "ctx=Load()))])])"
    )


def test_the_code_of_a_package_of_one_file_is_that_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    lonely = "from benchmark.methods.random import Random\nclass Lonely(Random):\n    x = {}\n"
    entry = EntryPoint("lonely", "lonely_method:Lonely", "benchmark.methods")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    (tmp_path / "_other.py").write_text("raise SystemExit\n")
    codes = []
    for value in (1, 2):
        (tmp_path / "lonely_method.py").write_text(lonely.format(value))
        monkeypatch.delitem(sys.modules, "lonely_method", raising=False)
        importlib.invalidate_caches()
        forget_code()
        codes.append(plugins.code_of("methods", "lonely"))
    assert codes[0] != codes[1]
    assert plugins.packages() == {"lonely_method"}
    (tmp_path / "_other.py").write_text("x = 1\n")
    forget_code()
    assert plugins.code_of("methods", "lonely") == codes[1]

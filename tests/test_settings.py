import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from benchmark import settings
from benchmark.spec import UsageError


@dataclass(frozen=True, kw_only=True)
class Record:
    kind: ClassVar[str] = "no setting"
    steps: int = 1
    lr: float = 0.1
    name: str = "x"
    on: bool = False
    views: tuple[str, ...] = ()
    widths: tuple[int, ...] | None = None
    pair: tuple[int, float] = (1, 1.0)
    mode: Literal["all", "one"] = "all"
    level: Literal[1, 2] = 1
    note: str | None = "n"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "1_000", 1000),
        ("steps", " -7 ", -7),
        ("steps", "007", 7),
        ("lr", "1e-4", 1e-4),
        ("lr", "3", 3.0),
        ("name", "krr-st", "krr-st"),
        ("on", "true", True),
        ("on", "False", False),
        ("views", "rot90,rot180", ("rot90", "rot180")),
        ("views", "(rot90, )", ("rot90",)),
        ("views", "", ()),
        ("views", "()", ()),
        ("widths", "64,128", (64, 128)),
        ("widths", "none", None),
        ("pair", "2,0.5", (2, 0.5)),
        ("mode", "one", "one"),
        ("level", "2", 2),
        ("note", "None", None),
        ("note", "something", "something"),
    ],
)
def test_text_becomes_what_the_field_declares(name, text, value):
    record = settings.replace("method", Record(), {name: text})
    assert getattr(record, name) == value
    assert type(getattr(record, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("steps", "1.5", "int"),
        ("steps", "ten", "int"),
        ("steps", "1__0", "int"),
        ("steps", "²", "int"),
        ("steps", "", "int"),
        ("steps", "__import__('os')", "int"),
        ("lr", "fast", "float"),
        ("lr", "nan", "float"),
        ("lr", "inf", "float"),
        ("on", "1", "bool"),
        ("widths", "64,wide", r"tuple\[int, \.\.\.\] \| None"),
        ("pair", "1", r"tuple\[int, float\]"),
        ("pair", "1,2,3", r"tuple\[int, float\]"),
        ("mode", "two", r"Literal\['all', 'one'\]"),
        ("level", "3", r"Literal\[1, 2\]"),
    ],
)
def test_text_of_another_kind_is_refused_in_one_line(name, text, expected):
    with pytest.raises(UsageError) as caught:
        settings.replace("krr-st", Record(), {name: text})
    message = str(caught.value)
    assert message.startswith(f"krr-st.{name}={text}: expected ")
    assert re.search(f"expected {expected}$", message)
    assert len(message.splitlines()) == 1


def test_unknown_settings_get_help():
    with pytest.raises(UsageError, match=r"setting of ours 'step': did you mean 'steps'\?"):
        settings.replace("ours", Record(), {"step": "3"})
    with pytest.raises(UsageError, match="unknown setting of ours 'kind'"):
        settings.replace("ours", Record(), {"kind": "x"})


def test_values_that_are_no_text_are_taken_as_they_are():
    assert settings.replace("m", Record(), {"widths": (1, 2)}).widths == (1, 2)


def test_the_record_itself_stays_as_it_was():
    record = Record()
    assert settings.replace("m", record, {"steps": "2"}).steps == 2
    assert record == Record()


def test_arguments_of_a_factory():
    def factory(shape: str, *, width: float = 1.0, depths: tuple[int, ...] = (1,)) -> str:
        return f"{shape} {width} {depths}"

    given = settings.arguments("net", factory, {"width": "2", "depths": "3,4"})
    assert factory("s", **given) == "s 2.0 (3, 4)"
    with pytest.raises(UsageError, match="unknown setting of net 'shape'"):
        settings.arguments("net", factory, {"shape": "s"})
    with pytest.raises(UsageError, match=r"^net\.width=wide: expected float$"):
        settings.arguments("net", factory, {"width": "wide"})


def test_what_is_no_dataclass_has_no_settings():
    class Plain:
        pass

    with pytest.raises(UsageError, match=r"^mine: expected a dataclass"):
        settings.replace("mine", Plain(), {})


def test_neutral_settings_are_no_part_of_the_identity():
    @dataclass(frozen=True, kw_only=True)
    class Some:
        lr: float = 0.1
        every: int = field(default=3, metadata=settings.NEUTRAL)

    assert settings.neutral(Some()) == {"every"}
    assert settings.identity(Some(every=5)) == {"lr": 0.1}

"""One table as Markdown, CSV and LaTeX: marks, missing numbers, and text that means something."""

import csv
import io
import re

import pytest

from benchmark.tables._latex import escape
from benchmark.tables._statistics import Estimate
from benchmark.tables._table import MISSING, Cell, Table, estimated, number


@pytest.fixture
def table():
    return Table(
        name="a-table",
        title="A table",
        notes="Of `things`.",
        columns=["", "N", "100 % | all"],
        body=[
            [
                Cell("a|b_c"),
                number(1000, "{:,}"),
                Cell("52.50 ± 1.25", value=52.5, half_width=1.25),
            ],
            [Cell("ours"), MISSING, Cell("53.00", value=53.0, mark="best")],
            [Cell("two\nlines"), number(None, "{}"), Cell("-1.00", value=-1.0, mark="noise")],
        ],
    )


def test_markdown(table):
    assert table.markdown() == (
        "### A table\n\n"
        "Of `things`.\n\n"
        "|           |     N |   100 % \\| all |\n"
        "|:----------|------:|---------------:|\n"
        "| a\\|b_c    | 1,000 |   52.50 ± 1.25 |\n"
        "| ours      |     – |      **53.00** |\n"
        "| two lines |     – |        -1.00 ≈ |"
    )


def test_csv_is_read_back_as_numbers(table):
    header, *lines = csv.reader(io.StringIO(table.csv()))
    assert header == ["", "N", "100 % | all", "100 % | all ±", "100 % | all mark"]
    assert lines == [
        ["a|b_c", "1000", "52.5", "1.25", ""],
        ["ours", "", "53.0", "", "best"],
        ["two\nlines", "", "-1.0", "", "noise"],
    ]


def test_latex(table):
    assert table.latex().splitlines() == [
        "% packages: booktabs, graphicx",
        r"\begin{table}",
        r"\centering",
        r"\caption{A table. Of \texttt{things}.}",
        r"\label{tab:a-table}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & N & 100 \% \textbar{} all \\",
        r"\midrule",
        r"a\textbar{}b\_c & 1,000 & 52.50 $\pm$ 1.25 \\",
        r"ours & -- & \textbf{53.00} \\",
        r"two lines & -- & $-$1.00 $\approx$ \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def test_no_character_of_text_is_a_command_of_latex():
    escaped = escape("\\input{x} $a_1^2$ 50% #1 ~ {b} & 3-4 krr-st -5 <c> | [*")
    assert escape("[a]*") == "{[}a]{*}"
    bare = re.sub(r"\\[a-z]+(\{\})?|\{[\[*]\}|\\[&%$#_{}]|\$[<>-]\$", "", escaped)
    assert not set("\\{}$&#^_%~|<>") & set(bare)
    assert "$-$5" in escaped
    assert "3-4 krr-st" in escaped


def test_an_estimate_is_shown_with_its_interval_and_a_missing_one_is_a_dash():
    found = Estimate(1.25, 3, standard_error=0.5, degrees=2.0)
    assert estimated(None) == MISSING
    assert estimated(found, ["a"], sign="+", note="!", mark="noise") == Cell(
        "+1.25 ± 2.15!", value=1.25, half_width=found.half_width, keys=("a",), mark="noise"
    )
    assert estimated(Estimate(-0.5, 1)).text == "-0.50"


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "A", "a b", "a.csv", "a-"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a table's files"):
        Table(name=name, title="", columns=[""])


def test_a_table_without_lines_has_its_headings():
    empty = Table(name="empty", title="Empty", columns=["", "x"])
    assert empty.markdown().splitlines()[-2].replace(" ", "") == "||x|"
    assert empty.csv() == ",x\n"
    assert r"\midrule" in empty.latex()

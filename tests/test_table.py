"""One table as Markdown, CSV and LaTeX: marks, missing numbers, and text that means something."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from benchmark.reporting.latex import escape
from benchmark.reporting.statistics import Estimate
from benchmark.reporting.table import MISSING, Cell, Table, estimated, number


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
                Cell("52.50 ± 1.25", value=52.5, parts={"half-width": 1.25, "n": 3}),
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
    assert header == [
        "",
        "N",
        *(f"100 % | all{part}" for part in ("", " half-width", " n", " mark")),
    ]
    assert lines == [
        ["a|b_c", "1000", "52.5", "1.25", "3", ""],
        ["ours", "", "53.0", "", "", "best"],
        ["two\nlines", "", "-1.0", "", "", "noise"],
    ]


def test_latex(table):
    assert table.latex().splitlines() == [
        "% packages: array, booktabs, longtable",
        r"\begin{table}",
        r"\centering",
        r"\caption{A table. Of \texttt{things}.}\label{tab:a-table}",
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & N & 100 \% \textbar{} all \\",
        r"\midrule",
        r"a\textbar{}b\_c & 1,000 & 52.50 $\pm$ 1.25 \\",
        r"ours & -- & \textbf{53.00} \\",
        r"two lines & -- & $-$1.00 $\approx$ \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def numbered(num_lines, num_columns, text="-12.34 ± 5.67"):
    names = ["", "N", *(f"column {n}" for n in range(num_columns))]
    body = [
        [Cell(f"line {n // 2}"), Cell(str(n % 2)), *(Cell(f"{text} {n}") for _ in names[2:])]
        for n in range(num_lines)
    ]
    return Table(name="t", title="Wide", notes="Of two. Notes.", columns=names, body=body).latex()


def test_a_wide_table_is_cut_into_parts_that_repeat_the_names_of_lines():
    text = numbered(4, 9)
    assert "resizebox" not in text
    parts = re.findall(r"\\begin{tabular}.*?\\end{tabular}", text, re.DOTALL)
    shown = [part.splitlines()[2].removesuffix(r" \\").split(" & ") for part in parts]
    assert len(parts) > 2
    assert {tuple(names[:2]) for names in shown} == {("", "N")}
    assert [name for names in shown for name in names[2:]] == [f"column {n}" for n in range(9)]
    captions = re.findall(r"\\caption{(.*)}\\label{(.*)}", text)
    last = len(parts)
    assert captions[0] == (f"Wide. Of two. Notes. Part 1 of {last}.", "tab:t")
    assert captions[-1] == (f"Wide, continued. Part {last} of {last}.", f"tab:t-{last}")
    for part in parts:
        assert [line[:12] for line in part.splitlines()[4:-2]] == [
            f"line {n // 2} & {n % 2} &" for n in range(4)
        ]


def test_a_long_table_goes_on_over_pages_and_long_texts_over_lines():
    text = numbered(73, 1)
    assert text.count(r"\begin{longtable}{lrr}") == 1 and r"\begin{table}" not in text
    assert text.count("column 0") == 2  # on the first page and on others
    assert text.count("12.34") == 73
    assert r"p{110pt}}" in numbered(2, 1, text="word " * 12)


HOSTILE = "**a** `b` _c_ d_e ~~f~~ <b>g</b> [h](i) j|k\nl &lt; \\m 3 < 4 *"


def test_no_character_of_text_is_markup_of_markdown():
    """By another reader of Markdown: what it shows is the text."""
    table = Table(name="t", title=HOSTILE, columns=["", HOSTILE], body=[[Cell(HOSTILE)] * 2])
    heading, _, names, _, line = table.markdown().splitlines()
    shown = " ".join(HOSTILE.split())
    assert re.sub(r"\\(.)", r"\1", heading) == f"### {shown}"
    for text in (names, line):
        cells = re.split(r"(?<!\\)\|", text)
        assert len(cells) == 4
        assert re.sub(r"\\(.)", r"\1", cells[2].strip()) == shown
    bare = re.sub(r"\\.", "", line.replace("|", " "))
    assert not re.search(r"[`*~]|\b_|_\b|<[a-z/]|&\w+;|\]\(", bare)


def test_notes_may_have_code_and_no_other_markup():
    table = Table(name="t", title="T", notes="Of `a_b*c` and *d*.", columns=[""])
    assert "\n\nOf `a_b*c` and \\*d\\*.\n\n" in table.markdown()


def test_latex_is_ascii_whatever_the_text():
    assert escape("Résumé, Å") == "Resume, A"
    assert escape("λ漢🙂\x00") == "U+03BBU+6F22U+1F642U+0000"
    table = Table(name="t", title="Größe λ", columns=["ÿ", "≤"], body=[[Cell("…"), MISSING]])
    assert table.latex().isascii()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_pdflatex_takes_any_text(tmp_path):
    texts = [HOSTILE, "λ漢 é \x07", "\\end{tabular} $ % # & ^ ~ {", "[x] * ± – ≈ <>", "\"`'"]
    table = Table(
        name="t",
        title=HOSTILE,
        notes=f"Of `{texts[2]}`.",
        columns=["", HOSTILE],
        body=[[Cell(text), Cell(text, mark="best")] for text in texts],
    )
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{array,booktabs,longtable}\\begin{document}\n"
        f"{table.latex()}\\end{{document}}\n"
    )
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "t"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_no_character_of_text_is_a_command_of_latex():
    escaped = escape("\\input{x} $a_1^2$ 50% #1 ~ {b} & 3-4 krr-st -5 <c> | [*")
    assert escape("[a]*") == "{[}a]{*}"
    bare = re.sub(r"\\[a-z]+(\{\})?|\{[\[*]\}|\\[&%$#_{}]|\$[<>-]\$", "", escaped)
    assert not set("\\{}$&#^_%~|<>") & set(bare)
    assert "$-$5" in escaped
    assert "3-4 krr-st" in escaped


def test_an_estimate_is_shown_with_its_interval_and_a_missing_one_is_a_dash():
    found = Estimate(1.25, 3, standard_error=0.5, parts=((1.0, 2.0),))
    assert estimated(None) == MISSING
    assert estimated(
        found, ["a"], sign="+", note="!", mark="noise", parts={"p": 0.1, "gap": None}
    ) == Cell(
        "+1.25 ± 2.15!",
        value=1.25,
        parts={"half-width": found.half_width, "n": 3, "p": 0.1},
        keys=("a",),
        mark="noise",
    )
    assert estimated(Estimate(-0.5, 1)) == Cell("-0.50", value=-0.5, parts={"n": 1})


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "A", "a b", "a.csv", "a-"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a table's files"):
        Table(name=name, title="", columns=[""])


def test_a_table_without_lines_has_its_headings():
    empty = Table(name="empty", title="Empty", columns=["", "x"])
    assert empty.markdown().splitlines()[-2].replace(" ", "") == "||x|"
    assert empty.csv() == ",x\n"
    assert r"\midrule" in empty.latex()


def test_no_text_of_csv_is_a_formula():
    """A spreadsheet runs what begins like one; numbers stay numbers."""
    texts = ["=1+1", "+cmd", "-x - y", "@a", "\t=1", "-1.5", "+3e-4", "a=b", ""]
    body = [[Cell(text), Cell("1", value=1, parts={"=p": text})] for text in texts]
    table = Table(name="t", title="", columns=["=HYPERLINK()", "-1"], body=body)
    header, *lines = csv.reader(io.StringIO(table.csv()))
    shown = ["'=1+1", "'+cmd", "'-x - y", "'@a", "'\t=1", "-1.5", "+3e-4", "a=b", ""]
    assert header[:2] == ["'=HYPERLINK()", "-1"]
    assert [line[0] for line in lines] == [line[2] for line in lines] == shown


@pytest.mark.parametrize("columns", [["a"], ["a", "b", "c"]])
def test_rows_have_a_cell_for_each_column(columns):
    with pytest.raises(ValueError, match=f"^table t: 2 cells for {len(columns)} columns$"):
        Table(name="t", title="T", columns=columns, body=[[Cell("x"), Cell("y")]])

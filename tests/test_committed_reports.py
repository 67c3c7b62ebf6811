"""The reports in this repository are what its rows give."""

import re
import runpy
import shutil
from pathlib import Path

import pytest

from benchmark import rows
from benchmark.cli import main

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"
PAGES = [ROOT / "README.md", *sorted(REPORTS.glob("*/analysis.md"))]

SUITES = {file.parent.name for file in REPORTS.glob("*/rows.jsonl")} | {"quick"}


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_a_committed_report_follows_from_its_rows(suite, tmp_path, capsys):
    shutil.copytree(REPORTS / suite, tmp_path / suite)
    written = (tmp_path / suite / "report.md").read_text(encoding="utf-8")
    (tmp_path / suite / "report.md").unlink()
    store = str(tmp_path / "no store")
    code = main(["report", "--suite", suite, "--reports", str(tmp_path), "--store", store])
    assert (code, capsys.readouterr().err) == (0, "")
    assert (tmp_path / suite / "report.md").read_text(encoding="utf-8") == written


def test_the_committed_comparison_follows_from_its_rows(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["compare", "reports/precision/bf16", "reports/precision/fp32"]) == 0
    written = (REPORTS / "precision" / "comparison.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == written


def test_the_table_of_longer_students_follows_from_their_rows(capsys):
    folder = REPORTS / "cifar100-small"
    runpy.run_path(str(folder / "longer_students.py"), run_name="__main__")
    assert capsys.readouterr().out in (folder / "analysis.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_accuracies_that_pages_quote_are_in_a_report(page):
    """Of small numbers, such as differences, reports have so many that few would be missed."""
    known = set()
    for folder in linked(page):
        for report in (*folder.glob("report.md"), *folder.glob("comparison.md")):
            known |= set(re.findall(r"\d+\.\d\d(?!\d)", report.read_text(encoding="utf-8")))
        for file in set(folder.glob("*.jsonl")) - {folder / "rows.jsonl"}:
            known |= {f"{row.value:.2f}" for row in rows.read(file)}
    text = re.sub(r"Python \d+\.\d+", "", page.read_text(encoding="utf-8"))
    quoted = set(re.findall(r"\d+\.\d\d(?!\d)", text))
    assert quoted
    assert quoted <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_tables_that_pages_quote_are_lines_of_a_report(page):
    """What a page's table says of a method is said of it in a report that the page links."""
    text = page.read_text(encoding="utf-8")
    known = {}
    for folder in linked(page):
        for file in folder.glob("*.jsonl"):
            for row in rows.read(file):
                known.setdefault(row.label, set())
                if file.name != "rows.jsonl":
                    known[row.label].add(f"{row.value:.2f}")
        if (report := folder / "report.md").exists():
            for line in report.read_text(encoding="utf-8").splitlines():
                for label in known.keys() & cells_of(line):
                    known[label].update(NUMBER.findall(line))
    quoted = {
        (cells_of(line)[0], number)
        for line in text.splitlines()
        if line.startswith("|") and cells_of(line)[0] in known
        for number in NUMBER.findall(line)
    }
    assert {(label, number) for label, number in quoted if number not in known[label]} == set()


NUMBER = re.compile(r"\d+\.\d\d(?!\d)(?: ± \d+\.\d\d)?")


def linked(page):
    """The folders of a page, and of what it links."""
    links = re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8"))
    return {page.parent, *((page.parent / link).parent for link in links)}


def cells_of(line):
    return [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]

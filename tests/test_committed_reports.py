"""The reports in this repository are what its rows give."""

import shutil
from pathlib import Path

import pytest

from benchmark.cli import main

REPORTS = Path(__file__).parents[1] / "reports"


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

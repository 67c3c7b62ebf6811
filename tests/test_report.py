import random
from dataclasses import replace

from benchmark import flag_values
from benchmark.provenance import short_commit
from benchmark.reporting import report, report_files
from benchmark.reporting.table import Table


def written(tmp_path, rows):
    built = report.build(rows, title="Title", notes="Notes.")
    (file,) = report_files.write(tmp_path / "new", built, ["markdown"])
    assert file == tmp_path / "new" / "report.md"
    return file.read_text()


def headline(rows):
    return report.build(rows, title="", notes="").tables[0].markdown()


def test_a_report_says_its_conditions_and_has_every_table(new_row, tmp_path):
    rows = [
        new_row(label=label, seed=seed, N=N, student=student, downstream=downstream)
        for label in ("krr-st", "ours")
        for seed in (10, 9)
        for N in (100, 25)
        for student in ("convnet", "vit")
        for downstream in ("cifar100", "cifar10")
    ]
    rows += [new_row(label="ours: bases only", method="ours", N=N) for N in (100, 25)]
    text = written(tmp_path, rows)
    assert text.startswith(f"# Title\n\nNotes.\n\n{report.READING}\n\n- source: ")
    for line in (
        "  - python -m benchmark run --suite toy",
        "- source: cifar100, 32x32",
        "- teacher: barlow-twins, held out: 40.0 % (10 labels per class), 70.0 % (all labels)",
        "- recipe: paper",
        "- seeds: 0, 9, 10",
        "- device: a GPU",
        "- precision: bf16",
        "- protocol: 1",
        "- commit: c0ffee",
        "- torch: 2.14",
        "- timm: 1.0",
        "- settings: the published defaults",
    ):
        assert f"\n{line}\n" in text
    titles = [line[4:] for line in text.splitlines() if line.startswith("### ")]
    kinds = ["Cross-architecture", "Downstream transfer", "Storage budgets", "Ablation"]
    assert [title.partition(",")[0] for title in titles] == [
        *kinds,
        *("One step at a time", "Paired differences", "Paired differences by budget"),
        *("Accuracy per byte", "Storage", "Storage by component", "Cost"),
        *("Losses of distillation", "Published numbers", "Published numbers"),
        *("Ablation", "One step at a time"),  # at the other budget
    ]
    assert text.endswith("|\n")
    assert "rows are not in the report" not in text


def test_changed_settings_are_listed_by_their_owner(new_row, tmp_path):
    text = written(
        tmp_path,
        [
            new_row(changes={"krr-st": {"outer_steps": 20}, "vit": {"depth": 4}}),
            new_row(changes={"krr-st": {"outer_steps": 20, "ridge": 1e-5}}, seed=1),
            new_row(label="mine", method="ours", changes={"ours": {"augmentations": []}}),
        ],
    )
    assert (
        "- settings that are not the published defaults:\n"
        "  - krr-st: outer_steps = 20, ridge = 1e-05\n"
        "  - mine: augmentations = []\n"
        "  - vit: depth = 4\n"
    ) in text


def test_probes_that_did_not_converge_are_counted(new_row, tmp_path):
    found = [new_row(seed=seed) for seed in range(3)]
    assert "converged" not in written(tmp_path, found)
    found[0] = replace(found[0], converged=False)
    assert "- not converged: the probe of 1 of 3 numbers\n" in written(tmp_path, found)


def test_numbers_of_two_versions_of_the_code_are_counted(new_row, tmp_path):
    old = [new_row(seed=seed) for seed in range(3)]
    assert "versions" not in written(tmp_path, old)
    (row,) = old[2:]
    new = replace(row, provenance={**row.provenance, "commit": "b" * 40, "code": "another"})
    counts = f"1 of {'b' * 12}; 2 of {short_commit(row.provenance['commit'])}"
    told = f"pretraining and probes changed: {counts}\n"
    assert told in written(tmp_path, [*old[:2], new])


def test_a_method_whose_code_changed_between_seeds_is_told(new_row, tmp_path):
    """Even if neither commit tells."""
    found = [new_row(seed=seed) for seed in range(3)]
    for i, code in enumerate(("one", "one", "two")):
        codes = {"method_code": code, "student_code": "same", "commit": "a-dirty"}
        found[i] = replace(found[i], provenance={**found[i].provenance, **codes})
    told = (
        f"- versions: the code of the method {found[0].label} changed: 1 of a-dirty; 2 of a-dirty\n"
    )
    assert told in written(tmp_path, found)


def test_penalties_at_the_end_of_what_was_tried_are_counted(new_row, tmp_path):
    tried = {"probe_settings": {"strengths": [1.0, 0.1]}}
    found = [new_row(seed=seed, strength=0.1 ** (seed > 0), **tried) for seed in range(3)]
    found += [new_row(seed=3, strength=None, **tried)]
    told = "- penalty: the weakest one tried, for 2 of the 3 numbers whose probe tunes it\n"
    assert told in written(tmp_path, found)
    assert "penalty" not in written(tmp_path, [replace(row, strength=1.0) for row in found])


def test_layouts_are_told_as_far_as_rows_record_them(new_row, tmp_path):
    old = new_row(seed=0)
    new = new_row(seed=1, provenance={**old.provenance, "layout": "contiguous"})
    assert "layout" not in written(tmp_path, [old])
    assert "\n- layout: contiguous\n" in written(tmp_path, [new])
    assert "\n- layout: contiguous, not recorded\n" in written(tmp_path, [old, new])


def test_rows_of_two_machines_stand_side_by_side(new_row, tmp_path):
    rows = [
        new_row(seed=0, value=40.0),
        new_row(seed=1, value=44.0, device="a CPU, 2 threads", precision="fp32"),
    ]
    text = written(tmp_path, rows)
    assert "- device: a CPU, 2 threads, a GPU\n- precision: bf16, fp32\n" in text
    assert "42.00 ± 25.41" in text


def test_no_rows_are_said_to_be_none(tmp_path):
    assert written(tmp_path, []) == "# Title\n\nNotes.\n\nNo rows.\n"
    assert report.build([], title="", notes="").tables == []
    assert report.current([]) == []


def test_a_report_is_about_the_last_context(new_row):
    old = [new_row(seed=0, context="old"), new_row(seed=1, context="old")]
    new = [new_row(seed=0, context="new")]
    assert report.current(old + new) == new
    assert report.current(new + old) == old


def test_a_name_stands_for_the_last_of_its_settings(new_row):
    rows = [
        new_row(seed=0, settings={"steps": 1}),
        new_row(seed=1, settings={"steps": 1}),
        new_row(seed=0, settings={"steps": 2}),
        new_row(label="ours", settings={"steps": 1}),
        new_row(student="vit", student_settings={"depth": 1}, settings={"steps": 2}),
        new_row(student="vit", student_settings={"depth": 2}, settings={"steps": 2}),
        new_row(probe="fair", probe_settings={"tolerance": 1}, settings={"steps": 2}),
        new_row(probe="fair", probe_settings={"tolerance": 2}, settings={"steps": 2}),
    ]
    assert report.current(rows) == [rows[i] for i in (2, 3, 5, 7)]


def test_a_seed_counts_once(new_row):
    """The same seed on two machines is no second experiment: it would shrink the interval."""
    one, other = new_row(seed=0, value=40.0), new_row(seed=0, value=41.0, precision="fp32")
    second = new_row(seed=1, value=42.0)
    assert report.current([one, second, other]) == [second, other]
    assert "41.50 ± 6.35" in headline([one, second, other])


def test_rows_that_are_left_out_are_counted(new_row, tmp_path):
    text = written(tmp_path, [new_row(value=10.0, context="old"), new_row(value=20.0)])
    assert "\n\n1 of 2 rows are not in the report: 1 differing from the last row in " in text
    assert "20.00" in text
    assert "10.00" not in text


def test_it_is_said_why_rows_are_left_out(new_row):
    rows = [
        *(
            new_row(seed=seed, context="old", teacher_held_out={"all_labels": 9.0})
            for seed in (0, 1)
        ),
        new_row(context="older", size=64, recipe="own"),
        new_row(settings={"outer_steps": 9}, seed=0),
        new_row(settings={"outer_steps": 9}, seed=5),
        *(new_row(seed=seed) for seed in (0, 1)),
    ]
    built = report.build(rows, title="", notes="")
    assert built.left_out == (
        "5 of 7 rows are not in the report: "
        "1 differing from the last row in data and recipe, "
        "2 differing from the last row in teacher, "
        "1 replaced by later rows with the same seed or other settings, "
        "1 with settings that later rows do not share"
    )
    assert f"\n\n{built.left_out}.\n\n" in report_files.markdown(built)
    assert report.build(rows[-2:], title="", notes="").left_out == ""


def test_older_rows_have_settings_that_came_later_at_their_defaults(new_row):
    older = new_row(N=100)
    newer = {"outer_steps": 100, "augmented_copies": None}
    assert report.build([older, new_row(N=25, settings=newer)], title="", notes="").left_out == ""
    changed = {"N": 25, "settings": newer, "changes": {"krr-st": {"augmented_copies": None}}}
    for rows in ([older, new_row(**changed)], [new_row(**changed), older]):
        built = report.build(rows, title="", notes="")
        assert built.left_out == (
            "1 of 2 rows are not in the report: 1 with settings that later rows do not share"
        )


def test_older_rows_have_settings_of_probes_that_came_later_at_their_defaults(new_row):
    older = new_row(N=100)
    newer = {"N": 25, "probe_settings": {"steps": 5000, "came_later": 1}}
    assert report.build([older, new_row(**newer)], title="", notes="").left_out == ""
    changed = new_row(**newer, changes={"paper": {"came_later": 1}})
    left_out = report.build([older, changed], title="", notes="").left_out
    assert left_out.startswith("1 of 2 rows")


def test_a_seed_of_two_devices_counts_once_and_costs_twice(new_row):
    rows = [
        new_row(device="a CPU", value=40.0, distill_seconds=90.0),
        new_row(device="a GPU", value=41.0, distill_seconds=9.0),
    ]
    built = report.build(rows, title="", notes="")
    assert (built.rows, built.left_out) == (rows[1:], "")
    assert built.tables[0].body[0][1].value == 41.0
    (cost,) = (table for table in built.tables if table.name == "cost")
    assert [[cell.text for cell in line[2:4]] for line in cost.body] == [
        ["a CPU", "90.0"],
        ["a GPU", "9.0"],
    ]
    assert built.facts["device"] == "a CPU, a GPU"


def test_the_order_of_rows_does_not_matter(new_row, tmp_path):
    rows = [
        new_row(label=label, N=N, student=student, seed=seed, value=40 + seed + 0.1 * N)
        for label in ("random", "dsa", "idm", "datm", "krr-st", "ours")
        for student in ("convnet", "mine")
        for N in (25, 100)
        for seed in range(3)
    ]
    shuffled = random.Random(0).sample(rows, len(rows))
    one, other = (report.build(each, title="", notes="") for each in (rows, shuffled))
    for form in ("markdown", "csv", "latex"):
        assert report_files.FORMATS[form](one) == report_files.FORMATS[form](other)


def test_tables_of_one_name_are_files_of_their_own(new_row):
    rows = [new_row(probe=probe) for probe in ("fair", "Fair", "fair!")]
    names = [table.name for table in report.tables(rows)]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("cross")] == [
        f"cross-architecture-fair-all{part}" for part in ("", "-2", "-3")
    ]


def test_what_rows_say_is_no_markup(new_row, tmp_path):
    changes = {"*mine*": {"a": "<b>"}}
    text = written(tmp_path, [new_row(label="*mine*", changes=changes, device="`a`\n# b")])
    assert "\n- device: \\`a\\` # b\n" in text
    assert '\n  - \\*mine\\*: a = "\\<b>"\n' in text


def test_rows_of_several_suites_have_the_title_of_none(new_row, tmp_path):
    text = written(tmp_path, [new_row(), new_row(suite="other", seed=1)])
    assert text.startswith("# Rows of several suites: other, toy\n")
    assert "Notes." not in text


def test_the_headline_is_the_first_table(new_row):
    rows = [new_row(), replace(new_row(seed=1), downstream="cifar10")]
    assert headline(rows) == report.tables(rows)[0].markdown()
    assert headline(rows).startswith("### Cross-architecture")


def test_tables_of_other_packages_come_last(new_row, plug):
    plug("tables", "a-table", lambda rows: [Table(name="theirs", title="Theirs", columns=[""])])
    assert [table.title for table in report.tables([new_row()])][-1] == "Theirs"


def test_what_the_command_line_offers_is_what_a_report_can_be(new_row, tmp_path):
    assert tuple(report_files.FORMATS) == flag_values.FORMATS
    built = report.build([new_row()], title="", notes="")
    files = report_files.write(tmp_path, built, ["csv", "latex"])
    assert {file.relative_to(tmp_path).as_posix() for file in files} == {
        f"tables/{table.name}.{ending}" for table in built.tables for ending in ("csv", "tex")
    }
    for table in built.tables:
        assert (tmp_path / "tables" / f"{table.name}.csv").read_text() == table.csv()
        assert (tmp_path / "tables" / f"{table.name}.tex").read_text() == table.latex()


def test_code_that_was_not_committed_is_not_passed_over(new_row, tmp_path):
    provenance = {**new_row().provenance, "commit": f"{'c0ffee' * 6}-dirty"}
    text = written(tmp_path, [new_row(), new_row(provenance=provenance, seed=1)])
    assert "\n- commit: c0ffee, c0ffeec0ffee-dirty\n" in text


def test_what_a_suite_says_of_itself_is_left_out_if_flags_change_it(new_row, tmp_path):
    def with_flags(flags):
        return new_row(provenance={**new_row().provenance, "flags": flags})

    for flags in ("", "--methods krr-st --students convnet --controls none"):
        text = written(tmp_path, [with_flags(flags)])
        assert text.startswith("# Title\n\nNotes.\n")
        assert f"\n- made by:\n  - python -m benchmark run --suite toy {flags}".rstrip() in text
    for flags in ("--methods krr-st --set krr-st.ridge=1", "--student-steps 3"):
        text = written(tmp_path, [with_flags(flags)])
        assert text.startswith("# toy, changed by flags: Title\n")
        assert "Notes." not in text

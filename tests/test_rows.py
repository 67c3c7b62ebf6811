import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from benchmark import files, rows
from benchmark.spec import UsageError
from benchmark.store import Store, key_of


def test_what_is_read_is_what_was_written(new_row, tmp_path):
    written = [
        new_row(),
        new_row(N=None, strength=1e-3, labels_per_class=10, draws=[45.0, 55.0], changes={"a": {}}),
    ]
    file = tmp_path / "new" / "rows.jsonl"
    rows.write(file, written)
    assert rows.read(file) == written
    lines = file.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(row) for row in written]
    rows.write(file, [])
    assert rows.read(file) == []


def test_whole_numbers_are_numbers_too(new_row, tmp_path):
    file = tmp_path / "rows.jsonl"
    whole = {"value": 50, "draws": [50], "losses": {"loss": [1, 0]}, "distill_peak_mib": 0}
    file.write_text(broken(new_row(), **whole) + "\n")
    (row,) = rows.read(file)
    assert row == new_row(losses={"loss": [1.0, 0.0]}, distill_peak_mib=0.0, key=row.key)
    assert isinstance(row.value, float) and isinstance(row.draws[0], float)


def broken(row, **changes):
    return json.dumps({**asdict(row), **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: "?", "not a row of this benchmark: move the file away and repeat the runs"),
        (lambda row: "null", "not a row of this benchmark"),
        (lambda row: "{}", "not a row of this benchmark"),
        (lambda row: "[" * 100_000, "not a row of this benchmark"),
        (lambda row: broken(row)[:-1], "not a row of this benchmark"),
        (lambda row: broken(row, protocol=2), "protocol 2, expected 1; move the file away"),
        (lambda row: broken(row, more=1), "missing or unknown fields: more$"),
        (lambda row: broken(row, value="52.4"), 'value is "52.4", expected a number$'),
        (lambda row: broken(row, value=None), "value is null, expected a number$"),
        (lambda row: broken(row, value=True), "value is true, expected a number$"),
        (lambda row: broken(row, value=140), "value is 140, expected per cent from 0 to 100$"),
        (lambda row: broken(row, value=float("nan")), "value is nan, expected a finite number"),
        (lambda row: broken(row, strength=10**400), "strength is .*, expected a finite number"),
        (
            lambda row: broken(row, labels_per_class=10**400),
            "labels_per_class is .*, expected a fi",
        ),
        (
            lambda row: broken(row, student_steps=10**400),
            "student_steps is .*, expected a finite n",
        ),
        (lambda row: broken(row).replace("50.0", "1e999"), "value is inf, expected a finite numb"),
        (
            lambda row: broken(row, losses={"loss": [1.0, -float("inf")]}),
            r"losses.loss\[1\] is -inf, expected a finite number",
        ),
        (
            lambda row: broken(row, settings={"a": {"b": float("nan")}}),
            "settings.a.b is nan, expected a finite number",
        ),
        (lambda row: broken(row, label="\ud800"), "not a row of this benchmark: "),
        (lambda row: broken(row, N=4.5), "N is 4.5, expected a whole number or null$"),
        (lambda row: broken(row, N=0), "N is 0, expected a whole number from 1, or null$"),
        (lambda row: broken(row, seed=True), "seed is true, expected a whole number$"),
        (lambda row: broken(row, num_bytes=-1), r"num_bytes is -1, expected from 0 to 1e\+99$"),
        (lambda row: broken(row, settings=[]), r"settings is \[\], expected an object$"),
        (
            lambda row: broken(row, draws=["a"]),
            r'draws is \["a"\], expected a list of one or more numbers from 0 to 100$',
        ),
        (
            lambda row: broken(row, draws=[]),
            r"draws is \[\], expected a list of one or more numbers",
        ),
        (
            lambda row: broken(row, draws=[50.0, 51.0]),
            r"value is 50\.0, expected the mean of draws, 50\.5$",
        ),
        (
            lambda row: broken(row, losses={"loss": [1.0]}),
            r'losses is {"loss": \[1.0\]}, expected two numbers for each name, ',
        ),
        (lambda row: broken(row, losses={"loss": []}), "losses is .*, expected two numbers "),
        (lambda row: broken(row, storage={"pixels": 3}), "storage is .*, expected two whole "),
        (lambda row: broken(row, changes={"a": 3}), "changes is .*, expected an object of sett"),
        (lambda row: broken(row, teacher_held_out={"a": "b"}), "teacher_held_out is .*, expected "),
        (
            lambda row: broken(row, provenance={**row.provenance, "torch": 2}),
            "provenance is .*, expected text for each name$",
        ),
        (
            lambda row: broken(row, provenance={"torch": "2"}),
            "provenance lacks commit, ",
        ),
    ],
)
def test_a_line_that_is_no_row_is_named(new_row, tmp_path, change, message):
    file = tmp_path / "rows.jsonl"
    rows.write(file, [new_row()])
    file.write_text(file.read_text() + change(new_row()) + "\n")
    with pytest.raises(UsageError, match=f"^{file}, line 2: {message}") as caught:
        rows.read(file)
    assert "\n" not in str(caught.value)


def test_what_could_not_be_read_again_is_not_written(new_row, tmp_path):
    rows.write(tmp_path / "rows.jsonl", [new_row()])
    endless = new_row(settings={"rate": math.inf})
    for write in (rows.write, rows.append, rows.update):
        with pytest.raises(ValueError, match=r"settings\.rate is inf, expected a finite number"):
            write(tmp_path / "rows.jsonl", [endless])
    assert rows.read(tmp_path / "rows.jsonl") == [new_row()]


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "rows.jsonl"
    if content:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"^{file}: cannot be read"):
        rows.read(file)


def test_new_rows_replace_those_of_the_same_place_and_device_and_come_last(new_row):
    one, two, three = (new_row(seed=seed) for seed in range(3))
    again = replace(one, value=1.0, draws=[1.0])
    labelled = replace(one, label="mine")
    assert rows.merge([one, two], [three]) == [one, two, three]
    assert rows.merge([one, two], [again, three]) == [two, again, three]
    assert rows.merge([one], [labelled]) == [one, labelled]
    elsewhere = replace(one, device="a CPU")
    assert rows.merge([one], [elsewhere]) == [one, elsewhere]
    assert rows.merge([one, one], []) == [one]
    assert rows.merge([], [two, one]) == [two, one]


def test_a_key_depends_on_content_and_not_on_order_or_container():
    key = key_of({"a": 1, "b": {"c": (1, 2), "d": None}})
    assert key == key_of({"b": {"d": None, "c": [1, 2]}, "a": 1})
    others = [
        {"a": 2, "b": {"c": (1, 2), "d": None}},
        {"a": "1", "b": {"c": (1, 2), "d": None}},
        {"a": 1, "b": {"c": (2, 1), "d": None}},
        {"a": 1, "b": {"c": (1, 2)}},
        {"a": 1, "b": {"c": (1, 2), "d": False}},
    ]
    assert len({key, *map(key_of, others)}) == 6


def test_what_has_no_plain_form_cannot_be_part_of_a_key(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        key_of({"file": tmp_path})


def test_a_stage_has_a_folder_that_its_lock_makes(tmp_path):
    store = Store(tmp_path)
    folder = store.folder("distilled", "0123")
    assert folder == tmp_path / "distilled" / "0123"
    assert not folder.exists()
    with files.lock(folder) as lock:
        assert lock.is_locked
        assert folder.is_dir()


def test_blank_lines_are_no_rows(new_row, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows.write(file, [new_row()])
    file.write_text(f"\n{file.read_text()}\n  \n")
    assert rows.read(file) == [new_row()]


def test_an_update_keeps_what_others_wrote_meanwhile(new_row, tmp_path):
    file = tmp_path / "new folder" / "rows.jsonl"
    one, two = (new_row(seed=seed) for seed in range(2))
    assert rows.update(file, [one]) == [one]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: rows.update(file, [new_row(seed=seed)]), range(2, 34)))
    assert rows.update(file, [two, one])[-2:] == [two, one]
    assert sorted(row.seed for row in rows.read(file)) == list(range(34))


def test_what_is_appended_is_read_once_and_the_last_counts(new_row, tmp_path):
    file = tmp_path / "new folder" / "rows.jsonl"
    one, two = (new_row(seed=seed) for seed in range(2))
    rows.append(file, [one, two])
    again = replace(one, value=1.0, draws=[1.0])
    rows.append(file, [again])
    assert len(file.read_text().splitlines()) == 3
    assert rows.read(file) == [two, again]
    file.write_text(file.read_text().rstrip("\n"))  # as editors leave it
    rows.append(file, [one])
    assert rows.read(file) == [two, one]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: rows.append(file, [new_row(seed=seed)]), range(2, 34)))
    assert sorted(row.seed for row in rows.read(file)) == list(range(34))


def test_the_same_images_by_two_names_are_two_rows(new_row):
    one, other = new_row(), new_row(downstream="a copy")
    other = replace(other, key=one.key)
    assert rows.merge([one], [other]) == [one, other]

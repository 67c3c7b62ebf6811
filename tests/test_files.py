import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from benchmark import files
from benchmark.files import atomic, content_hash, expect_room, expect_writable


def test_a_file_appears_whole_with_its_folders(tmp_path):
    file = tmp_path / "new" / "folder" / "rows.json"
    with atomic(file) as temporary:
        temporary.write_text("content")
        assert temporary.suffix == ".json"
        assert not file.exists()
    assert file.read_text() == "content"
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(file) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("named", [True, False])
def test_what_the_system_refuses_names_the_file(tmp_path, named):
    """Writing to a full disk names no file, opening one in a read-only folder a temporary one."""
    file = tmp_path / "rows.json"
    with pytest.raises(OSError, match="No space") as caught, atomic(file) as temporary:
        raise OSError(errno.ENOSPC, "No space", *([str(temporary)] * named))
    assert caught.value.filename == str(file)


def test_permissions_are_those_of_any_new_file(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic(tmp_path / "shared.json") as temporary:
            temporary.touch()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "shared.json").stat().st_mode) == 0o644


def test_the_hash_is_that_of_the_content(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 300_000)
    assert content_hash(file) == hashlib.sha256(b"x" * 300_000).hexdigest()


def test_a_place_that_cannot_be_written_is_refused_and_nothing_made(tmp_path, monkeypatch):
    expect_writable(tmp_path / "new" / "folder" / "rows.jsonl")
    (tmp_path / "taken").touch()
    for place, reason in (
        (tmp_path, "a folder, expected the name of a file"),
        (tmp_path / "taken" / "rows.jsonl", f"cannot be written, as {tmp_path / 'taken'}"),
        (Path(os.devnull), "not a regular file"),
    ):
        with pytest.raises(OSError, match=reason):
            expect_writable(place)
    refuse = mock.Mock(side_effect=PermissionError)  # root may write anywhere
    monkeypatch.setattr(files, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="cannot be written"):
        expect_writable(tmp_path / "rows.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_a_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 2**30))
    expect_room(tmp_path / "new", 3 * 2**30, what="images")
    with pytest.raises(OSError, match="images: needs 4 GiB, but only 3 are free"):
        expect_room(tmp_path / "new", 4 * 2**30, what="images")

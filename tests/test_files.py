import hashlib
import os
import stat

import pytest

from benchmark.files import atomic, content_hash


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

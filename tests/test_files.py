import pytest

from edgeseg.files import write_atomically


def test_the_file_and_its_folder_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"

    write_atomically(path, lambda temporary: temporary.write_text("whole"))

    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_reader_meets_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(temporary):
        temporary.write_text("new")
        seen.append((path.read_text(), temporary.parent == tmp_path, temporary.suffix))

    write_atomically(path, write)

    assert seen == [("old", True, ".txt")]
    assert path.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, write)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_the_file(tmp_path):
    write_atomically(tmp_path / "a.bin", lambda temporary: temporary.write_bytes(b"\x00"))

    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644

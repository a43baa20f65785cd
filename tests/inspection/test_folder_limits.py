import os

import pytest

from edgeseg.errors import EdgesegError
from edgeseg.inspection import limits
from edgeseg.inspection.limits import check_text_size, files_below


def test_files_are_those_of_all_folders_below(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).touch()

    found = {str(path.relative_to(tmp_path)) for path in files_below(tmp_path)}

    assert found == {"x", os.path.join("a", "y"), os.path.join("a", "b", "z")}  # noqa: PTH118


@pytest.mark.parametrize("target", ["/dev/zero", "inside", ".."])
def test_links_are_refused_wherever_they_lead(tmp_path, target):
    (tmp_path / "inside").touch()
    (tmp_path / "link").symlink_to(target)

    with pytest.raises(EdgesegError, match="link is a link, .* put the file it means in its place"):
        list(files_below(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(EdgesegError, match="pipe is no ordinary file"):
        list(files_below(tmp_path))
    with pytest.raises(EdgesegError, match="pipe is no file"):
        check_text_size(tmp_path / "pipe")


def test_very_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    for name in "ab":
        (tmp_path / name).touch()
    assert len(list(files_below(tmp_path))) == 2

    (tmp_path / "c").touch()
    with pytest.raises(EdgesegError, match="more than 2 files; give the folder of one model"):
        list(files_below(tmp_path))


def test_a_text_that_is_too_large_is_refused_by_its_size_alone(tmp_path):
    path = tmp_path / "export.json"
    with path.open("wb") as file:
        file.truncate(16 * 2**20)
        check_text_size(path)
        file.truncate(16 * 2**20 + 1)

    with pytest.raises(EdgesegError, match="has 17 MB, and a file of that name has less than 17"):
        check_text_size(path)

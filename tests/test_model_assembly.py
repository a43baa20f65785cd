import os
import signal
import subprocess
import sys

import pytest

from edgeseg.downloads import note_of
from edgeseg.errors import WeightsError
from edgeseg.model_assembly import assembling, unfinished_downloads


def leave_download(folder, size_bytes=5):
    (folder / "original.pth").write_bytes(b"x" * size_bytes)
    note_of(folder / "original.pth").write_text("{}")


def test_a_model_appears_whole_and_nothing_else_stays(tmp_path):
    with assembling(tmp_path / "yours", "mine") as assembly:
        (assembly.folder / "weights").write_text("w")
        leave_download(assembly.downloads)
        assert not (tmp_path / "yours" / "mine").exists()

    assert [path.name for path in (tmp_path / "yours").rglob("*")] == ["mine", "weights"]


def fail_with(yours, fill):
    """Assemble a model, fill its folders and fail."""
    with assembling(yours, "mine") as assembly:
        (assembly.folder / "weights").write_text("w")
        fill(assembly)
        raise KeyError


def test_a_failure_leaves_nothing(tmp_path):
    def fill(assembly):
        (assembly.downloads / "original.pth").write_text("nobody knows of what")

    with pytest.raises(KeyError):
        fail_with(tmp_path, fill)

    assert list(tmp_path.iterdir()) == []


def test_a_download_that_can_be_continued_survives_a_failure(tmp_path):
    with pytest.raises(KeyError):
        fail_with(tmp_path, lambda assembly: leave_download(assembly.downloads, size_bytes=7))

    assert unfinished_downloads(tmp_path) == {"mine": 7}
    with assembling(tmp_path, "mine") as assembly:
        assert list(assembly.folder.iterdir()) == []
        assert (assembly.downloads / "original.pth").read_bytes() == b"x" * 7
    assert unfinished_downloads(tmp_path) == {}


def test_two_at_a_time_are_refused_and_the_first_goes_on(tmp_path):
    with assembling(tmp_path, "mine") as first:
        (first.folder / "weights").write_text("w")
        with (
            pytest.raises(WeightsError, match="another process is fetching mine already; wait"),
            assembling(tmp_path, "mine"),
        ):
            pass
        with assembling(tmp_path, "other"):
            pass

    assert (tmp_path / "mine" / "weights").read_text() == "w"


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeseg.model_assembly import assembling
with assembling(Path(sys.argv[1]), "mine") as assembly:
    (assembly.folder / "half").write_text("w")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / ".fetching-mine" / "model" / "half").is_file()

    with assembling(tmp_path, "mine") as assembly:
        (assembly.folder / "weights").write_text("w")

    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "weights"]


def test_a_folder_that_appeared_meanwhile_is_left_alone(tmp_path):
    def finish():
        with assembling(tmp_path, "mine") as assembly:
            (assembly.folder / "weights").write_text("w")
            (tmp_path / "mine").mkdir()
            (tmp_path / "mine" / "theirs").write_text("t")

    with pytest.raises(OSError, match="mine"):
        finish()

    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "theirs"]

import os
import signal
import subprocess
import sys
import time

import pytest
from scripted_server import CONTENT, serving

from edgeseg.downloads import DownloadLimits, can_continue, download
from edgeseg.errors import WeightsError

LIMITS = DownloadLimits(max_bytes=10_000_000, timeout_s=5.0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


def nothing(here, total):
    """No progress."""


def test_a_file_arrives_as_it_is_and_progress_counts_up_to_its_size(server, tmp_path):
    seen = []

    download(server.address, tmp_path / "a", LIMITS, lambda *numbers: seen.append(numbers))

    assert (tmp_path / "a").read_bytes() == CONTENT
    # chunks of 1 MiB = 1,048,576 bytes
    assert seen == [(1_048_576, 3_072_000), (2_097_152, 3_072_000), (3_072_000, 3_072_000)]


def test_a_truncated_transfer_is_noticed_and_continued_where_it_stopped(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError, match=r"1000000 of 3072000 bytes; 1\.0 MB are kept; run the"):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after = None

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]


def test_another_file_at_the_same_link_is_not_glued_to_the_first(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.content, server.headers, server.stop_after = b"other" * 400_000, {"ETag": '"2"'}, None

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == b"other" * 400_000


def test_another_link_starts_anew(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after = None

    download(server.address + "?other", tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, None]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["none", "weak"])
def test_what_the_server_gives_no_firm_mark_for_starts_anew(server, tmp_path, headers):
    server.headers, server.stop_after = headers, 1_000_000
    with pytest.raises(WeightsError, match="check the link and the connection, and try again"):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    assert not can_continue(tmp_path / "a")
    server.stop_after = None

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_date_marks_a_file_too(server, tmp_path):
    date = "Wed, 05 Apr 2023 16:00:00 GMT"
    server.headers, server.stop_after = {"ETag": 'W/"w"', "Last-Modified": date}, 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after = None

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after, server.knows_ranges = None, False

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_not_glued_to_the_first(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after, server.goes_back = None, 512

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-", None]


def test_a_whole_file_is_not_sent_again(server, tmp_path):
    download(server.address, tmp_path / "a", LIMITS, nothing)
    seen = []

    download(server.address, tmp_path / "a", LIMITS, lambda *numbers: seen.append(numbers))

    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3072000-"]
    assert seen == []


def test_more_than_the_whole_file_is_started_anew(server, tmp_path):
    download(server.address, tmp_path / "a", LIMITS, nothing)
    with (tmp_path / "a").open("ab") as file:
        file.write(b"!")

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT


KILLED = """
import sys
from pathlib import Path
from edgeseg.downloads import DownloadLimits, download
download(sys.argv[1], Path(sys.argv[2]), DownloadLimits(10_000_000), lambda *_: None)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_download_is_continued(server, tmp_path):
    server.stop_after, server.hang = 2_500_000, True
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.address, tmp_path / "a"])
    deadline = time.monotonic() + 30
    while not can_continue(tmp_path / "a") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = (tmp_path / "a").stat().st_size
    server.stop_after, server.hang = None, False

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert 0 < left < 3_072_000
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={left}-"]

import pytest
from scripted_server import CONTENT, serving

from edgeseg import downloads
from edgeseg.downloads import DownloadLimits, download, note_of
from edgeseg.errors import WeightsError

LIMITS = DownloadLimits(max_bytes=10_000_000, timeout_s=5.0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


def nothing(here, total):
    """No progress."""


def test_a_server_that_falls_silent_is_given_up(server, tmp_path):
    server.stop_after, server.hang = 1_000, True
    limits = DownloadLimits(max_bytes=10_000_000, timeout_s=0.2)

    with pytest.raises(WeightsError, match="cannot download http://.*timed out"):
        download(server.address, tmp_path / "a", limits, nothing)


@pytest.mark.parametrize("says_length", [True, False], ids=["announced", "unannounced"])
def test_a_file_larger_than_allowed_leaves_nothing(server, tmp_path, says_length):
    server.says_length = says_length
    limits = DownloadLimits(max_bytes=3_071_999)

    with pytest.raises(WeightsError, match=r"is larger than allowed: .* raise --max-size-gb"):
        download(server.address, tmp_path / "a", limits, nothing)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("says_length", [True, False], ids=["announced", "unannounced"])
def test_a_file_exactly_as_large_as_allowed_is_taken(server, tmp_path, says_length):
    server.says_length = says_length

    download(server.address, tmp_path / "a", DownloadLimits(max_bytes=3_072_000), nothing)

    assert (tmp_path / "a").stat().st_size == 3_072_000


def test_a_full_disk_is_noticed_before_the_download(server, tmp_path, monkeypatch):
    # twice 3.072 MB are needed and 6.1 are free
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=6_100_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    limits = DownloadLimits(max_bytes=10_000_000, copies=2)

    with pytest.raises(WeightsError, match=r"needs 6\.1 MB in .* only 6\.1 MB are free; make room"):
        download(server.address, tmp_path / "a", limits, nothing)

    download(server.address, tmp_path / "a", LIMITS, nothing)  # one copy fits


def test_room_for_what_is_here_already_is_not_asked_for_again(server, tmp_path, monkeypatch):
    server.stop_after = 1_000_000
    with pytest.raises(WeightsError):
        download(server.address, tmp_path / "a", LIMITS, nothing)
    server.stop_after = None
    # 3,072,000 bytes less the million that is here
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=2_072_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_web_page_is_not_taken_for_weights(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}

    with pytest.raises(WeightsError, match="is a web page, not a file; give the link that"):
        download(server.address, tmp_path / "a", LIMITS, nothing)

    assert not (tmp_path / "a").exists()


def test_a_compressed_answer_is_refused(server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}

    with pytest.raises(WeightsError, match="comes compressed, which was not asked for"):
        download(server.address, tmp_path / "a", LIMITS, nothing)


@pytest.mark.parametrize(
    ("points_to", "reason"),
    [
        ("file:///etc/passwd", "file:///etc/passwd' is not allowed"),
        ("ftp://127.0.0.1/a", "it points on to ftp, which is not allowed"),
        ("data:,a", "data:,a' is not allowed"),
        ("http://[/", "Invalid IPv6 URL"),
    ],
)
def test_a_redirect_to_anything_but_the_web_is_refused(server, tmp_path, points_to, reason):
    server.points_to = points_to

    with pytest.raises(WeightsError, match=rf"download http://127.*weights\.pth: .*{reason}"):
        download(server.address, tmp_path / "a", LIMITS, nothing)

    assert list(tmp_path.iterdir()) == []


def test_a_redirect_within_the_web_is_followed(server, tmp_path):
    server.points_to = "/elsewhere"

    download(server.address, tmp_path / "a", LIMITS, nothing)

    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_refusal_names_the_answer_and_no_token(server, tmp_path):
    server.status = 403

    with pytest.raises(WeightsError, match=r"weights\.pth: the server answered 403 ") as caught:
        download(f"{server.address}?token=hunter2", tmp_path / "a", LIMITS, nothing)

    assert "hunter2" not in str(caught.value)


def test_the_note_holds_no_token(server, tmp_path):
    download(f"{server.address}?token=hunter2", tmp_path / "a", LIMITS, nothing)

    assert "hunter2" not in note_of(tmp_path / "a").read_text()


def test_nobody_listening_is_one_clear_error(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot download http://127.0.0.1:1/a: .*refused"):
        download("http://127.0.0.1:1/a", tmp_path / "a", LIMITS, nothing)

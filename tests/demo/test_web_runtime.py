import hashlib
import http.server
import re
import tarfile
import threading

import pytest
from demo_folders import CONTENTS, fake_runtime

from edgeseg.demo import web_runtime
from edgeseg.demo.web_runtime import find_runtime, install_runtime, runtime_folder
from edgeseg.errors import MissingExtraError, WeightsError


def no_progress(here, total):
    pass


@pytest.fixture
def archive(monkeypatch, tmp_path):
    return fake_runtime(monkeypatch, tmp_path)


@pytest.fixture
def registry(archive, monkeypatch):
    """A server on this machine that has the archive."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setattr(web_runtime, "LINK", f"http://127.0.0.1:{server.server_port}/a.tgz")
        yield server
        server.shutdown()


def test_the_pinned_hashes_are_whole():
    digest = web_runtime.INTEGRITY.removeprefix("sha512-")

    assert re.fullmatch(r"[A-Za-z0-9+/]{86}==", digest)
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in web_runtime.FILES.values())
    assert web_runtime.VERSION in web_runtime.LINK


def test_without_the_runtime_the_command_is_named(archive):
    with pytest.raises(MissingExtraError, match=r"run: edgeseg demo --install \(downloads 33 MB"):
        find_runtime()


def test_the_files_are_taken_out_of_an_archive_and_nothing_else(archive):
    folder = install_runtime(no_progress, archive)

    assert folder == find_runtime() == runtime_folder()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_archive_is_downloaded_and_not_kept(registry):
    told = []

    folder = install_runtime(lambda here, total: told.append((here, total)))

    assert {path.name for path in folder.iterdir()} == CONTENTS.keys()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert told[-1][0] == told[-1][1]


def test_what_is_here_is_not_fetched_again(archive):
    folder = install_runtime(no_progress, archive)
    archive.unlink()

    assert install_runtime(no_progress) == folder  # the registry's real address is not asked


def test_another_archive_is_refused_and_leaves_nothing(archive):
    archive.write_bytes(archive.read_bytes() + b"\0")

    with pytest.raises(WeightsError, match="is not the archive of onnxruntime-web 1"):
        install_runtime(no_progress, archive)

    assert list(runtime_folder().parent.iterdir()) == []


def test_a_changed_download_is_refused_and_leaves_nothing(registry, archive):
    archive.write_bytes(b"something else")

    with pytest.raises(WeightsError, match="changes downloads"):
        install_runtime(no_progress)

    assert list(runtime_folder().parent.iterdir()) == []


def test_a_file_that_is_not_the_known_one_is_refused(archive, monkeypatch):
    name = "ort.wasm.min.mjs"
    monkeypatch.setitem(web_runtime.FILES, name, hashlib.sha256(b"other").hexdigest())

    with pytest.raises(WeightsError, match=rf"{name} in .* is not the file that is known"):
        install_runtime(no_progress, archive)

    assert not runtime_folder().exists()


def test_a_runtime_that_was_changed_afterwards_is_not_used(archive):
    folder = install_runtime(no_progress, archive)
    (folder / "ort.wasm.min.mjs").write_text("fetch('https://example.org')")

    with pytest.raises(WeightsError, match=r"ort\.wasm\.min\.mjs is missing or is not the file of"):
        find_runtime()


def test_an_archive_that_cannot_be_read_says_how_to_get_it(archive, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read .*none\.tgz: No such file"):
        install_runtime(no_progress, tmp_path / "none.tgz")


def test_the_fake_archive_has_more_than_is_taken(archive):
    with tarfile.open(archive) as packed:
        assert "package/dist/ort.all.mjs" in packed.getnames()

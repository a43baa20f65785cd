import http.client
import socket
import threading

import pytest

from edgeseg.demo.byte_range import ByteRange, parse_range
from edgeseg.demo.headers import HEADERS, media_type
from edgeseg.demo.server import DemoServer
from edgeseg.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index.html").write_text("<p>page</p>")
    (tmp_path / "engine.mjs").write_text("0123456789")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "encoder.onnx").write_bytes(bytes(200_000))
    (tmp_path / "private.txt").write_text("not in the table")
    return tmp_path


@pytest.fixture
def server(folder):
    names = ("index.html", "engine.mjs", "model/encoder.onnx")
    with DemoServer({name: folder / name for name in names}) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    """Send one request over one connection: status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    def send(path, method="GET", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    yield send
    connection.close()


def test_the_page_is_what_the_root_shows(ask):
    status, headers, body = ask("/")

    assert (status, body) == (200, b"<p>page</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask("/index.html?provider=wasm")[2] == body


def test_every_answer_isolates_the_page_and_forbids_other_places(ask):
    for path in ("/", "/engine.mjs", "/nothing"):
        _, headers, _ = ask(path)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "connect-src 'self'" in headers["Content-Security-Policy"]
        assert {name: headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("ort.mjs", "text/javascript; charset=utf-8"),
        ("ort.wasm", "application/wasm"),
        ("encoder.onnx", "application/octet-stream"),
        ("export.json", "application/json"),
        ("_headers", "application/octet-stream"),
    ],
)
def test_types_are_what_browsers_insist_on(name, expected):
    assert media_type(name) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/private.txt",
        "/model",
        "/model/",
        "/../private.txt",
        "/model/../private.txt",
        "/%2e%2e/private.txt",
        "/model%2f..%2fprivate.txt",
        "/..%5cprivate.txt",
        "//etc/passwd",
        "/%ff%fe",
        "/index.html/",
        "/%00",
    ],
)
def test_nothing_but_the_table_is_answered(ask, path):
    status, _, body = ask(path)

    assert (status, body) == (404, b"404 Not Found\n")


def test_a_file_that_has_become_a_link_is_not_followed(ask, folder):
    (folder / "engine.mjs").unlink()
    (folder / "engine.mjs").symlink_to(folder / "private.txt")

    assert ask("/engine.mjs")[0] == 404


def test_a_file_that_has_gone_is_not_found(ask, folder):
    (folder / "engine.mjs").unlink()

    assert ask("/engine.mjs")[0] == 404
    assert ask("/")[0] == 200  # and the connection goes on


def test_head_gives_headers_and_no_body(ask):
    status, headers, body = ask("/model/encoder.onnx", "HEAD")

    assert (status, headers["Content-Length"], body) == (200, "200000", b"")
    assert ask("/none", "HEAD")[::2] == (404, b"")
    assert ask("/")[0] == 200  # no body was left over in the connection


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_sent_to_the_server(server, method):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, "/", body=b"a photo")

    assert connection.getresponse().status == 501
    connection.close()


@pytest.mark.parametrize(
    ("asked", "expected", "told"),
    [
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_part_of_a_file_is_given(ask, asked, expected, told):
    status, headers, body = ask("/engine.mjs", Range=asked)

    assert (status, body, headers["Content-Range"]) == (206, expected, told)
    assert headers["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=1-2,4-5", "lines=1-2", "bytes=-", "x"])
def test_a_range_that_is_not_understood_gives_everything(ask, asked):
    assert ask("/engine.mjs", Range=asked)[::2] == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(ask, asked):
    status, headers, _ = ask("/engine.mjs", Range=asked)

    assert (status, headers["Content-Range"]) == (416, "bytes */10")


def test_ranges_are_numbers_of_bytes():
    assert parse_range(None, 10) is None
    assert parse_range("bytes=0-0", 10) == ByteRange(0, 1)
    assert parse_range("bytes=0-", 0) == ByteRange(0, 0)


def test_what_the_browser_has_is_not_sent_again(ask, folder):
    _, headers, _ = ask("/engine.mjs")

    status, _, body = ask("/engine.mjs", If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")
    (folder / "engine.mjs").write_text("changed")
    assert ask("/engine.mjs", If_None_Match=headers["ETag"])[0] == 200


def test_a_part_of_a_file_that_has_changed_is_not_mixed(ask):
    _, headers, _ = ask("/engine.mjs")

    assert ask("/engine.mjs", Range="bytes=2-5", If_Range=headers["ETag"])[0] == 206
    assert ask("/engine.mjs", Range="bytes=2-5", If_Range='"old"')[0] == 200


def test_a_browser_that_goes_away_disturbs_nobody(server, ask, capfd):
    with socket.create_connection(("127.0.0.1", server.port)) as leaver:
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        leaver.sendall(b"GET /model/encoder.onnx HTTP/1.1\r\nHost: x\r\n\r\n")

    assert ask("/")[0] == 200
    assert capfd.readouterr().err == ""


def test_the_address_is_this_machine_only(server):
    assert server.url == f"http://127.0.0.1:{server.port}/"
    assert not server.is_open_to_others


def test_another_address_is_said_to_be_open(folder):
    with DemoServer({}, host="0.0.0.0") as server:
        assert server.is_open_to_others
        assert server.url == f"http://127.0.0.1:{server.port}/"


def test_a_port_that_is_taken_says_what_to_do(server):
    with pytest.raises(ConfigError, match=rf"port {server.port}: .*in use; choose another with"):
        DemoServer({}, port=server.port)


def test_an_address_that_does_not_exist_says_so():
    with pytest.raises(ConfigError, match="cannot listen on nowhere.invalid, port 0: "):
        DemoServer({}, host="nowhere.invalid")

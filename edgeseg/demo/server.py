"""A small server for the page: it knows a table of files and gives nothing else."""

import contextlib
import socket
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeseg.demo.byte_range import ByteRange, parse_range
from edgeseg.demo.headers import HEADERS, media_type
from edgeseg.demo.site import INDEX, Site
from edgeseg.errors import ConfigError

_CHUNK_BYTES = 1 << 16
_ONLY_HERE = ("127.0.0.1", "::1", "localhost")


class DemoServer(ThreadingHTTPServer):
    """Serves the files of a site, to this machine only unless told otherwise.

    Args:
        site: Addresses and files; no other address is answered, and no folder is listed.
        host: Address to listen on.
        port: Port to listen on; 0 takes any that is free.

    Raises:
        ConfigError: The port is taken or may not be used, or there is no such address.
    """

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # there it would share a port that is taken

    def __init__(self, site: Site, host: str = "127.0.0.1", port: int = 0) -> None:
        self.site = {address: path.resolve() for address, path in site.items()}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {host}, port {port}: "
                f"{getattr(error, 'strerror', None) or error}; choose another with --port, or "
                "--port 0 for any that is free"
            ) from error

    def server_bind(self) -> None:
        """Take the address, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = str(self.server_address[0])
        if host in ("0.0.0.0", "::"):  # all addresses; one of them
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines may reach it."""
        return str(self.server_address[0]) not in _ONLY_HERE

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing of browsers that go away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "edgeseg"
    sys_version = ""
    timeout = 60
    server: DemoServer

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self, with_body: bool) -> None:
        path = self._find()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND, with_body)
            return
        with path.open("rb") as file:
            facts = path.stat()
            etag = f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"'
            if self.headers.get("If-None-Match") == etag:
                self._begin(HTTPStatus.NOT_MODIFIED, {"ETag": etag})
                return
            part = self._wanted_part(facts.st_size, etag)
            if part is not None and not part.size_bytes:
                extra = {"Content-Range": f"bytes */{facts.st_size}"}
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, with_body, extra)
                return
            sent = part or ByteRange(0, facts.st_size)
            headers = {
                "Content-Type": media_type(path.name),
                "Content-Length": str(sent.size_bytes),
                "Accept-Ranges": "bytes",
                "ETag": etag,
            }
            if part is not None:
                last = part.start + part.size_bytes - 1
                headers["Content-Range"] = f"bytes {part.start}-{last}/{facts.st_size}"
            self._begin(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK, headers)
            if with_body:
                file.seek(sent.start)
                self._send(file, sent.size_bytes)

    def _find(self) -> Path | None:
        """Return the file of an address, unless it has become a link to elsewhere."""
        try:
            address = unquote(urlsplit(self.path).path, errors="strict").removeprefix("/")
        except ValueError:
            return None
        path = self.server.site.get(address or INDEX)
        return path if path is not None and path.resolve() == path and path.is_file() else None

    def _wanted_part(self, size_bytes: int, etag: str) -> ByteRange | None:
        if self.headers.get("If-Range", etag) != etag:
            return None  # it is not the file any more of which a part is here
        return parse_range(self.headers.get("Range"), size_bytes)

    def _begin(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(
        self, status: HTTPStatus, with_body: bool, headers: dict[str, str] | None = None
    ) -> None:
        body = f"{status.value} {status.phrase}\n".encode()
        plain = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        self._begin(status, plain | (headers or {}))
        if with_body:
            self.wfile.write(body)

    def _send(self, file: Any, size_bytes: int) -> None:  # noqa: ANN401 - a binary file
        with contextlib.suppress(ConnectionError):  # the browser has seen enough
            while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
                self.wfile.write(chunk)
                size_bytes -= len(chunk)

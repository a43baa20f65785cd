"""A server on this machine that does what a test wants, and remembers what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 12_000  # 3,072,000 bytes: three chunks of a download


@dataclass
class Server:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    stop_after: int | None = None
    hang: bool = False
    says_length: bool = True
    knows_ranges: bool = True
    goes_back: int = 0
    status: int = 200
    points_to: str = ""
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client may stop listening."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server until the block ends."""
    script = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, script)

        def log_message(self, *words):
            pass

    with QuietServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        script.address = f"http://127.0.0.1:{running.server_port}/weights.pth"
        yield script
        script.released.set()
        running.shutdown()
        thread.join()


def answer(handler, script):
    wanted = handler.headers.get("Range")
    script.ranges.append(wanted)
    if script.points_to and handler.path == "/weights.pth":
        handler.send_response(302)
        handler.send_header("Location", script.points_to)
        handler.end_headers()
        return
    start = 0
    same = handler.headers.get("If-Range") in (None, *script.headers.values())
    if wanted and script.knows_ranges and same:
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) - script.goes_back
        handler.send_response(206 if start < len(script.content) else 416)
        span = f"{start}-{len(script.content) - 1}" if start < len(script.content) else "*"
        handler.send_header("Content-Range", f"bytes {span}/{len(script.content)}")
    else:
        handler.send_response(script.status)
    body = script.content[start:]
    for name, value in script.headers.items():
        handler.send_header(name, value)
    if script.says_length:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: script.stop_after])
    if script.hang:
        handler.wfile.flush()
        script.released.wait(30)

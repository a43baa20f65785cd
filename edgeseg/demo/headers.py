"""What a browser is told with every file: what the page may do, and of which type it is."""

from pathlib import PurePosixPath

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'"
)
"""No connection to anywhere but the place the page came from. It stands in the page, too, so that
it holds where a host sends no headers. `blob:` is the worker that runs the graphs, which inherits
the policy; `wasm-unsafe-eval` compiles WebAssembly and nothing else."""

HEADERS = {
    # Nobody may put the page into a frame; a page cannot say this of itself.
    "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'",
    # Isolated from other pages, it may share memory between threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for again: a file is a new one after an update or another export.
    "Cache-Control": "no-cache",
}

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}


def media_type(address: str) -> str:
    """Return the type of a file by its name; not by the operating system, which may be wrong.

    >>> media_type("runtime/ort.wasm.min.mjs"), media_type("model/encoder.onnx")
    ('text/javascript; charset=utf-8', 'application/octet-stream')
    """
    return _TYPES.get(PurePosixPath(address).suffix, "application/octet-stream")


def static_host_headers() -> str:
    """Return the headers as a `_headers` file, which Netlify and Cloudflare Pages read."""
    lines = [f"  {name}: {value}" for name, value in HEADERS.items()]
    return "\n".join(["/*", *lines]) + "\n"

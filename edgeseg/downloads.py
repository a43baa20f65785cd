"""Downloading one large file that a user asked for: continued after a stop, never more than asked.

What has come is kept beside a note of where it came from, so that the same call continues a broken
transfer if the server says, by its ETag or date, that the file is still the same one.
"""

import hashlib
import http.client
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically
from edgeseg.links import ask, check_link, without_secrets

Progress = Callable[[int, int | None], object]
"""Receives the bytes that are here and those of the whole file, None if the server did not say."""

_CHUNK_BYTES = 1 << 20
_PARTIAL_CONTENT = 206
_NO_SUCH_RANGE = 416


@dataclass(frozen=True)
class DownloadLimits:
    """What a download may cost.

    Attributes:
        max_bytes: Largest file that is taken.
        timeout_s: Seconds of silence after which the server is given up.
        copies: How often the file must fit on the disk; 2 if it is going to be converted.
    """

    max_bytes: int
    timeout_s: float = 30.0
    copies: int = 1


def download(link: str, path: Path, limits: DownloadLimits, progress: Progress) -> None:
    """Fetch a file, or the rest of it.

    Args:
        link: http or https.
        path: Where it belongs, in a folder that exists. It may be used once this has returned; what
            an earlier call left there is continued.
        limits: What it may cost.
        progress: Called after every piece.

    Raises:
        WeightsError: The address is unusable, the server refuses or stops answering, the file is
            larger than allowed or does not fit on the disk, or the transfer ends early.
    """
    check_link(link)
    try:
        answer = _open(link, path, limits)
        if answer is not None:
            with answer:
                _receive(answer, path, limits, progress)
    except HTTPError as error:
        error.close()
        raise WeightsError(
            f"cannot download {without_secrets(link)}: the server answered {error.code} "
            f"({error.reason}); check the link in a browser"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = error.reason if isinstance(error, URLError) else error
        raise WeightsError(
            f"cannot download {without_secrets(link)}: {reason or type(error).__name__}; "
            f"{_what_is_kept(path)}"
        ) from error


def forget_download(path: Path) -> None:
    """Remove a file and the note beside it, so that the next download starts anew."""
    path.unlink(missing_ok=True)
    note_of(path).unlink(missing_ok=True)


def note_of(path: Path) -> Path:
    """Return where it is noted what a file is a download of."""
    return path.with_name(f"{path.name}.source.json")


def can_continue(path: Path) -> bool:
    """Return whether `download` can continue, or take as it is, what an earlier call left."""
    return note_of(path).is_file() and path.is_file() and path.stat().st_size > 0


@dataclass(frozen=True)
class _Answer:
    """What the server sends.

    Attributes:
        link: What was asked for.
        body: The bytes from `offset` on.
        offset: Bytes of the file that are here already and stay.
        total: Bytes of the whole file, if the server says.
    """

    link: str
    body: http.client.HTTPResponse
    offset: int
    total: int | None

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.body.close()


def _open(link: str, path: Path, limits: DownloadLimits) -> _Answer | None:
    """Ask for the rest of what is here if it can be continued, else for all of it.

    Returns:
        None if all of it is here.
    """
    validator = _read_note(path, link)
    have = path.stat().st_size if validator and path.is_file() else 0
    if have and validator:
        try:
            answer = ask(link, limits.timeout_s, {"Range": f"bytes={have}-", "If-Range": validator})
        except HTTPError as error:
            error.close()
            if error.code != _NO_SUCH_RANGE:
                raise
            if _content_range(error.headers) == (None, have):
                return None
        else:
            if answer.status != _PARTIAL_CONTENT:  # another file by now, or ranges are not known
                return _from_start(link, answer)
            start, total = _content_range(answer.headers)
            if start == have:
                return _Answer(link, answer, have, total)
            answer.close()
    return _from_start(link, ask(link, limits.timeout_s, {}))


def _from_start(link: str, answer: http.client.HTTPResponse) -> _Answer:
    length = answer.headers.get("Content-Length", "")
    return _Answer(link, answer, 0, int(length) if length.isdecimal() else None)


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Return the first byte and the size told by `Content-Range: bytes 5-9/10` or `bytes */10`."""
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    first, total = rest.partition("-")[0], rest.rpartition("/")[2]
    if unit != "bytes":
        return None, None
    return (
        int(first) if first.isdecimal() else None,
        int(total) if total.isdecimal() else None,
    )


def _receive(answer: _Answer, path: Path, limits: DownloadLimits, progress: Progress) -> None:
    _check_answer(answer, path, limits)
    if answer.offset == 0:
        forget_download(path)
        _write_note(path, answer)
    have = answer.offset
    with path.open("ab") as file:
        while chunk := answer.body.read(_CHUNK_BYTES):
            have += len(chunk)
            if have > limits.max_bytes:
                break
            file.write(chunk)
            progress(have, answer.total)
    if have > limits.max_bytes:
        forget_download(path)
        raise _too_big(answer.link, f"more than {_megabytes(limits.max_bytes)} came")
    if answer.total is not None and have < answer.total:
        raise WeightsError(
            f"the download of {without_secrets(answer.link)} ended after {have} of "
            f"{answer.total} bytes; {_what_is_kept(path)}"
        )


def _check_answer(answer: _Answer, path: Path, limits: DownloadLimits) -> None:
    link, total = without_secrets(answer.link), answer.total
    if answer.body.headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{link} is a web page, not a file; give the link that the page's download button has"
        )
    if answer.body.headers.get("Content-Encoding", "identity") != "identity":
        raise WeightsError(f"{link} comes compressed, which was not asked for; fetch it yourself")
    if total is None:
        return
    if total > limits.max_bytes:
        raise _too_big(answer.link, f"it has {_megabytes(total)}")
    needed = total * limits.copies - answer.offset
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise WeightsError(
            f"{link} needs {_megabytes(needed)} in {path.parent}, and only {_megabytes(free)} are "
            "free; make room or choose another folder"
        )


def _too_big(link: str, found: str) -> WeightsError:
    return WeightsError(
        f"{without_secrets(link)} is larger than allowed: {found}; raise --max-size-gb if that is "
        "the file you want"
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _what_is_kept(path: Path) -> str:
    if can_continue(path):
        return f"{_megabytes(path.stat().st_size)} are kept; run the same command to continue"
    return "check the link and the connection, and try again"


def _read_note(path: Path, link: str) -> str | None:
    """Return what tells the server which file the beginning of ours is of."""
    try:
        note = json.loads(note_of(path).read_text("utf-8"))
        return str(note["validator"]) if note["link_sha256"] == _hash(link) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(path: Path, answer: _Answer) -> None:
    """Remember the source, if the server gives something to recognise it by."""
    etag = answer.body.headers.get("ETag", "")
    weak = etag.startswith("W/")  # equal in meaning, perhaps not in bytes
    validator = answer.body.headers.get("Last-Modified") if weak or not etag else etag
    if validator:
        text = json.dumps({"link_sha256": _hash(answer.link), "validator": validator})
        write_atomically(note_of(path), lambda temporary: temporary.write_text(text, "utf-8"))


def _hash(link: str) -> str:
    """A link may hold a token, which does not belong on the disk."""
    return hashlib.sha256(link.encode()).hexdigest()

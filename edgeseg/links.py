"""Which links may be fetched, and how: http and https, nothing else, also after redirects."""

import http.client
import urllib.parse
from typing import IO
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from edgeseg.errors import WeightsError

_SCHEMES = ("http", "https")


def is_link(text: str) -> bool:
    """Return whether a text is a link rather than a path.

    >>> is_link("https://example.org/a.pth"), is_link("weights/a.pth"), is_link("C:/a.pth")
    (True, False, False)
    """
    return "://" in text


def without_secrets(link: str) -> str:
    """Return a link without what may be a password or a token.

    >>> without_secrets("https://me:password@example.org:8080/a.pth?token=1#x")
    'https://example.org:8080/a.pth'
    """
    before_query = link.partition("?")[0].partition("#")[0]
    scheme, mark, rest = before_query.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def check_link(link: str) -> None:
    """Refuse what is no plain http or https link.

    Raises:
        WeightsError: It has another scheme, no host, a user name or characters links cannot have.
    """
    try:
        parts = urllib.parse.urlsplit(link)
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and link.isascii()
    except ValueError:  # such as an unclosed bracket
        is_usable = False
    if not is_usable:
        raise WeightsError(
            f"cannot download {without_secrets(link)!r}: it is no http or https link; give one, or "
            "the path of a file"
        )
    if parts.username is not None:
        raise WeightsError(
            f"cannot download {without_secrets(link)}: the link holds a user name; fetch the file "
            "yourself and give its path"
        )


def ask(link: str, timeout_s: float, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a GET request and return the answer, whose body is still to be read.

    Raises:
        HTTPError: The server refuses, or points to what may not be fetched. Close it.
        OSError: There is no connection, or no answer in time.
        HTTPException: What answers does not speak HTTP.
    """
    always = {"User-Agent": "edgeseg", "Accept-Encoding": "identity"}
    try:
        answer = _opener().open(Request(link, headers=always | headers), timeout=timeout_s)
    except ValueError as error:  # a host name, or a place the server points on to, that cannot be
        raise http.client.InvalidURL(str(error)) from error
    assert isinstance(answer, http.client.HTTPResponse)  # nothing else is spoken
    return answer


class _SafeRedirects(HTTPRedirectHandler):
    """Follows a redirect to http or https, but not from https to http."""

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> object:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # no address at all
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in _SCHEMES or (req.type == "https" and scheme == "http"):
            reason = f"it points on to {scheme}, which is not allowed"
            raise HTTPError(newurl, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """Return what speaks http and https and nothing else: no files, no ftp."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        _SafeRedirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener

import http.client
from urllib.request import Request

import pytest

from edgeseg.errors import WeightsError
from edgeseg.links import ask, check_link, without_secrets


@pytest.mark.parametrize(
    "link",
    [
        "ftp://example.org/a.pth",
        "file:///etc/passwd",
        "https:///a.pth",
        "https://exämple.org/a.pth",
        "http://[::1/a.pth",
        "a.pth",
    ],
)
def test_what_is_no_http_link_is_refused(link):
    with pytest.raises(WeightsError, match=r"it is no http or https link; give one, or the path"):
        check_link(link)


def test_a_link_with_a_password_is_refused_without_showing_it():
    with pytest.raises(WeightsError, match=r"https://example.org/a.pth: .* fetch the file y") as e:
        check_link("https://me:hunter2@example.org/a.pth")

    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize("link", ["https://example.org/a.pth?download=1", "http://127.0.0.1:80/"])
def test_ordinary_links_are_taken(link):
    check_link(link)


def test_tokens_and_fragments_are_not_shown():
    assert without_secrets("https://example.org/a?token=b@c#d") == "https://example.org/a"
    assert without_secrets("https://u:p@example.org?x") == "https://example.org"
    assert without_secrets("https://example.org/a@b.pth") == "https://example.org/a@b.pth"


def test_https_is_not_left_for_http():
    from email.message import Message
    from io import BytesIO
    from urllib.error import HTTPError

    from edgeseg.links import _SafeRedirects

    handler, request = _SafeRedirects(), Request("https://example.org/a")

    with pytest.raises(HTTPError, match="points on to http, which is not allowed") as caught:
        handler.redirect_request(request, BytesIO(), 302, "", Message(), "http://example.org/a")
    caught.value.close()
    kept = handler.redirect_request(
        request, BytesIO(), 302, "", Message(), "https://other.example.org/a"
    )
    assert kept is not None
    assert kept.full_url == "https://other.example.org/a"


def test_a_host_name_that_cannot_be_is_an_http_error():
    with pytest.raises(http.client.HTTPException):
        ask("http://127.0.0.1:port/a", 1.0, {})

"""The page's files: names of tensors as in the signature, nothing from elsewhere, and a policy."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeseg import prompts, signature
from edgeseg.demo.headers import CONTENT_SECURITY_POLICY, HEADERS
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.runtime.candidates import Quality

PAGE = Path(__file__).parents[2] / "edgeseg" / "demo" / "page"
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted(PAGE.glob("*.js"))}
TEXTS = SCRIPTS | {name: (PAGE / name).read_text("utf-8") for name in ("index.html", "style.css")}


class Tags(HTMLParser):
    """Collects the attributes of every tag."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


TAGS = Tags(TEXTS["index.html"]).found


def test_tensors_and_labels_are_called_as_in_python(page):
    found = page('return { ...(await load("signature.js")) };')

    for name, value in found.items():
        python = prompts if hasattr(prompts, name) else signature
        if name != "NUM_TOKENS":
            expected = getattr(python, name)
            assert value == (list(expected) if isinstance(expected, tuple) else expected), name
    tensors = {name for name in vars(signature) if name.isupper()}
    unused = {"POINTS_XY_IMAGE", "IMAGE_HW"}  # of the graph that has encoder and decoder in one
    assert tensors - unused <= found.keys()


def test_pixels_are_normalised_with_the_numbers_of_python():
    (mean,) = re.findall(r"const PIXEL_MEAN = (\[.+\]);", SCRIPTS["pixels.js"])
    (std,) = re.findall(r"const PIXEL_STD = (\[.+\]);", SCRIPTS["pixels.js"])

    assert eval(mean) == pytest.approx(PIXEL_MEAN.tolist())
    assert eval(std) == pytest.approx(PIXEL_STD.tolist())


def test_stability_is_judged_at_the_offset_of_python():
    assert Quality(0, 0).stability_offset == 1.0
    assert "logit > 1)" in SCRIPTS["candidates.js"]
    assert "logit > -1)" in SCRIPTS["candidates.js"]


def test_the_page_names_no_other_place():
    for name, text in TEXTS.items():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"(?<!:)//[^\n]*", "", text))
        assert [found for found in addresses if "www.w3.org" not in found] == [], name
    for tag, attributes in TAGS:
        for name in ("src", "href"):
            assert "//" not in attributes.get(name, ""), tag


def test_the_policy_allows_connections_to_the_own_place_only():
    rules = dict(rule.strip().split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split(";"))

    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["form-action"] == "'none'"
    for name, sources in rules.items():
        allowed = {"'none'", "'self'", "blob:"}
        if name == "script-src":
            allowed.add("'wasm-unsafe-eval'")
        assert set(sources.split()) <= allowed, name


def test_the_page_carries_the_policy_of_the_server():
    (policy,) = [
        attributes["content"]
        for tag, attributes in TAGS
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]

    assert policy == CONTENT_SECURITY_POLICY
    assert HEADERS["Content-Security-Policy"] == f"{policy}; frame-ancestors 'none'"


def test_nothing_is_written_into_the_page_that_the_policy_would_stop():
    for tag, attributes in TAGS:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert [attributes for tag, attributes in TAGS if tag == "script"] == [
        {"type": "module", "src": "app.js"}
    ]
    assert "eval(" not in "".join(SCRIPTS.values())
    assert "innerHTML" not in "".join(SCRIPTS.values())


def test_photos_are_only_read():
    """What could carry a picture away is not in the sources; the policy would stop the rest."""
    everything = "".join(SCRIPTS.values())

    for word in ("XMLHttpRequest", "sendBeacon", "WebSocket", "RTCPeer", "method:", "EventSource"):
        assert word not in everything
    assert {name for name, text in SCRIPTS.items() if "fetch(" in text} == {
        "app.js",  # a sample photo
        "engine.js",  # the graphs
        "manifest.js",
    }


def test_every_module_and_file_that_is_named_exists():
    for name, text in SCRIPTS.items():
        modules = re.findall(r'from "\./([\w.]+)"', text)
        assert [module for module in modules if module not in SCRIPTS] == [], name
    named = [attributes.get(key) for _, attributes in TAGS for key in ("src", "href")]
    assert [path for path in named if path and not (PAGE / path).is_file()] == []
    samples = [attributes["data-sample"] for _, attributes in TAGS if "data-sample" in attributes]
    assert samples
    assert all((PAGE / "samples" / name).is_file() for name in samples)


def test_every_part_that_the_scripts_look_for_is_in_the_page():
    present = {attributes["id"] for _, attributes in TAGS if "id" in attributes}
    wanted = set(re.findall(r'find\("(\w+)"\)', "".join(SCRIPTS.values())))

    assert wanted
    assert wanted <= present


def test_everything_that_is_pressed_can_be_reached_and_has_a_name():
    names = re.findall(r"<button[^>]*>(.*?)</button>", TEXTS["index.html"], re.DOTALL)

    for inside in names:
        assert re.sub(r"<[^>]+>", "", inside).strip() or 'alt="' in inside
    for tag, attributes in TAGS:
        if tag == "img":
            assert "alt" in attributes
        if tag == "svg":
            assert attributes["aria-hidden"] == "true"
    ids = {attributes.get("id"): attributes for _, attributes in TAGS}
    assert ids["canvas"]["tabindex"] == "0"
    assert ids["status"]["aria-live"] == "polite"
    assert ids["error"]["role"] == "alert"


def test_files_of_the_page_are_small():
    for name, text in SCRIPTS.items():
        assert len(text.splitlines()) <= 300, name
    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.is_file()) < 300_000


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_scripts_are_valid():
    paths = [PAGE / name for name in SCRIPTS]

    probe = (
        "const { SourceTextModule: Module } = require('vm'), { readFileSync } = require('fs');"
        "for (const path of process.argv.slice(1)) new Module(readFileSync(path, 'utf8'));"
    )
    words = ["node", "--no-warnings", "--experimental-vm-modules", "-e", probe, *paths]
    run = subprocess.run(words, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr

import base64
import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from brightness_model import write_brightness_model
from driven_page import DrivenPage, ListeningServer, open_browser, served

import edgeseg
from edgeseg.demo.site import build_site
from edgeseg.demo.web_runtime import find_runtime
from edgeseg.errors import MissingExtraError
from edgeseg.images import read_image

PAGE = Path(__file__).parents[2] / "edgeseg" / "demo" / "page"
RUNNER = Path(__file__).with_name("call_page.mjs")
ARRAYS = {"float32": "Float32Array", "uint8": "Uint8Array", "int32": "Int32Array"}
DTYPES = {name: dtype for dtype, name in ARRAYS.items()} | {"Uint8ClampedArray": "uint8"}


@pytest.fixture(scope="session")
def page():
    """Run JavaScript with the page's modules: `load("masks.js")` and `values` are at hand."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's modules outside a browser, is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < 18:
        pytest.skip(f"node {version.stdout.strip()} is too old for the page's modules; 18 will do")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([node, RUNNER, PAGE.as_uri()], text=True, **pipes) as process:

        def run(body, **values):
            call = json.dumps({"body": body, "values": values}, default=_to_json)
            process.stdin.write(f"{call}\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline(), object_hook=_from_json)
            assert "error" not in answer, answer["error"]
            return answer["result"]

        yield run
        process.stdin.close()


def _to_json(value):
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"$array": ARRAYS[value.dtype.name], "data": data}
    raise TypeError(type(value))


def _from_json(value):
    if "$array" not in value:
        return value
    return np.frombuffer(base64.b64decode(value["data"]), DTYPES[value["$array"]])


# The page in a browser, with the graphs of `brightness_model`: one for the whole session


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    return write_brightness_model(tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="session")
def segmenter(export):
    return edgeseg.load(export)


@pytest.fixture(scope="session")
def site(export):
    try:
        return build_site(export, find_runtime())
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def astronaut(tmp_path_factory):
    """A photograph of 400 x 512 pixels, height x width, as a file."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    cv2.imwrite(str(path), data.astronaut()[:400, :, ::-1])
    return path


@pytest.fixture(scope="session")
def image(astronaut):
    return read_image(astronaut)


@pytest.fixture(scope="session")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def server(site):
    with served(ListeningServer(site)) as server:
        yield server


@pytest.fixture(scope="session")
def browser(server, downloads):
    with open_browser(downloads) as browser:
        yield browser


@pytest.fixture(scope="session")
def opened(browser, server, downloads, astronaut, image):
    """The page with the photograph, loaded once for all tests that only point at it."""
    page = DrivenPage(browser, downloads).load(server.url)
    return page.open_photo(astronaut, image.shape[:2])


@pytest.fixture
def shown(opened):
    """The page with the photograph and nothing pointed at yet."""
    if opened.part("clear").is_enabled():
        opened.press("clear")
    return opened


@pytest.fixture(scope="session")
def encoded(segmenter, image):
    return segmenter.encode(image)

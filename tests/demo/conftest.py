import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

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

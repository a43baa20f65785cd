"""Applications install the base package alone, so nothing here may need more."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from exported_folders import write_folder

# What the extras bring; importing any of it fails as if it were not there.
ABSENT = """
import sys

class Absent:
    names = {"torch", "torchvision", "timm", "lightning", "segment_anything", "pycocotools", "PIL",
             "onnx", "onnxscript", "onnxsim", "coremltools", "openvino", "skimage", "matplotlib"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

sys.meta_path.insert(0, Absent())
"""


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", ABSENT + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((32, 64, 3), 120, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "exported")


def test_the_hook_makes_torch_absent():
    run = run_python("import torch")

    assert "No module named 'torch'" in run.stderr


def test_the_public_names_load_and_segment(folder):
    code = """
import numpy as np
import edgeseg
segmenter = edgeseg.load(sys.argv[1])
masks = segmenter.segment(
    segmenter.encode(np.zeros((32, 64, 3), np.uint8)), edgeseg.Prompt(box_xyxy=[0, 0, 30, 6])
)
predictor = edgeseg.SamPredictor(segmenter)
predictor.set_image(np.zeros((32, 64, 3), np.uint8))
print(masks.areas_px.tolist(), predictor.predict([[3, 4]], [1])[0].shape)
"""
    run = run_python(code, folder)

    # 21 y < 360 - 3 x: 17.1 rows at the left, 8 at the right of 64 columns, at cells of 4 pixels.
    areas, shape = run.stdout.split("] ")
    assert abs(int(areas.strip("[")) - 64 * (17.1 + 8.0) / 2) < 64, run.stderr
    assert shape.strip() == "(3, 32, 64)"


def test_the_command_segments_a_photograph(folder, photo):
    code = "from edgeseg.cli import main\nsys.exit(main(sys.argv[1:]))"
    words = ["segment", photo, "--model", folder, "--box", "0,0,30,6", "--rle"]

    run = run_python(code, *words)

    assert (run.returncode, run.stderr) == (0, "")
    (mask,) = json.loads(run.stdout)["masks"]
    assert mask["segmentation"]["size"] == [32, 64]
    assert mask["score"] == 9.0


def test_weights_are_answered_by_the_install_command(tmp_path, photo):
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(b"")
    code = "from edgeseg.cli import main\nsys.exit(main(sys.argv[1:]))"

    run = run_python(code, "segment", photo, "--model", weights, "--point", "3,4")

    assert run.returncode == 3
    told, failed = run.stderr.splitlines()
    assert "because it has no exported files; `edgeseg export" in told
    assert failed == "edgeseg: torch is not installed; run: pip install 'edgeseg[train]'"


def test_importing_and_loading_takes_less_than_a_second_of_one_core(folder):
    code = """
import time
import edgeseg
edgeseg.load(sys.argv[1], threads=1)
print(time.process_time())
"""
    runs = [run_python(code, folder) for _ in range(3)]

    # Time of the processor, the best of three: it does not depend on what else the machine does.
    assert min(float(run.stdout) for run in runs) < 1.0


def test_importing_the_package_alone_loads_no_runtime():
    code = """
import edgeseg
heavy = {"cv2", "onnxruntime", "pydantic", "typer", "rich", "edgeseg.runtime"}
print(sorted(heavy & set(sys.modules)))
"""
    run = run_python(code)

    assert run.stdout.strip() == "[]", run.stderr

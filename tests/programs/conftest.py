import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model
from edgeseg.run_lengths import encode_rle

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_program(tmp_path):
    """Run a program of the repository that writes `--out`, and return what it wrote."""

    def run(name, *words):
        out = tmp_path / "result.json"
        command = [sys.executable, ROOT / name, *map(str, words), "--out", out]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text("utf-8"))

    return run


@pytest.fixture
def proposing_tiny(tmp_path):
    """Write weights of a tiny network that proposes regions."""
    torch.manual_seed(0)
    net = build_model("edgeseg_tiny")
    net.add_proposal_head()
    path = tmp_path / "tiny.safetensors"
    save_weights(net, path)
    return path


@pytest.fixture
def one_rectangle(tmp_path):
    """Write a data set in the SA-1B layout: one image with one object in each split."""
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    text = json.dumps({"annotations": [{"segmentation": encode_rle(mask)}]})
    for split in ("train", "val"):
        folder = tmp_path / "data" / "shapes" / split
        folder.mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(folder / "a.png"), image)
        (folder / "a.json").write_text(text)
    return tmp_path / "data"

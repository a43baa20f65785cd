import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model
from edgeseg.run_lengths import encode_rle

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "everything.py"


def test_every_search_is_timed_and_its_recall_written_down(tmp_path):
    torch.manual_seed(0)
    net = build_model("edgeseg_tiny")
    net.add_proposal_head()
    save_weights(net, tmp_path / "tiny.safetensors")
    folder = tmp_path / "data" / "shapes" / "val"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    cv2.imwrite(str(folder / "a.png"), image)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    annotations = {"annotations": [{"segmentation": encode_rle(mask)}]}
    (folder / "a.json").write_text(json.dumps(annotations))
    out = tmp_path / "everything.json"
    words = [
        sys.executable, PROGRAM, tmp_path / "tiny.safetensors", "--data", tmp_path / "data",
        "--out", out, "--min-score", "0", "--min-stability", "0",
    ]  # fmt: skip

    run = subprocess.run(words, check=False, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert rows["segment_anything 32 x 32"]["mean_prompts"] == 1024
    assert rows["grid 32 x 32"]["mean_prompts"] == 1024
    assert rows["grid 16 x 16"]["mean_prompts"] == 256
    for row in rows.values():
        assert row["mean_seconds"] > 0
        assert set(row["recall"]) == {"10", "100", "1000"}
        assert all(0 <= value <= 1 for value in row["recall"].values())

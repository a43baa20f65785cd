import json
import subprocess
import sys
from pathlib import Path

import torch

from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model

PROGRAM = Path(__file__).parents[2] / "export" / "release_models.py"


def test_a_model_is_exported_timed_and_written_down_and_what_cannot_be_made_says_why(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_weights(build_model("edgeseg_tiny"), weights)
    words = [
        sys.executable, PROGRAM, f"edgeseg_tiny={weights}", "--rounds", "2",
        "--targets", "onnx_fp32", "onnx_sam_compatible",
        "--out", tmp_path / "out", "--results", tmp_path,
    ]  # fmt: skip

    subprocess.run(words, check=True, capture_output=True, text=True)

    result = json.loads((tmp_path / "exports_edgeseg_tiny.json").read_text("utf-8"))
    made, not_made = result["targets"]
    assert set(made["size_bytes"]) == {"encoder", "decoder", "fused"}
    assert not_made["target"] == "onnx_sam_compatible"
    assert "programs for SAM" in not_made["not_made"] or "SAM's decoder" in not_made["not_made"]
    assert set(result["latency_p50_ms"]) == {"pytorch", "onnx_fp32"}
    for latency in result["latency_p50_ms"].values():
        assert list(latency) == ["encoder", "decoder, 1", "decoder, 64"]
        assert all(value > 0 for value in latency.values())
    assert (tmp_path / "out" / "edgeseg_tiny" / "onnx_fp32" / "export.json").is_file()

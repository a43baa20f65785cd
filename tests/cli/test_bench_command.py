import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bench.results import BenchResult
from edgeseg.bench.roofline import read_roofline
from edgeseg.cli import main
from edgeseg.errors import ConfigError

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import write_folder  # noqa: E402  # shared with the tests of the runtime


@pytest.fixture
def exported(tmp_path):
    return write_folder(tmp_path / "exported")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8))
    return path


def bench(*words):
    return main(["bench", *map(str, words)])


def test_models_are_timed_and_every_file_asked_for_is_written(tmp_path, exported, photo, capsys):
    files = [tmp_path / name for name in ("r.json", "r.csv", "r.html")]

    status = bench(
        "run", exported, "--photo", photo, "--rounds", 3, "--threads", 1, "--part", "encoder",
        "--part", "proposals", "--out", files[0], "--csv", files[1], "--html", files[2],
    )  # fmt: skip

    shown = capsys.readouterr()
    result = BenchResult.read(files[0])
    assert status == 0
    assert [len(one.samples_ms) for one in result.measurements] == [3]
    assert result.measurements[0].label == "tiny_pair onnx_fp32 onnx"
    assert "1 threads a call" in shown.out
    assert "not measured: tiny_pair onnx_fp32 onnx proposals: " in shown.out
    assert "timing encoder" in shown.err
    assert files[1].read_text().startswith("label,model,driver")
    assert "<svg" in files[2].read_text()


def test_a_suite_says_what_runs(tmp_path, exported, photo, capsys):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "two"\nrounds = 2\nparts = ["decoder"]\ncold_start = false\nreference = "a"\n'
        + "".join(f'[[contender]]\nlabel = "{x}"\nmodel = "{exported}"\n' for x in "ab")
    )

    status = bench("run", "--suite", suite, "--photo", photo, "--json")

    result = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [one["label"] for one in result["measurements"]] == ["a", "b"]
    assert result["cold_starts"] == []
    assert bench("run", "--suite", suite, "--part", "encoder") == 2
    assert bench("run") == 2


def test_a_planted_slowdown_ends_with_status_1(tmp_path, exported, photo, capsys):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    bench("run", exported, "--photo", photo, "--rounds", 5, "--part", "encoder", "--out", before)
    result = BenchResult.read(before)
    for path, factor in ((before, 1), (after, 2)):  # steady samples, whatever else runs here
        samples = tuple(factor * each for each in (10.0, 10.1, 9.9, 10.2, 10.0))
        timed = [one.model_copy(update={"samples_ms": samples}) for one in result.measurements]
        result.model_copy(update={"measurements": tuple(timed)}).write(path)
    capsys.readouterr()

    statuses = [
        bench("compare", *pair, "--fail-if", "latency>+10%")
        for pair in ((before, after), (after, before), (before, before))
    ]

    shown = capsys.readouterr()
    assert statuses == [1, 0, 0]
    assert "over the limit: tiny_pair onnx_fp32 onnx encoder: +100.0 %" in shown.err
    assert bench("compare", before, after) == 0  # nothing was forbidden
    assert bench("compare", before, after, "--fail-if", "slower") == 1
    assert "must look like latency>+10%" in capsys.readouterr().err


def test_what_is_no_longer_measured_is_over_every_limit(tmp_path, exported, photo, capsys):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    words = ("run", exported, "--photo", photo, "--rounds", 2, "--part", "encoder")
    bench(*words, "--part", "decoder", "--out", before)
    bench(*words, "--out", after)

    assert bench("compare", before, after, "--fail-if", "latency>+900%") == 1
    assert "missing now: tiny_pair onnx_fp32 onnx decoder" in capsys.readouterr().err


def test_a_result_is_shown_again_with_ratios(tmp_path, exported, photo, capsys):
    out = tmp_path / "r.json"
    bench("run", exported, "--photo", photo, "--rounds", 2, "--part", "encoder", "--out", out)
    capsys.readouterr()

    assert bench("report", out, "--reference", "tiny_pair onnx_fp32 onnx") == 0
    assert "times faster than tiny_pair" in capsys.readouterr().out
    assert bench("report", out, "--reference", "nobody") == 1


def test_every_driver_says_whether_it_can_run_here(capsys):
    assert bench("drivers") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "onnx             ONNX Runtime on the processor: ready"
    names = {line.split()[0] for line in lines if not line.startswith(" ")}
    assert names >= {"onnx:cuda", "openvino", "pytorch", "pytorch:cuda", "trtexec", "adb", "iphone"}


def test_a_graph_is_held_against_the_machine(tmp_path, exported, capsys, monkeypatch):
    monkeypatch.setattr("edgeseg.bench.roofline._SECONDS", 0.01)
    monkeypatch.setattr("edgeseg.bench.roofline._PRODUCT_SIDE", 128)
    out = tmp_path / "roofline.json"

    assert bench("roofline", exported, "--threads", 1, "--rounds", 2, "--out", out) == 0

    assert "% of the limit is reached" in capsys.readouterr().out
    title, found = read_roofline(out)
    assert title == "tiny_pair encoder at 64, float32, 1 threads"
    assert found.layers
    with pytest.raises(ConfigError, match="is no roofline"):
        read_roofline(exported / "export.json")
    assert bench("roofline", exported, "--role", "proposals") == 1


def test_a_device_that_is_not_at_hand_is_estimated(capsys):
    assert bench("estimate", "edgeseg_tiny") == 0

    shown = capsys.readouterr().out
    assert shown.startswith("Estimates, not measurements.")
    assert "edgeseg_tiny at 64" in shown
    assert bench("estimate", "nothing") == 1

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.cli import main
from edgeseg.cli import segment as segment_module
from edgeseg.run_lengths import decode_rle
from edgeseg.runtime import loading

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import write_folder  # noqa: E402  # shared with the tests of the runtime


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "exported")


@pytest.fixture
def words(photo, folder):
    """Segment a photo of 40 x 80 pixels, which becomes 32 x 64, by an exported folder."""
    return ["segment", str(photo), "--rle", "--box", "0,0,37.5,7.5", "--model", str(folder)]


def mask_of(capsys):
    (row,) = json.loads(capsys.readouterr().out)["masks"]
    return decode_rle(row["segmentation"]), row["score"]


def test_an_exported_folder_is_run_without_a_word_on_stderr(words, capsys):
    assert main(words) == 0

    out, err = capsys.readouterr()
    assert err == ""
    (row,) = json.loads(out)["masks"]
    # The box is 0, 0, 30, 6 in the model frame. The line 360 = 3 x + 21 y there meets the left
    # edge at y = 17.1, in the photo 21.4, and the right edge at 8.1, in the photo 10.2.
    mask = decode_rle(row["segmentation"])
    assert row["score"] == 9.0
    assert mask.shape == (40, 80)
    assert np.flatnonzero(mask[:, 0]).max() == pytest.approx(21, abs=1)
    assert np.flatnonzero(mask[:, 79]).max() == pytest.approx(10, abs=1)


@pytest.mark.parametrize("backend", ["onnx", "onnx:cpu", "openvino"])
def test_every_backend_gives_that_mask(words, capsys, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    assert main(words) == 0
    expected, _ = mask_of(capsys)

    assert main([*words, "--backend", backend, "--threads", "1", "--strict"]) == 0

    np.testing.assert_array_equal(mask_of(capsys)[0], expected)


def test_pictures_are_written_by_exported_files_too(words, folder, tmp_path):
    words.remove("--rle")

    assert main([*words, "--out", str(tmp_path / "masks")]) == 0

    assert cv2.imread(str(tmp_path / "masks" / "overlay.png")).shape == (40, 80, 3)


def test_a_replaced_provider_is_a_line_on_stderr_or_an_error_if_strict(words, capsys):
    words += ["--backend", "onnx:tensorrt"]

    assert main(words) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edgeseg: warning: execution provider tensorrt is not part of")

    assert main([*words, "--strict"]) == 1
    assert capsys.readouterr().err.startswith("edgeseg: execution provider tensorrt is not part")


def test_weights_are_run_by_torch_with_a_line_that_says_so(photo, tiny_weights, capsys):
    words = ["segment", str(photo), "--rle", "--point", "30,20", "--model", str(tiny_weights)]

    assert main(words) == 0

    out, err = capsys.readouterr()
    assert err == (
        f"edgeseg: torch runs {tiny_weights}, because it has no exported files; "
        f"`edgeseg export {tiny_weights} OUT` makes them\n"
    )
    assert main([*words, "--backend", "torch"]) == 0  # asked for, so nothing to say
    assert capsys.readouterr() == (out, "")


def test_weights_cannot_be_run_by_another_backend(photo, tiny_weights, capsys):
    words = ["segment", str(photo), "--point", "30,20", "--model", str(tiny_weights)]

    assert main([*words, "--backend", "onnx"]) == 1

    assert "has no exported files that backend 'onnx' runs; run: edgeseg" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--image-size", "64"), ("--device", "cpu")])
@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_options_of_torch_are_refused_for_exported_files(words, capsys, option, backend):
    assert main([*words, *option, "--backend", backend]) == 1

    assert capsys.readouterr().err.startswith(f"edgeseg: {option[0]} cannot be given for exported")


def test_a_model_with_weights_and_exports_is_run_by_torch_only_if_its_options_are_given(
    words, folder, tmp_path, capsys, monkeypatch
):
    small = tmp_path / "models" / "small"
    write_folder(small / "onnx_fp32")
    (small / "model.toml").write_text("not read\n")
    monkeypatch.setattr(loading, "RELEASED", tmp_path / "models")
    monkeypatch.setattr(segment_module, "_load_torch", lambda *_: loading.load(folder))
    words[words.index(str(folder))] = "small"

    assert main(words) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--image-size", "128"]) == 0

    expected = "edgeseg: torch runs small, because --image-size needs it\n"
    assert capsys.readouterr().err == expected


def test_threads_are_set_for_torch_too(photo, tiny_weights, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    numbers = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    words = ["segment", str(photo), "--rle", "--point", "30,20", "--model", str(tiny_weights)]

    assert main([*words, "--threads", "2", "--backend", "torch"]) == 0
    assert main([*words, "--backend", "torch"]) == 0

    assert numbers == [2]


def test_wrong_numbers_of_threads_and_unknown_backends_are_refused(words, capsys):
    assert main([*words, "--threads", "0"]) == 2
    capsys.readouterr()

    assert main([*words, "--backend", "tensorflow"]) == 1
    assert "unknown backend 'tensorflow'; choose auto, onnx" in capsys.readouterr().err

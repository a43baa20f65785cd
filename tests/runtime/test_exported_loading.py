import json

import numpy as np
import pytest
from exported_folders import write_folder

import edgeseg
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.export_manifest import hash_of, read_export, write_export
from edgeseg.manifest import MANIFEST_NAME
from edgeseg.prompts import Prompt
from edgeseg.runtime import loading
from edgeseg.runtime.loading import find_export
from edgeseg.signature import PromptSlots


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A folder of released models with one model, `small`, that has weights only."""
    folder = tmp_path / "models"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / MANIFEST_NAME).write_text("not read\n")
    monkeypatch.setattr(loading, "RELEASED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_folder_becomes_a_segmenter_whose_mask_is_where_the_prompt_says(tmp_path):
    segmenter = edgeseg.load(write_folder(tmp_path), threads=1)
    encoded = segmenter.encode(np.full((32, 64, 3), 120, np.uint8))

    # Token 0 of a box: w is 4 and 5, so sum(w x) = 5 x 30 = 150 and sum(w y) = 5 x 6 = 30. The
    # logits 150 - 3 X + 7 (30 - 3 Y) are above zero where 21 Y < 360 - 3 X.
    masks = segmenter.segment(encoded, Prompt(box_xyxy=[0, 0, 30, 6]))

    assert isinstance(segmenter, edgeseg.Segmenter)
    assert segmenter.backend.runs_on == {"encoder": ("cpu",), "decoder": ("cpu",)}
    assert isinstance(masks, edgeseg.Masks)
    assert masks.masks.shape == (1, 32, 64)
    assert masks.scores.tolist() == [9.0]
    assert masks.masks[0, 15, 0]  # 360 / 21 = 17.1
    assert not masks.masks[0, 19, 0]
    assert masks.masks[0, 6, 63]  # (360 - 3 x 63) / 21 = 8.1
    assert not masks.masks[0, 10, 63]


def test_a_folder_may_be_text_or_a_path_and_is_run_by_the_backend_asked_for(tmp_path):
    pytest.importorskip("openvino")
    folder = write_folder(tmp_path)

    places = [
        edgeseg.load(str(folder), backend=backend).backend.runs_on["encoder"][0].strip("()")
        for backend in ("auto", "onnx", "onnx:cpu", "openvino", "openvino:AUTO")
    ]

    # ONNX Runtime's short name and OpenVINO's device
    assert places == ["cpu"] * 3 + ["CPU"] * 2


def test_strict_refuses_a_provider_that_is_not_there(tmp_path):
    folder = write_folder(tmp_path)

    with pytest.raises(ConfigError, match="provider tensorrt is not part of this onnxruntime"):
        edgeseg.load(folder, backend="onnx:tensorrt", strict=True)
    with pytest.warns(RuntimeWarning, match="provider tensorrt is not part of this onnxruntime"):
        edgeseg.load(folder, backend="onnx:tensorrt")


@pytest.mark.parametrize(
    ("image_size", "slots", "expected"),
    [
        (512, PromptSlots(), 8),
        (1024, PromptSlots(), 2),  # four times the cells of a mask
        (64, PromptSlots(), 8),  # more would leave the cache
        (1024, PromptSlots(num_prompts=16), 64),  # split by the backend, or 14 of 16 rows were idle
        (2048, PromptSlots(), 1),
    ],
)
def test_few_prompts_are_decoded_at_a_time_on_a_cpu(tmp_path, image_size, slots, expected):
    segmenter = edgeseg.load(write_folder(tmp_path, image_size=image_size, slots=slots))

    assert segmenter.max_prompts_a_call == expected
    assert segmenter.backend.slots == slots


def test_threads_reach_the_backend(tmp_path):
    folder = write_folder(tmp_path)

    for backend in ("onnx", "openvino"):
        with pytest.raises(ConfigError, match="threads must be 1 or more, got 0"):
            edgeseg.load(folder, backend=backend, threads=0)


def test_a_released_model_is_found_by_name_or_folder_with_its_best_export(released):
    small = released / "small"
    for folder, precision, more in (
        ("a_int8", "int8", {}),
        ("z_half", "float16", {}),
        ("b_odd", "int4", {}),
        ("a_coreml", "float32", {"format": "coreml"}),
    ):
        write_folder(small / folder, precision=precision, **more)
    for name in ("small", small):
        assert find_export(name) == small / "z_half"
    assert find_export("small", "coreml") == small / "a_coreml"

    write_folder(small / "x_full")
    assert find_export("small") == small / "x_full"
    write_folder(small / "onnx_fp32", precision="float16")
    assert find_export("small", "openvino") == small / "onnx_fp32"
    assert edgeseg.load("small").backend.name == "tiny_pair"


def test_exports_that_are_for_other_programs_are_passed_over(released):
    small = released / "small"
    write_folder(small / "z_ours", precision="int8")
    write_folder(small / "fused")
    manifest = read_export(small / "fused")
    write_export(small / "fused", manifest.model_copy(update={"files": manifest.files[:1]}))
    write_folder(small / "sam")
    text = (small / "sam" / "export.json").read_text()
    (small / "sam" / "export.json").write_text(text.replace("points_xy_model", "point_coords"))

    assert find_export("small") == small / "z_ours"


def test_a_model_with_weights_only_says_what_to_run(released):
    weights = released / "other.safetensors"
    weights.write_bytes(b"weights")

    assert find_export("small") is None
    with pytest.raises(
        WeightsError,
        match=r"small has no exported files that backend 'auto' runs; "
        r"run: edgeseg export small small-export; then load 'small-export'$",
    ):
        edgeseg.load("small")
    with pytest.raises(WeightsError, match=r"edgeseg export .*other\.safetensors other-export; th"):
        edgeseg.load(weights)


def test_an_unknown_name_lists_the_released_models(released):
    for name in ("nonesuch", "", "..", "models", str(released), released / "absent"):
        with pytest.raises(WeightsError, match=r"no model '.*': .* nor a released model \(small\)"):
            edgeseg.load(name)


def test_a_file_inside_an_exported_folder_is_answered_by_its_folder(tmp_path):
    folder = write_folder(tmp_path / "out")

    for name in ("encoder.onnx", "export.json"):
        with pytest.raises(
            WeightsError, match=r"one file of an exported model; give its folder, .*out"
        ):
            edgeseg.load(folder / name)


def test_an_unknown_backend_is_refused(tmp_path):
    folder = write_folder(tmp_path)

    for backend in ("tensorflow", "auto:cuda", "", "ONNX"):
        with pytest.raises(
            ConfigError, match=rf"unknown backend '{backend}'; choose auto, onnx, o"
        ):
            edgeseg.load(folder, backend=backend)


def test_torch_is_answered_by_the_lines_to_write_and_they_work(tmp_path):
    torch = pytest.importorskip("torch")
    from edgeseg.modeling.checkpoints import save_weights
    from edgeseg.modeling.registry import build_model

    torch.manual_seed(0)
    save_weights(build_model("edgeseg_tiny"), tmp_path / "tiny.safetensors")

    with pytest.raises(ConfigError) as raised:
        edgeseg.load(tmp_path / "tiny.safetensors", backend="torch")

    lines = str(raised.value).split("write: ")[1]
    space = {"edgeseg": edgeseg}
    exec(lines, space)
    assert space["segmenter"].backend.name == "edgeseg_tiny"


def test_a_damaged_manifest_or_file_is_named(tmp_path):
    folder = write_folder(tmp_path)
    path = folder / "encoder.onnx"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(WeightsError, match=r"encoder\.onnx is damaged or was replaced"):
        edgeseg.load(folder)

    assert json.loads((folder / "export.json").read_text())["files"][0]["sha256"] != hash_of(path)
    (folder / "export.json").write_text("{")
    with pytest.raises(WeightsError, match=r"export\.json is no valid export manifest"):
        edgeseg.load(folder)


def test_a_model_of_another_format_is_run_by_the_backend_of_that_format(tmp_path, monkeypatch):
    import sys

    from edgeseg.errors import PlatformError

    monkeypatch.setattr(sys, "platform", "linux")
    folder = write_folder(tmp_path, format="coreml")

    for backend in ("auto", "coreml", "coreml:cpu_only"):
        with pytest.raises(PlatformError, match="Core ML runs on macOS, this is linux"):
            edgeseg.load(folder, backend=backend)
    with pytest.raises(ConfigError, match="unknown compute units 'npu'"):
        edgeseg.load(folder, backend="coreml:npu")

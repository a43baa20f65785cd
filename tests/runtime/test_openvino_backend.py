import builtins
import threading

import numpy as np
import pytest
from exported_folders import expected_answers, write_folder

from edgeseg.errors import ConfigError, MissingExtraError, WeightsError
from edgeseg.export_manifest import hash_of, read_export, write_export
from edgeseg.runtime import Segmenter
from edgeseg.runtime.onnx_backend import open_onnx
from edgeseg.runtime.openvino_backend import open_openvino
from edgeseg.signature import PromptSlots

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 30, 3), np.uint8)
POINTS_XY = RNG.integers(0, 64, (3, 2, 2)).astype(np.float32)
LABELS = np.array([[1, -2], [2, 3], [0, 1]])
MASKS = RNG.normal(size=(3, 1, 16, 16)).astype(np.float32)
HAS_MASK = np.array([True, False, True])


def test_without_openvino_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "openvino":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(MissingExtraError, match=r"run: pip install 'edgeseg\[openvino\]'"):
        open_openvino(write_folder(tmp_path))


@pytest.mark.parametrize(
    ("options", "atol"),
    [
        pytest.param({}, 1e-3, id="any number of prompts"),
        pytest.param({"slots": PromptSlots(2, 3)}, 1e-3, id="fixed slots"),
        pytest.param({"label_dtype": "int32"}, 1e-3, id="int32 labels"),
        pytest.param({"dtype": "float16"}, 1.0, id="float16"),
        pytest.param({"normalises": True}, 1e-3, id="bytes in"),
        pytest.param({"high_res": True}, 1e-3, id="high-resolution features"),
    ],
)
def test_openvino_answers_like_onnx_runtime(tmp_path, options, atol):
    pytest.importorskip("openvino")
    folder = write_folder(tmp_path, **options)
    ours, theirs = (Segmenter(kind(folder)) for kind in (open_openvino, open_onnx))

    features, expected = (each.encode(IMAGE).features for each in (ours, theirs))
    answers, expected_pair = (
        each.backend.decode(expected, POINTS_XY, LABELS, MASKS, HAS_MASK) for each in (ours, theirs)
    )

    assert (ours.backend.name, ours.backend.image_size) == ("tiny_pair", 64)
    assert len(features) == len(expected)
    for one, other in zip(features, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=2e-3 if atol == 1.0 else 1e-5)
    for one, other in zip(answers, expected_pair, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def test_prompts_without_masks_are_answered_by_the_formula(tmp_path):
    pytest.importorskip("openvino")
    backend = open_openvino(write_folder(tmp_path), threads=1)
    features = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)

    logits, scores = backend.decode((features,), POINTS_XY, LABELS, None, None)

    expected = expected_answers(features, POINTS_XY, LABELS)
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores, expected[1], rtol=0, atol=1e-5)
    assert backend.runs_on == {"encoder": ("CPU",), "decoder": ("CPU",)}


def test_threads_get_the_answers_of_one_thread(tmp_path):
    pytest.importorskip("openvino")
    backend = open_openvino(write_folder(tmp_path), threads=1)
    features = [RNG.normal(size=(1, 3, 4, 4)).astype(np.float32) for _ in range(4)]
    results = {}

    def work(number):
        for turn in range(20):
            results[number, turn] = backend.decode(
                (features[number],), POINTS_XY, LABELS, None, None
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 80
    for (number, _), (logits, _) in results.items():
        expected = expected_answers(features[number], POINTS_XY, LABELS)[0]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)


def test_a_device_or_number_of_threads_that_cannot_be_is_refused(tmp_path):
    pytest.importorskip("openvino")
    folder = write_folder(tmp_path)

    with pytest.raises(ConfigError, match=r"has no device 'XPU' here; choose AUTO or .*CPU"):
        open_openvino(folder, device="XPU")
    with pytest.raises(ConfigError, match="threads must be 1 or more, got 0"):
        open_openvino(folder, threads=0)


def test_a_file_that_openvino_cannot_read_is_one_error(tmp_path):
    pytest.importorskip("openvino")
    folder = write_folder(tmp_path)
    path = folder / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-200])
    manifest = read_export(folder, check_hashes=False)
    broken = manifest.files[1].model_copy(update={"sha256": hash_of(path)})
    write_export(folder, manifest.model_copy(update={"files": (manifest.files[0], broken)}))

    with pytest.raises(
        WeightsError, match=r"OpenVINO cannot run .*decoder\.onnx on CPU: .*; expor"
    ):
        open_openvino(folder)

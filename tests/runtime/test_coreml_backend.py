import builtins
import sys
import threading

import numpy as np
import onnxruntime
import pytest
from exported_folders import expected_answers, write_folder

from edgeseg.errors import ConfigError, MissingExtraError, PlatformError, WeightsError
from edgeseg.export_manifest import read_export, write_export
from edgeseg.runtime import Segmenter
from edgeseg.runtime.coreml_backend import load_mlmodel, open_coreml
from edgeseg.runtime.onnx_backend import open_onnx
from edgeseg.signature import PromptSlots

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 30, 3), np.uint8)


class Package:
    """Stands for an MLModel: pictures in, arrays out, one thread at a time."""

    def __init__(self, path, compute_units):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.compute_units = compute_units
        self.seen = []
        self._busy = threading.Lock()

    def predict(self, data):
        assert self._busy.acquire(blocking=False), "two threads in one model"
        try:
            self.seen.append(data)
            feeds = {name: np.asarray(value) for name, value in data.items()}
            names = [tensor.name for tensor in self.session.get_outputs()]
            return dict(zip(names, self.session.run(None, feeds), strict=True))
        finally:
            self._busy.release()


@pytest.fixture
def packages():
    return []


@pytest.fixture
def load_package(packages):
    def load(path, compute_units):
        packages.append(Package(path, compute_units))
        return packages[-1]

    return load


def test_answers_are_those_of_the_same_graphs_in_onnx_runtime(tmp_path, load_package, packages):
    options = {"slots": PromptSlots(2, 3), "label_dtype": "int32"}
    coreml = write_folder(tmp_path / "coreml", format="coreml", **options)
    backend = open_coreml(coreml, "cpu_and_ne", load_package)
    theirs = open_onnx(write_folder(tmp_path / "onnx", **options))
    features = Segmenter(backend).encode(IMAGE).features
    points_xy, labels = np.float32([[[3, 40], [9, 2]]] * 5), np.array([[1, -2]] * 5)

    answers = backend.decode(features, points_xy, labels, None, None)

    np.testing.assert_array_equal(features[0], Segmenter(theirs).encode(IMAGE).features[0])
    expected = expected_answers(features[0], points_xy, labels)
    np.testing.assert_allclose(answers[0], expected[0], atol=1e-3)
    np.testing.assert_allclose(answers[1], expected[1], atol=1e-5)
    assert [package.compute_units for package in packages] == ["cpu_and_ne"] * 2
    assert packages[1].seen[0]["point_labels"].dtype == np.int32


def test_an_encoder_that_normalises_gets_a_picture(tmp_path, load_package, packages):
    pytest.importorskip("PIL")
    folder = write_folder(tmp_path, format="coreml", normalises=True)

    Segmenter(open_coreml(folder, load_model=load_package)).encode(IMAGE)

    picture = packages[0].seen[0]["image_rgb"]
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.getpixel((63, 63)) == (124, 116, 104)


def test_threads_take_turns(tmp_path, load_package):
    backend = open_coreml(write_folder(tmp_path, format="coreml"), load_model=load_package)
    pixels = np.zeros((1, 3, 64, 64), np.float32)
    results = []

    def work():
        results.extend(backend.encode(pixels)[0].shape for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [(1, 3, 4, 4)] * 200


def test_elsewhere_than_on_macos_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")

    with pytest.raises(PlatformError, match=r"runs on macOS, this is linux; export an ONNX target"):
        open_coreml(write_folder(tmp_path, format="coreml"))


def test_without_coremltools_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "coremltools":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(MissingExtraError, match=r"run: pip install 'edgeseg\[export\]'"):
        load_mlmodel(tmp_path / "encoder.mlpackage", "all")


def test_unknown_compute_units_and_another_format_are_refused(tmp_path, load_package):
    folder = write_folder(tmp_path / "coreml", format="coreml")
    with pytest.raises(ConfigError, match=r"unknown compute units 'npu'; choose one of all, cpu_o"):
        open_coreml(folder, "npu", load_package)

    folder = write_folder(tmp_path / "onnx")
    with pytest.raises(
        WeightsError, match=r"holds onnx files, this backend runs coreml; load it w"
    ):
        open_coreml(folder, load_model=load_package)


def test_a_package_that_changed_is_refused(tmp_path, load_package):
    folder = write_folder(tmp_path, format="coreml")
    manifest = read_export(folder)
    decoder = manifest.files[1].model_copy(update={"path": "decoder.mlpackage"})
    package = folder / "decoder.mlpackage" / "Data"
    package.mkdir(parents=True)
    (folder / "decoder.onnx").rename(package / "model.mlmodel")
    write_export(folder, manifest.model_copy(update={"files": (manifest.files[0], decoder)}))

    with pytest.raises(WeightsError, match=r"decoder\.mlpackage is damaged or was replaced"):
        open_coreml(folder, load_model=load_package)

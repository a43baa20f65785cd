import json
import os
import sys

import numpy as np
import onnxruntime
import pytest

from edgeseg.inspection.health import import_probe, probes
from edgeseg.inspection.health.findings import Finding
from edgeseg.inspection.health.probes import Loaded, judge, load, load_all


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a module that a process of its own can import."""

    def put(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


@pytest.fixture
def driver(monkeypatch):
    """Say whether there is an NVIDIA driver."""

    def put(there):
        monkeypatch.setattr(probes, "has_nvidia_driver", lambda: there)

    return put


def test_a_module_that_loads_has_no_error_even_if_it_talks(package):
    package("talks", "print('edgeseg-probe: not this', end='')")

    assert load("talks", 30) == Loaded("talks")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('a\\n   b')", "ValueError: a b"),
        ("import os, sys; sys.stderr.write('oh no\\n'); os._exit(7)", "status 7: oh no"),
    ],
)
def test_a_module_that_breaks_gives_the_reason(package, source, error):
    package("breaks", source)

    loaded = load("breaks", 30)

    assert loaded.error.endswith(error)
    assert not loaded.timed_out


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_module_that_crashes_gives_the_name_of_the_signal(package):
    package("crashes", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

    assert load("crashes", 30).error == "the process was ended by SIGSEGV: no message"


def test_a_module_that_hangs_is_not_waited_for(package):
    package("hangs", "import time; time.sleep(600)")

    assert load("hangs", 0.5) == Loaded("hangs", timed_out=True)


def test_several_modules_are_given_in_order(package):
    package("fine", "")

    found = load_all(["fine", "nowhere_at_all"], 30, at_once=2)

    assert [each.module for each in found] == ["fine", "nowhere_at_all"]
    assert [bool(each.error) for each in found] == [False, True]
    assert load_all([], 1, 1) == []


def test_no_folder_that_happens_to_be_the_working_one_shadows_a_package(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('shadow')")
    monkeypatch.chdir(tmp_path)

    assert load("json", 30) == Loaded("json")


def test_the_probe_answers_in_one_line_of_json(package, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(cuda="13.0", devices=[]))

    assert json.loads(json.dumps(import_probe.probe("torch"))) == {
        "devices": ["cpu"],
        "missing": ["cuda (built for 13.0)"],
        "warnings": ["driver too old"],
    }


class FakeTorch:
    """Has what is asked of torch."""

    def __init__(self, cuda, devices, mps=False):
        self.cuda = self
        self.version = type("Version", (), {"cuda": cuda, "hip": None})
        self.backends = type(
            "Backends", (), {"mps": type("MPS", (), {"is_available": lambda: mps})}
        )
        self._devices = devices

    def is_available(self):
        if not self._devices:
            import warnings

            warnings.warn("driver too old", UserWarning, stacklevel=1)
        return bool(self._devices)

    def device_count(self):
        return len(self._devices)

    def get_device_properties(self, index):
        name, memory = self._devices[index]
        return type("Properties", (), {"name": name, "total_memory": memory})


def test_devices_of_torch_have_names_and_memory():
    torch = FakeTorch("13.0", [("A", 8e9), ("B", 80.4e9)], mps=True)

    devices, missing = import_probe.torch_devices(torch)

    assert devices == ["cpu", "cuda:0 A 8.0 GB", "cuda:1 B 80.4 GB", "mps"]
    assert missing == []


def test_a_provider_that_does_not_start_is_missing():
    class FakeRuntime:
        SessionOptions = onnxruntime.SessionOptions

        @staticmethod
        def get_available_providers():
            return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

        @staticmethod
        def InferenceSession(model, options, providers):  # noqa: N802
            assert providers != ["TensorrtExecutionProvider"]  # would compile for long
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    devices, missing = import_probe.onnxruntime_providers(FakeRuntime)

    assert devices == ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    assert missing == ["CUDAExecutionProvider"]


def test_the_graph_that_starts_providers_gives_back_what_it_gets():
    session = onnxruntime.InferenceSession(
        import_probe.IDENTITY_ONNX, providers=["CPUExecutionProvider"]
    )

    assert session.run(None, {"x": np.float32([2.5])})[0].tolist() == [2.5]


def test_a_package_that_cannot_be_loaded_is_a_problem_with_its_repair():
    found = judge(Loaded("torch", "OSError: gone"), "torch", "pip install torch", 3)

    assert found == Finding(
        "torch works", "problem", "cannot be loaded: OSError: gone", "pip install torch"
    )


def test_a_package_that_takes_long_is_a_warning_that_says_how_to_wait(driver, monkeypatch):
    driver(True)
    found = judge(Loaded("openvino", timed_out=True), "openvino", "", 3)

    assert found.status == "warning"
    assert found.found == "still loading after 3 s, not waited for"
    assert found.advice == "edgeseg doctor --wait-s 60"


@pytest.mark.parametrize(
    ("there", "platform", "said"),
    [(False, "linux", True), (True, "linux", False), (False, "darwin", False)],
)
def test_without_a_driver_slow_torch_is_known_to_use_the_processor(
    driver, monkeypatch, there, platform, said
):
    driver(there)
    monkeypatch.setattr(sys, "platform", platform)

    found = judge(Loaded("torch", timed_out=True), "torch", "", 3)

    assert ("computes on the processor" in found.found) == said


def test_devices_are_told(driver):
    driver(False)
    loaded = Loaded("torch", devices=("cpu", "mps"), missing=("cuda (built for 13.0)",))

    assert judge(loaded, "torch", "", 3) == Finding("torch works", "ok", "on cpu, mps")
    assert judge(Loaded("cv2"), "opencv", "", 3) == Finding("opencv works", "ok", "loads")


def test_a_driver_that_torch_cannot_use_is_a_warning_with_its_reason(driver):
    driver(True)
    loaded = Loaded("torch", devices=("cpu",), missing=("cuda",), warnings=("driver too old",))

    found = judge(loaded, "torch", "", 3)

    assert found.status == "warning"
    assert found.found == "on cpu; built for cuda but cannot use it: driver too old"


@pytest.mark.parametrize(
    ("module", "advice"), [("torch", "pytorch.org"), ("onnxruntime", "onnxruntime-gpu")]
)
def test_a_build_without_cuda_beside_a_driver_is_a_warning(driver, module, advice):
    driver(True)

    found = judge(Loaded(module, devices=("cpu",)), module, "", 3)

    assert found.status == "warning"
    assert "this build has no CUDA" in found.found
    assert advice in found.advice


def test_a_build_with_cuda_beside_a_driver_is_ok(driver):
    driver(True)

    found = judge(Loaded("onnxruntime", devices=("CUDAExecutionProvider",)), "onnxruntime", "", 3)

    assert found.status == "ok"


def test_drivers_show_by_the_files_of_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(probes, "NVIDIA_DRIVERS", (tmp_path / "version",))

    assert not probes.has_nvidia_driver()
    (tmp_path / "version").write_text("")
    assert probes.has_nvidia_driver()

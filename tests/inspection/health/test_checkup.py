import sys
import time

import pytest
from packaging.requirements import Requirement

from edgeseg.inspection.health import checkup, installed, places, probes
from edgeseg.inspection.health.declared import Declared
from edgeseg.inspection.health.findings import Finding
from edgeseg.inspection.health.probes import Loaded


@pytest.fixture
def asked(monkeypatch):
    """Let nothing be loaded or hashed, and note what was asked for."""
    noted = {}

    def load_all(modules, wait_s, at_once):
        noted.update(modules=sorted(modules), wait_s=wait_s, at_once=at_once)
        return [Loaded(module) for module in modules]

    def check_models(thorough):
        noted["thorough"] = thorough
        return []

    monkeypatch.setattr(probes, "load_all", load_all)
    monkeypatch.setattr(places, "check_models", check_models)
    monkeypatch.setattr(checkup, "_is_there", lambda module: True)
    declared = Declared(
        ">=3.11", (), (Requirement("opencv-python-headless>=4"),),
        {"export": (Requirement("onnx>=1.17"),), "dev": (Requirement("ruff>=0.9"),)},
    )  # fmt: skip
    about = Finding("edgeseg", "ok", "here")
    monkeypatch.setattr(installed, "read_declared", lambda: (declared, about))
    return noted


def test_everything_is_looked_at_in_order(asked):
    checks = [each.check for each in checkup.examine()]

    assert checks[:4] == ["edgeseg", "Python", "opencv-python-headless", "onnx"]
    assert checks[-5:] == [
        "processor cores", "memory", "working folder", "temporary files", "EDGESEG_DATA",
    ]  # fmt: skip
    assert "torch works" in checks


def test_a_quick_look_loads_few_packages_all_at_once_and_briefly(asked):
    checkup.examine()

    assert asked["modules"] == ["cv2", "onnxruntime", "openvino", "safetensors", "torch"]
    assert (asked["wait_s"], asked["at_once"], asked["thorough"]) == (3.0, 5, False)


def test_a_thorough_look_loads_all_but_the_tools_of_development(asked):
    checkup.examine(thorough=True)

    assert asked["modules"] == ["cv2", "onnx", "onnxruntime", "openvino", "safetensors", "torch"]
    assert (asked["wait_s"], asked["thorough"]) == (300.0, True)


def test_the_time_to_wait_can_be_given(asked):
    checkup.examine(wait_s=60)

    assert asked["wait_s"] == 60


def test_a_package_that_is_absent_is_not_loaded(asked, monkeypatch):
    monkeypatch.setattr(checkup, "_is_there", lambda module: module == "cv2")

    findings = checkup.examine()

    assert asked["modules"] == ["cv2"]
    assert "torch works" not in [each.check for each in findings]


def test_a_broken_package_is_a_problem_with_the_command_of_its_range(asked, monkeypatch):
    monkeypatch.setattr(
        probes,
        "load_all",
        lambda modules, wait_s, at_once: [Loaded(m, "OSError: x") for m in modules],
    )

    advice = {each.check: each.advice for each in checkup.examine() if each.status == "problem"}

    again = "python -m pip install --force-reinstall"
    assert advice["opencv-python-headless works"] == f"{again} 'opencv-python-headless>=4'"
    assert advice["torch works"] == f"{again} torch"  # no extra of this EdgeSeg declares it


def test_without_packaging_the_rest_is_still_looked_at(asked, monkeypatch):
    monkeypatch.delitem(sys.modules, "edgeseg.inspection.health.installed")
    monkeypatch.delattr("edgeseg.inspection.health.installed")
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    monkeypatch.delitem(sys.modules, "edgeseg.inspection.health.declared")

    first, *others = checkup.examine()

    assert (first.check, first.status) == ("packages", "problem")
    assert "packaging" in first.found
    assert {"torch works", "memory"} <= {each.check for each in others}


def test_packages_load_while_the_rest_is_looked_at(asked, monkeypatch):
    started = []

    def load_all(modules, wait_s, at_once):
        started.append(time.monotonic())
        time.sleep(0.2)
        return [Loaded(module) for module in modules]

    def check_models(thorough):
        time.sleep(0.1)
        assert started  # the processes were there before
        return []

    monkeypatch.setattr(probes, "load_all", load_all)
    monkeypatch.setattr(places, "check_models", check_models)

    assert not [each for each in checkup.examine() if each.check == "models"]


def test_a_module_below_an_absent_package_is_absent():
    assert not checkup._is_there("nowhere_at_all.inner")
    assert not checkup._is_there("nowhere_at_all")
    assert checkup._is_there("json")

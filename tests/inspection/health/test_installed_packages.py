from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from edgeseg.inspection.health import installed
from edgeseg.inspection.health.declared import Declared
from edgeseg.inspection.health.findings import Finding

PYTHON = Declared(">=3.11", ("3.11", "3.12"), (), {})


def needing(*base, **extras):
    return Declared(
        ">=3.11",
        ("3.11",),
        tuple(map(Requirement, base)),
        {name: tuple(map(Requirement, each)) for name, each in extras.items()},
    )


@pytest.fixture
def having(monkeypatch):
    """Make these packages the installed ones; an exception stands for damaged metadata."""

    def put(**versions):
        packages = {name.replace("_", "-"): version for name, version in versions.items()}

        def installed_versions(names):
            (name,) = names
            if isinstance(packages.get(name), Exception):
                raise packages[name]
            return {name: packages[name]} if name in packages else {}

        monkeypatch.setattr(installed, "installed_versions", installed_versions)

    return put


def test_a_version_inside_its_range_is_ok(having):
    having(numpy="2.4.6")

    found = list(installed.check_packages(needing("numpy<3,>=1.26")))

    assert found == [Finding("numpy", "ok", "2.4.6 (>=1.26,<3)")]


def test_builds_and_pre_releases_count_by_their_version(having):
    having(torch="2.14.1+cu130", timm="1.1.0rc1")

    found = installed.check_packages(needing("torch>=2.6,<2.15", "timm>=1.0.15,<2"))

    assert [each.status for each in found] == ["ok", "ok"]


def test_an_older_version_is_a_problem_and_a_newer_one_a_warning(having):
    having(numpy="1.25.2", rich="16.0")

    old, new = installed.check_packages(needing("numpy>=1.26,<3", "rich>=13.7,<16"))

    assert old == Finding(
        "numpy",
        "problem",
        "1.25.2 is too old, needed is >=1.26,<3",
        "python -m pip install 'numpy>=1.26,<3'",
    )
    assert (new.status, new.found) == ("warning", "16.0 is newer than the tested >=13.7,<16")
    assert new.advice == "should anything fail: python -m pip install 'rich>=13.7,<16'"


def test_a_missing_package_of_the_base_is_a_problem_with_its_line(having):
    having()

    (found,) = installed.check_packages(needing("numpy>=1.26,<3"))

    line = "python -m pip install 'numpy>=1.26,<3'"
    assert found == Finding("numpy", "problem", "not installed", line)


def test_missing_packages_of_an_extra_are_one_warning_with_the_line_of_the_extra(having):
    having(onnx="1.18")

    present, missing = installed.check_packages(
        needing(export=["onnx>=1.17", "onnxsim>=0.4", "coremltools>=9"])
    )

    assert present.check == "onnx"
    assert missing == Finding(
        "extra export",
        "warning",
        "not installed, optional: onnxsim, coremltools",
        "python -m pip install 'edgeseg[export]'",
    )


def test_a_package_of_two_extras_is_reported_once(having):
    having(matplotlib="3.10")

    found = list(
        installed.check_packages(needing(train=["matplotlib>=3.9"], bench=["matplotlib>=3.9"]))
    )

    assert [each.check for each in found] == ["matplotlib"]


@pytest.mark.parametrize("version", ["", None, "unknown", KeyError("Version")])
def test_damaged_metadata_is_a_problem_and_not_a_crash(having, version):
    having(numpy=version)

    (found,) = installed.check_packages(needing("numpy>=1.26,<3"))

    assert found.status == "problem"
    assert found.found.startswith("installed, but its metadata states ")
    assert found.advice == ("python -m pip install --force-reinstall --no-deps 'numpy>=1.26,<3'")


def test_a_package_in_place_of_another_is_held_to_the_same_range(having):
    having(onnxruntime_gpu="1.19")

    (found,) = installed.check_packages(needing("onnxruntime>=1.20,<2"))

    assert found == Finding(
        "onnxruntime",
        "problem",
        "onnxruntime-gpu 1.19 is too old, needed is >=1.20,<2",
        "python -m pip install 'onnxruntime-gpu>=1.20,<2'",
    )


def test_two_packages_with_one_module_are_a_warning_that_keeps_the_one_somebody_chose(having):
    having(onnxruntime="1.22", onnxruntime_gpu="1.21")

    (found,) = installed.check_packages(needing("onnxruntime>=1.20,<2"))

    assert found.status == "warning"
    assert "onnxruntime 1.22, onnxruntime-gpu 1.21" in found.found
    assert found.advice == (
        "python -m pip uninstall -y onnxruntime onnxruntime-gpu && "
        "python -m pip install 'onnxruntime-gpu>=1.20,<2'"
    )


def test_the_command_that_installs_again_names_the_range():
    expected = "python -m pip install --force-reinstall 'onnx>=1.17,<2'"

    assert installed.reinstall(Requirement("onnx<2,>=1.17")) == expected


def test_a_range_without_bounds_is_written_as_nothing():
    assert installed.ordered(SpecifierSet("")) == ""


@pytest.mark.parametrize(
    ("version", "status", "text"),
    [
        ("3.12.4", "ok", "3.12.4 ("),
        ("3.10.9", "problem", "must be >=3.11"),
        ("3.13.0", "warning", "tested are 3.11, 3.12"),
        ("3.1.1", "problem", "must be >=3.11"),  # not 3.11
    ],
)
def test_python_is_compared_with_what_is_accepted_and_tested(version, status, text):
    found = installed.check_python(PYTHON, version)

    assert (found.check, found.status) == ("Python", status)
    assert text in found.found
    assert ("Python 3.12" in found.advice) == (status != "ok")


def test_requirements_come_from_the_checkout_and_an_old_installation_is_a_warning(
    tmp_path, monkeypatch
):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "edgeseg"\ndependencies = ["numpy>=2"]'
    )
    monkeypatch.setattr(installed, "read_metadata", lambda: needing("numpy>=1.26"))

    declared, found = installed.read_declared(tmp_path)

    assert [str(each) for each in declared.base] == ["numpy>=2"]
    assert (found.check, found.status) == ("edgeseg", "warning")
    assert found.found.endswith("has changed since it was installed: numpy")
    assert found.advice == f"python -m pip install -e '{tmp_path}[all]'"


def test_a_checkout_that_was_never_installed_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "edgeseg"')

    def absent():
        raise metadata.PackageNotFoundError("edgeseg")

    monkeypatch.setattr(installed, "read_metadata", absent)

    _, found = installed.read_declared(tmp_path)

    assert (found.status, found.found.rpartition(", ")[2]) == ("warning", "not installed")


def test_an_installed_wheel_is_ok_and_declares_by_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "read_metadata", lambda: needing("numpy>=1.26"))

    declared, found = installed.read_declared(tmp_path)

    assert [str(each) for each in declared.base] == ["numpy>=1.26"]
    assert (found.status, found.advice) == ("ok", "")


def test_without_metadata_and_checkout_nothing_is_known(tmp_path, monkeypatch):
    def absent():
        raise metadata.PackageNotFoundError("edgeseg")

    monkeypatch.setattr(installed, "read_metadata", absent)

    with pytest.raises(RuntimeError, match=r"neither metadata nor a pyproject\.toml.*with pip"):
        installed.read_declared(tmp_path)

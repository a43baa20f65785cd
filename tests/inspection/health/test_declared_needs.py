from importlib import metadata

import pytest
from packaging.requirements import InvalidRequirement

from edgeseg.inspection.health.declared import read_metadata, read_pyproject

PYPROJECT = """
[project]
name = "edgeseg"
requires-python = ">=3.11"
classifiers = ["Topic :: X", "Programming Language :: Python :: 3", "Programming Language :: Python :: 3.11"]
dependencies = ["numpy>=1.26,<3", "colorama>=1; sys_platform == 'nowhere'"]

[project.optional-dependencies]
export = ["onnx>=1.17,<2"]
all = ["edgeseg[export]"]
"""  # noqa: E501
METADATA = """Metadata-Version: 2.4
Name: edgeseg
Version: 0.1.0
Classifier: Programming Language :: Python :: 3.11
Requires-Python: >=3.11
Requires-Dist: numpy<3,>=1.26
Requires-Dist: colorama>=1; sys_platform == 'nowhere'
Provides-Extra: export
Requires-Dist: onnx<2,>=1.17; extra == 'export'
Provides-Extra: all
Requires-Dist: onnx<2,>=1.17; extra == 'all'
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a metadata text that of the installed EdgeSeg."""

    def put(text):
        folder = tmp_path / "edgeseg-0.1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text)
        found = metadata.Distribution.at(folder)
        monkeypatch.setattr(metadata, "metadata", lambda name: found.metadata)

    return put


def test_a_checkout_declares_base_and_extras_of_this_platform(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)

    declared = read_pyproject(tmp_path)

    assert declared.requires_python == ">=3.11"
    assert declared.tested_pythons == ("3.11",)  # "3" alone is no version that could be tested
    assert [each.name for each in declared.base] == ["numpy"]
    assert {name: [e.name for e in each] for name, each in declared.extras.items()} == {
        "export": ["onnx"]
    }


def test_an_installation_declares_the_same(tmp_path, install):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    install(METADATA)

    declared = read_metadata()

    assert declared.differences(read_pyproject(tmp_path)) == []
    assert declared.tested_pythons == ("3.11",)
    assert [str(each.specifier.contains("1.25")) for each in declared.base] == ["False"]


def test_a_range_that_changed_and_a_package_that_is_new_are_named(tmp_path, install):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    install(
        METADATA.replace("onnx<2,>=1.17; extra == 'export'", "onnx<2,>=1.16; extra == 'export'")
    )

    assert read_metadata().differences(read_pyproject(tmp_path)) == ["onnx"]


def test_a_package_that_only_one_side_has_is_named_by_either(tmp_path, install):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace('"onnx>=1.17,<2"', ""))
    install(METADATA)
    stated, installed = read_pyproject(tmp_path), read_metadata()

    assert stated.differences(installed) == installed.differences(stated) == ["onnx"]


def test_a_package_that_moved_to_another_extra_is_a_difference(tmp_path, install):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("export = ", "convert = "))
    install(METADATA)

    assert read_metadata().differences(read_pyproject(tmp_path)) == ["onnx"]


def test_damaged_metadata_is_told_by_its_exception(install):
    install("Name: edgeseg\nRequires-Dist: numpy ==== 3\n")

    with pytest.raises(InvalidRequirement):
        read_metadata()


@pytest.mark.parametrize("text", [None, "[project]\nname = 'other'", "[tool.ruff]"])
def test_a_folder_of_something_else_is_no_checkout(tmp_path, text):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)

    assert read_pyproject(tmp_path) is None

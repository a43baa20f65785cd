import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edgeseg.cli import EXTRA_OF_MODULE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted((ROOT / "edgeseg").rglob("*.py"))

DISTRIBUTION_OF = {
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "google": "protobuf",
}
# What a user who has it may ask for; it insists on an OpenCV that the headless one excludes.
NEVER_INSTALLED = {"supervision"}
BASE_PARTS = {"runtime", "evaluation", "bench", "cli", "__init__.py", "__main__.py"}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements}


BASE = names_of(PROJECT["dependencies"])
EXTRAS = {
    name: names_of(requirements)
    for name, requirements in PROJECT["optional-dependencies"].items()
    if name not in ("all", "dev")
}


def distributions(nodes: list[ast.stmt] | list[ast.AST]) -> set[str]:
    """Return the packages that a list of statements imports, without Python's own and ours."""
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
    modules -= set(sys.stdlib_module_names) | {"edgeseg"}
    return {DISTRIBUTION_OF.get(module, module.replace("_", "-")) for module in modules}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_imported_package_is_a_declared_dependency(source):
    imported = distributions(list(ast.walk(ast.parse(source.read_text()))))

    assert imported <= BASE.union(*EXTRAS.values()) | NEVER_INSTALLED


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_parts_of_the_base_install_need_nothing_more_to_be_imported(source):
    first = source.relative_to(ROOT / "edgeseg").parts[0]
    if first not in BASE_PARTS and (ROOT / "edgeseg" / first).is_dir():
        return  # needs the extra `train`
    if first == "bench" and source.name.startswith("pytorch_"):
        return  # what times PyTorch is imported only where PyTorch is

    assert distributions(ast.parse(source.read_text()).body) <= BASE


def test_every_folder_with_modules_is_a_package_so_that_the_wheel_can_be_imported():
    folders = {source.parent for source in SOURCES}

    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_what_the_command_line_calls_an_extra_is_in_that_extra():
    named = set(EXTRA_OF_MODULE.values())

    assert {(package, extra) for package, extra in named if package not in EXTRAS[extra]} == set()
    assert {package for package, _ in named} == set().union(*EXTRAS.values())


def test_the_extra_all_brings_every_other_extra():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]

    assert everything == f"edgeseg[{','.join(name for name in extras if name != 'all')}]"


def test_the_console_script_leads_to_a_function():
    module, function = PROJECT["scripts"]["edgeseg"].split(":")

    assert callable(getattr(importlib.import_module(module), function))


def test_the_licence_is_the_one_the_project_declares():
    text = (ROOT / "LICENSE").read_text()

    assert PROJECT["license"] == "Apache-2.0"
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_a_place_for_the_next_change():
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "## [Unreleased]"


def test_the_check_script_is_valid_and_runs_every_check():
    script = ROOT / ".ci" / "run"
    text = script.read_text()

    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "set -euo pipefail" in text
    commands = [
        "python -m pip install -e '.[all]' && python -m pytest -n 2",
        "ruff check",
        "ruff format --check",
        "mypy",
        "python -m build --wheel",
        "edgeseg --help",
    ]
    assert [command for command in commands if command not in text] == []

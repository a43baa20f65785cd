import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.cli import build_app
from edgeseg.cli.bench import bench

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/adapting.md",
    "docs/benchmarking.md",
    "docs/browser.md",
    "docs/distilling.md",
    "docs/everything.md",
]
README = (ROOT / "README.md").read_text("utf-8")


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_ci_runs_the_test_command_of_the_readme_to_the_letter():
    (command,) = [line for line in shell_lines(README) if line.endswith("python -m pytest -n 2")]

    assert command in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_every_folder_and_file_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    folders = re.findall(r"^\| `([\w/]+/)`", README, re.MULTILINE)

    assert links
    assert folders
    assert [name for name in links + folders if not (ROOT / name).exists()] == []


def test_every_part_of_the_package_stands_in_the_file_map():
    parts = {path.parent.name for path in (ROOT / "edgeseg").glob("*/__init__.py")}

    assert parts <= set(re.findall(r"`edgeseg/(\w+)/`", README))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_documentation_exists(page):
    lines = shell_lines((ROOT / page).read_text("utf-8"))
    words = [match for line in lines for match in re.findall(r"(?:^|&& |-m )edgeseg (\w+)", line)]
    app = build_app()
    commands = {command.name for command in app.registered_commands}
    groups = {group.typer_instance.info.name for group in app.registered_groups}

    assert words
    assert set(words) <= commands | groups


def test_every_kind_of_measurement_in_the_documentation_exists():
    lines = [line for page in PAGES for line in shell_lines((ROOT / page).read_text("utf-8"))]
    words = {match for line in lines for match in re.findall(r"edgeseg bench (\w+)", line)}

    assert words == {command.name for command in bench.registered_commands}


def test_the_tables_of_both_readmes_are_those_of_the_committed_results():
    program = [sys.executable, ROOT / "benchmarks" / "render_tables.py", "--check"]

    run = subprocess.run(program, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr

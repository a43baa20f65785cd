import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeseg.bench.adb import AdbOptions
from edgeseg.bench.suite import SuiteConfig
from edgeseg.bench.tool_request import read_options
from edgeseg.bench.trtexec import PRECISION_FLAGS, TrtexecOptions

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "export" / "jetson" / "bench.sh"
README = (ROOT / "export" / "jetson" / "README.md").read_text("utf-8")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Install tools that note how they are called; returns the folder of the notes."""
    for tool in ("trtexec", "edgeseg", "nvpmodel", "jetson_clocks"):
        write_tool(tmp_path / tool, f'echo "{tool} $*" >> {tmp_path}/calls; exit 0')
    write_tool(tmp_path / "sudo", 'while [ "${1#-}" != "$1" ]; do shift; done; "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tool(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def bench(*arguments):
    return subprocess.run(
        ["bash", SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def calls(board):
    """Calls in order, with one word for the file whose name changes."""
    text = (board / "calls").read_text()
    return re.sub(r"/\S*/tmp\.\S+", "STORED", text).splitlines()


def test_the_script_locks_the_clocks_measures_and_restores_them(board):
    run = bench("--out", "orin.json")

    assert run.returncode == 0, run.stderr
    assert run.stdout == "wrote orin.json and orin.json.conditions.txt\n"
    suite = ROOT / "benchmarks" / "suites" / "jetson.toml"
    assert calls(board) == [
        "jetson_clocks --store STORED",
        "jetson_clocks ",
        "nvpmodel -q",
        "jetson_clocks --show",
        f"edgeseg bench run --suite {suite} --out orin.json",
        "nvpmodel -q",
        "jetson_clocks --show",
        "jetson_clocks --restore STORED",
    ]
    conditions = (board / "orin.json.conditions.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in conditions if "==" in line] == ["== before", "== after"]


def test_a_failed_run_restores_the_clocks_and_fails(board):
    write_tool(board / "edgeseg", "echo no such suite >&2; exit 1")

    run = bench()

    assert run.returncode == 1
    assert run.stderr == "no such suite\n"
    assert calls(board)[-1] == "jetson_clocks --restore STORED"


def test_clocks_can_be_kept(board):
    own = board / "own suite.toml"
    own.write_text("")

    assert bench("--keep-clocks", "--suite", str(own)).returncode == 0

    assert not {"jetson_clocks ", "jetson_clocks --restore STORED"} & set(calls(board))
    assert f"edgeseg bench run --suite {own} --out jetson.json" in calls(board)


@pytest.mark.parametrize(
    ("absent", "status", "message"),
    [
        ("trtexec", 3, "bench.sh: trtexec is not here; run: sudo apt install tensorrt"),
        ("edgeseg", 3, "bench.sh: edgeseg is not here; run: pip install"),
        ("jetson_clocks", 3, "bench.sh: jetson_clocks is not here; is this a Jetson? Give --keep"),
    ],
)
def test_what_is_not_installed_is_named(board, absent, status, message):
    (board / absent).unlink()

    run = bench()

    assert (run.returncode, run.stdout) == (status, "")
    assert run.stderr.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fast",), "bench.sh: unknown argument --fast"),
        (("--out",), "bench.sh: --out needs a file"),
    ],
)
def test_wrong_usage_is_status_two(board, arguments, message):
    run = bench(*arguments)

    assert run.returncode == 2
    assert run.stderr.startswith("usage: bench.sh")
    assert message in run.stderr
    assert not (board / "calls").exists()


def test_a_suite_that_cannot_be_read_is_named(board):
    run = bench("--suite", "none.toml")

    assert (run.returncode, run.stderr) == (1, "bench.sh: cannot read the suite none.toml\n")
    assert not (board / "calls").exists()


def test_help_is_printed():
    run = bench("--help")

    assert run.returncode == 0
    assert run.stdout.startswith("usage: bench.sh [--keep-clocks]")


@pytest.mark.parametrize(
    ("name", "driver", "options"),
    [("jetson", "trtexec", TrtexecOptions), ("android", "adb", AdbOptions)],
)
def test_the_suites_are_understood_by_their_drivers(name, driver, options):
    suite = SuiteConfig.read(ROOT / "benchmarks" / "suites" / f"{name}.toml")

    assert {contender.driver for contender in suite.contender} == {driver}
    assert {contender.model for contender in suite.contender} == {"edgesam", "edgeseg_s"}
    assert all(read_options(contender, options) for contender in suite.contender)
    assert not suite.cold_start  # these tools start nothing in a process of ours


def test_the_jetson_suite_has_float16_and_int8_of_each_model():
    suite = SuiteConfig.read(ROOT / "benchmarks" / "suites" / "jetson.toml")

    found = [
        (contender.model, contender.target, contender.options["precision"])
        for contender in suite.contender
    ]
    assert sorted(found) == [
        ("edgesam", "onnx_tensorrt", "float16"),
        ("edgesam", "onnx_tensorrt", "int8"),
        ("edgeseg_s", "onnx_tensorrt", "float16"),
        ("edgeseg_s", "onnx_tensorrt", "int8"),
    ]


@pytest.mark.parametrize("flag", [flag for flag in PRECISION_FLAGS.values() if flag])
def test_the_page_shows_the_command_of_every_precision(flag):
    commands = [line.split() for line in README.splitlines() if line.startswith("trtexec ")]
    fixed = ["--iterations=120", "--warmUp=200", "--duration=0", "--useSpinWait"]

    matching = [command for command in commands if flag in command]

    assert len(matching) >= 1
    for command in matching:
        assert command[-5:] == [*fixed, "--exportTimes=times.json"]


def test_the_page_says_that_nothing_ran_on_a_device():
    assert "**Not yet run on a device.**" in README
    assert "Not yet run on a device" in SCRIPT.read_text("utf-8")


def test_the_page_explains_every_option():
    for name in TrtexecOptions.model_fields:
        assert f"| `{name}` |" in README

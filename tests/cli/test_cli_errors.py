import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest
import typer

import edgeseg
import edgeseg.cli
from edgeseg.errors import DataError, DivergedError, missing_extra


@pytest.fixture
def install(monkeypatch):
    """Make `edgeseg probe` run a function, as if it stood in edgeseg/cli/probe.py."""

    def put(command: Callable[..., None]) -> None:
        module = types.ModuleType("edgeseg.cli.probe")
        module.probe = command
        monkeypatch.setitem(sys.modules, "edgeseg.cli.probe", module)
        monkeypatch.setattr(edgeseg.cli, "COMMANDS", ("probe",))

    return put


def raising(error: BaseException) -> Callable[[], None]:
    def probe() -> None:
        """Fail."""
        raise error

    return probe


def test_a_command_that_returns_gives_status_zero(install, capsys):
    def probe(count: int, scale: float = 0.5) -> None:
        typer.echo(count * scale)

    install(probe)

    assert edgeseg.cli.main(["probe", "3"]) == 0
    assert capsys.readouterr() == ("1.5\n", "")


@pytest.mark.parametrize("error", [DataError("no masks in a.json"), DivergedError("loss is nan")])
def test_an_error_of_ours_is_one_line_on_stderr_and_status_one(install, capsys, error):
    install(raising(error))

    assert edgeseg.cli.main(["probe"]) == 1
    assert capsys.readouterr() == ("", f"edgeseg: {error}\n")


def test_a_message_of_several_lines_is_joined_into_one(install, capsys):
    install(raising(DataError("missing keys:\n  a\n  b")))

    edgeseg.cli.main(["probe"])

    assert capsys.readouterr().err == "edgeseg: missing keys: a b\n"


def test_a_missing_extra_gives_its_command_and_status_three(install, capsys):
    install(raising(missing_extra("torch", "train")))

    assert edgeseg.cli.main(["probe"]) == 3
    expected = "edgeseg: torch is not installed; run: pip install 'edgeseg[train]'\n"
    assert capsys.readouterr().err == expected


def test_an_import_of_an_absent_optional_package_names_package_and_extra(
    install, capsys, monkeypatch
):
    def probe() -> None:
        import skimage  # noqa: F401

    class Absent:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "skimage":
                raise ModuleNotFoundError("No module named 'skimage'", name="skimage")

    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    install(probe)

    assert edgeseg.cli.main(["probe"]) == 3
    expected = "edgeseg: scikit-image is not installed; run: pip install 'edgeseg[train]'\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "bug",
    [
        ModuleNotFoundError("No module named 'edgeseg.nowhere'", name="edgeseg.nowhere"),
        ModuleNotFoundError("No module named 'torch.nowhere'", name="torch.nowhere"),
        ImportError("cannot import name 'x' from 'torch'", name="torch"),
        RuntimeError("shapes differ"),
    ],
)
def test_a_bug_of_ours_keeps_its_traceback(install, bug):
    install(raising(bug))

    with pytest.raises(type(bug)) as caught:
        edgeseg.cli.main(["probe"])

    assert caught.value is bug


@pytest.mark.parametrize(
    "arguments", [["probe", "--no-such-flag"], ["probe", "surplus"], ["no-such-command"], []]
)
def test_wrong_usage_gives_status_two_and_nothing_on_stdout_but_help(install, capsys, arguments):
    install(raising(AssertionError("the command must not run")))

    assert edgeseg.cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage: edgeseg" in out + err
    assert not (arguments and out)


def test_no_command_at_all_shows_the_help(install, capsys):
    install(raising(AssertionError("the command must not run")))

    edgeseg.cli.main([])

    assert "Commands:\n  probe  Fail." in "".join(capsys.readouterr())


def test_version_is_the_one_of_the_package(capsys):
    assert edgeseg.cli.main(["--version"]) == 0
    assert capsys.readouterr() == (f"edgeseg {edgeseg.__version__}\n", "")


def test_help_lists_every_command_with_its_first_line(capsys):
    assert edgeseg.cli.main(["--help"]) == 0

    out = capsys.readouterr().out
    lines = [line.split(maxsplit=1) for line in out.split("Commands:\n")[1].splitlines()]
    assert [line[0] for line in lines] == list(edgeseg.cli.COMMANDS)
    assert all(len(line) == 2 for line in lines)


def test_package_warnings_are_shown_once_and_information_is_not(install, capsys):
    def probe() -> None:
        logging.getLogger("edgeseg.data.records").warning("skipped %s", "a.jpg")
        logging.getLogger("edgeseg.data.records").info("read 3 images")

    install(probe)

    for _ in range(2):
        assert edgeseg.cli.main(["probe"]) == 0
        assert capsys.readouterr().err == "edgeseg: warning: skipped a.jpg\n"
    assert not logging.getLogger("edgeseg").handlers


def test_help_imports_no_torch_and_no_opencv():
    heavy = "{'torch', 'cv2', 'onnxruntime', 'pydantic', 'matplotlib'}"
    probe = (
        f"import sys, edgeseg.cli; edgeseg.cli.main(['--help']); sys.exit(bool({heavy} & "
        "set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_python_dash_m_passes_the_exit_status_on():
    run = subprocess.run(
        [sys.executable, "-m", "edgeseg", "no-such-command"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 2
    assert "No such command 'no-such-command'" in run.stderr


INTERRUPTED = """
import os, signal, sys, types
import edgeseg.cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may ignore it

def probe() -> None:
    os.kill(os.getpid(), signal.SIGINT)

sys.modules["edgeseg.cli.probe"] = types.SimpleNamespace(probe=probe)
edgeseg.cli.COMMANDS = ("probe",)
sys.exit(edgeseg.cli.main(["probe"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupting_gives_status_130_and_one_line():
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout, run.stderr) == (130, "", "edgeseg: interrupted\n")

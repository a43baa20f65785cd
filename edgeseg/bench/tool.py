"""Start a program that measures, wait for it, and say clearly what went wrong."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BenchError

_NUM_LAST_LINES = 6


@dataclass(frozen=True)
class ToolOutput:
    """What a program printed.

    Attributes:
        stdout: Standard output.
        stderr: Standard error.
    """

    stdout: str
    stderr: str = ""

    @property
    def last_lines(self) -> str:
        r"""The end of both, errors last, in one line.

        >>> ToolOutput("a\n\nb\n", "no GPU\n").last_lines
        'a | b | no GPU'
        """
        lines = [line.strip() for line in f"{self.stdout}\n{self.stderr}".splitlines()]
        return " | ".join([line for line in lines if line][-_NUM_LAST_LINES:]) or "nothing"


def run_tool(command: Sequence[str], time_limit_s: float) -> ToolOutput:
    """Run a program to its end, without input.

    Args:
        command: The program and its arguments.
        time_limit_s: After this many seconds it is stopped.

    Raises:
        BenchError: It cannot be started, did not end in time, or reported failure.
    """
    name, asked = Path(command[0]).name, shlex.join(command)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=time_limit_s,
            check=False,
        )
    except OSError as error:
        raise BenchError(
            f"cannot start {name}: {error.strerror or error}; install it, or correct the path"
        ) from error
    except subprocess.TimeoutExpired as error:
        printed = ToolOutput(_decoded(error.stdout), _decoded(error.stderr))
        raise BenchError(
            f"{name} did not end within {time_limit_s:g} s and was stopped; it printed last: "
            f"{printed.last_lines}; raise the option timeout_s, or look at: {asked}"
        ) from None
    output = ToolOutput(done.stdout, done.stderr)
    if done.returncode:
        raise BenchError(
            f"{name} failed with exit status {done.returncode}; it printed last: "
            f"{output.last_lines}; to see all of it run: {asked}"
        )
    return output


def _decoded(printed: bytes | str | None) -> str:
    """Return what was printed until the time was up, which Python gives as bytes."""
    return printed.decode("utf-8", "replace") if isinstance(printed, bytes) else printed or ""

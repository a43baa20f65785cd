"""What a check found, in the form that every check gives it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at, such as "numpy" or "temporary files".
        status: "problem" for what will fail, "warning" for what may, or is not installed.
        found: In words, with the figures.
        advice: What to do, as a command wherever there is one; empty if nothing.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


def guarded(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what checks find; one that fails is a finding as well, and the last.

    Args:
        check: What it looks at, for the finding of its failure.
        look: The checks.
    """
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except Exception as error:  # whatever is broken here is what is being looked for
        found = f"cannot be checked: {type(error).__name__}: {_first_line(error)}"
        advice = "repair what the message names; if that is EdgeSeg itself, install it again"
        findings.append(Finding(check, "problem", found, advice))
    return findings


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]

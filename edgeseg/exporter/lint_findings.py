"""What a linter says about a graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeseg.errors import ExportError

Runtime = Literal["neural_engine", "tensorrt", "webgpu"]
MAX_ON_CPU = 65_536
"""Numbers of a result that a CPU may compute among the work of another device. What prompts say is
smaller; what an image is made of is larger, and moving it to and fro costs more than is gained."""
_NUM_SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One operation that a runtime would not take, or that is worth knowing.

    Attributes:
        operation: Its kind, such as "gather"; "input" for an input of the graph.
        name: Of the operation or of its first result.
        reason: Why, and by which source.
        runtime: Where it would not run.
        is_error: Whether the runtime refuses the graph or leaves the operation to a CPU; otherwise
            it is a note.
    """

    operation: str
    name: str
    reason: str
    runtime: Runtime
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.operation} '{self.name}': {self.reason}"


def check_lint(findings: Sequence[Finding]) -> None:
    """Check that no finding is an error.

    Raises:
        ExportError: With the first of them.
    """
    errors = [finding for finding in findings if finding.is_error]
    if not errors:
        return
    shown = "; ".join(map(str, errors[:_NUM_SHOWN]))
    more = f"; and {len(errors) - _NUM_SHOWN} more" if len(errors) > _NUM_SHOWN else ""
    runtimes = " and ".join(dict.fromkeys(error.runtime for error in errors))
    raise ExportError(
        f"{len(errors)} operations would not run on {runtimes}: {shown}{more}; change the graph, "
        "or take the runtime out of the target's runs_on"
    )

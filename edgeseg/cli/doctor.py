"""`edgeseg doctor`: does this installation work, and what is missing?"""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeseg.inspection.health.findings import Finding


def doctor(
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="load every package and hash every model; takes minutes"),
    ] = False,
    wait_s: Annotated[
        float | None,
        typer.Option(min=0.1, help="seconds a package may take to load; default: 3, thorough: 300"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Check versions, devices, disks, data and models; say what to do.

    Exit status: 0 nothing is a problem (there may be warnings), 1 something is.
    """
    import dataclasses
    import json
    from collections import Counter

    from edgeseg.inspection.health.checkup import examine

    findings = examine(thorough, wait_s)
    counts = Counter(finding.status for finding in findings)
    if json_:
        rows = [dataclasses.asdict(finding) for finding in findings]
        numbers = {f"num_{status}": counts[status] for status in ("ok", "warning", "problem")}
        typer.echo(json.dumps({"findings": rows, **numbers}, indent=2))
    else:
        typer.echo(report(findings))
        typer.echo(
            f"{counts['ok']} ok, {counts['warning']} to be aware of, {counts['problem']} to repair"
        )
    if counts["problem"]:
        raise typer.Exit(1)


def report(findings: "list[Finding]") -> str:
    """Return a line a finding, and one with what to do where there is something."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:7}  {finding.check:{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.advice}")
    return "\n".join(lines)

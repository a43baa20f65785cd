"""`edgeseg quickstart`: the whole loop on real photographs, in a few minutes."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option(help="folder to write; run again to continue")] = Path(
        "quickstart"
    ),
    teacher: Annotated[
        str, typer.Option(help="released model, or your SAM checkpoint (ViT-H, L or B .pth)")
    ] = "edgeseg_m",
) -> None:
    """Distil a student on photographs without labels and show what it learned.

    Takes a few minutes on two cores. The folder ends with a page of pictures and tables to open.
    """
    from edgeseg.distill.allocator import keep_freed_memory

    keep_freed_memory()  # before torch starts its threads

    from edgeseg.cli.reporting import build_reporter
    from edgeseg.distill.first_run import FirstRunSettings, run_first

    reporter = build_reporter()
    try:
        page, weights = run_first(out, FirstRunSettings(teacher=teacher), reporter)
    finally:
        reporter.close()
    typer.echo(f"open {page}")
    typer.echo(f"next: edgeseg segment PHOTO --point X,Y --model {weights}")

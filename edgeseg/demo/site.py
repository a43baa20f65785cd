"""What a browser is given: the page, the runtime and one exported model, each under its address.

The same table is served by `server` and written as a folder that any static host can serve.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeseg.demo.headers import static_host_headers
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, ExportManifest, read_export
from edgeseg.signature import IMAGE, IMAGE_RGB, POINT_LABELS, POINTS_XY_MODEL

Site = Mapping[str, Path]
"""Address without its leading slash, such as "model/encoder.onnx" -> file."""

INDEX = "index.html"
MODEL_FOLDER = "model"
RUNTIME_FOLDER = "runtime"
HEADERS_FILE = "_headers"

_PAGE = Path(__file__).with_name("page")
_NOT_SERVED = {"package.json"}  # tells Node, for the tests, that these are modules
_ROLES = ("encoder", "decoder", "proposals")


def build_site(export: Path, runtime: Path) -> Site:
    """Put page, runtime and model under their addresses.

    Args:
        export: Folder that `edgeseg export` wrote.
        runtime: What `find_runtime` returned.

    Raises:
        WeightsError: The export is damaged, or made for something else than a browser.
    """
    manifest = read_export(export)
    _check_for_browser(manifest, export)
    found = {
        path.relative_to(_PAGE).as_posix(): path
        for path in _files_below(_PAGE)
        if path.name not in _NOT_SERVED
    }
    for path in _files_below(runtime):
        found[f"{RUNTIME_FOLDER}/{path.name}"] = path
    names = [EXPORT_MANIFEST_NAME, *_graph_names(manifest)]
    for name in names:
        path = (export / name).resolve()
        if path.parent != export.resolve():
            raise WeightsError(f"{export / name} leads out of its folder; copy the file itself")
        found[f"{MODEL_FOLDER}/{name}"] = path
    return found


def is_site(folder: Path) -> bool:
    """Return whether `write_site` wrote a folder."""
    return (folder / INDEX).is_file() and (folder / MODEL_FOLDER / EXPORT_MANIFEST_NAME).is_file()


def read_site(folder: Path) -> Site:
    """Return the files of a folder that `write_site` wrote, without links that leave it.

    Raises:
        ConfigError: It is no such folder.
    """
    if not is_site(folder):
        raise ConfigError(f"{folder} is no folder that `edgeseg demo MODEL --site FOLDER` wrote")
    return {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}


def write_site(site: Site, out: Path) -> None:
    """Copy everything into one folder, which any static host can serve.

    Args:
        site: What `build_site` returned.
        out: Folder to write, all at once; new or empty.

    Raises:
        ConfigError: The folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; choose another folder or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for address, path in site.items():
            target = staging / address
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (staging / HEADERS_FILE).write_text(static_host_headers(), "utf-8")
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield files in order, without hidden ones and without links that leave the folder."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not is_hidden and path.resolve().is_relative_to(root):
            yield path


def _graph_names(manifest: ExportManifest) -> list[str]:
    return [file.path for file in manifest.files if file.role in _ROLES]


def _check_for_browser(manifest: ExportManifest, export: Path) -> None:
    """Refuse an export that the page cannot feed."""
    encoder, decoder = manifest.file("encoder"), manifest.file("decoder")
    reason = ""
    if manifest.format != "onnx" or encoder is None or decoder is None:
        reason = f"it has the format {manifest.format}"
    else:
        image = {tensor.name: tensor.dtype for tensor in encoder.inputs}
        inputs = {tensor.name: tensor for tensor in decoder.inputs}
        points = inputs.get(POINTS_XY_MODEL)
        if image not in ({IMAGE: "float32"}, {IMAGE_RGB: "uint8"}):
            reason = f"its encoder takes {image}"
        elif points is None or any(isinstance(size, int) for size in points.shape[:2]):
            reason = "its decoder takes fixed numbers of prompts and points"
        elif {inputs[POINT_LABELS].dtype, points.dtype} - {"int64", "int32", "float32"}:
            reason = f"its decoder takes points as {points.dtype}"
    if reason:
        raise WeightsError(
            f"{export} was not exported for a browser: {reason}; run: edgeseg export "
            f"{manifest.model} OUT --target web, and edgeseg demo OUT"
        )

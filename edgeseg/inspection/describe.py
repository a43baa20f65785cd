"""Find out what a file or folder is, and hand it to whoever knows its kind."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, hash_of
from edgeseg.inspection.coreml_packages import MANIFEST_NAME as PACKAGE_MANIFEST_NAME
from edgeseg.inspection.coreml_packages import describe_coreml
from edgeseg.inspection.description import Description, Facts
from edgeseg.inspection.file_kinds import HEAD_BYTES, foreign_kind, looks_like_text, shown_bytes
from edgeseg.inspection.limits import files_below
from edgeseg.inspection.model_folders import describe_exported_folder, describe_model_folder
from edgeseg.inspection.onnx_models import describe_onnx, looks_like_onnx
from edgeseg.inspection.run_folders import CONFIG_NAME, describe_run, looks_like_run
from edgeseg.inspection.safetensors_files import describe_weights, looks_like_safetensors
from edgeseg.inspection.settings_files import describe_settings
from edgeseg.inspection.torch_files import describe_torch, looks_like_torch
from edgeseg.manifest import MANIFEST_NAME, find_model_folder, sha256_of

Reporter = Callable[[str], object]
"""Is told what takes long, before it does."""

SLOW_BYTES = 5 * 10**8
"""Hashing so much takes a second or more."""
_LOADS_PYTORCH = "loading PyTorch to read it"
_MOST_ENTRIES = 1000
_EXPECTED = (
    "weights (.safetensors, .pth), a checkpoint (.pt), an .onnx file, a .mlpackage, a recipe "
    "(.toml), or the folder of a model, of an export or of a run"
)


def describe(name_or_path: str, report: Reporter = lambda text: None) -> Description:
    """Return what a file, a folder or a model of that name is.

    Args:
        name_or_path: A path, or the name of a model.
        report: Called with a line before anything that takes long.

    Raises:
        EdgesegError: There is no such thing, it is damaged, or none of the known kinds; the message
            says what was found instead.
    """
    path = Path(name_or_path)
    try:
        if not path.exists():
            path = _named(name_or_path)
        if path.is_dir():
            return _describe_folder(path, report)
        if path.is_file():
            return _describe_file(path, report)
    except OSError as error:
        raise EdgesegError(
            f"cannot read {error.filename or path}: {error.strerror or error}; give a file that "
            "can be read"
        ) from error
    raise EdgesegError(f"{path} is neither a file nor a folder; give {_EXPECTED}")


def _named(name: str) -> Path:
    folder = find_model_folder(name)
    if folder is None:
        raise EdgesegError(
            f"there is no {name}, neither a file, a folder nor a model of that name; give "
            f"{_EXPECTED}"
        )
    return folder


def _describe_file(path: Path, report: Reporter) -> Description:
    manifests = (MANIFEST_NAME, EXPORT_MANIFEST_NAME, PACKAGE_MANIFEST_NAME, CONFIG_NAME)
    if path.name in manifests and _folder_reader(path.absolute().parent) is not None:
        return _describe_folder(path.parent, report)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    facts, notes = _read_file(path, head, size, report)
    if size > SLOW_BYTES:
        report(f"hashing {size / 1e9:.1f} GB")
    return Description(str(path), facts, size, 1, sha256_of(path), notes)


def _read_file(
    path: Path, head: bytes, size: int, report: Reporter
) -> tuple[Facts, tuple[str, ...]]:
    """Find the reader of a file by its content first and by its name second."""
    if not head:
        raise EdgesegError(f"{path} is an empty file; fetch or write it again")
    if looks_like_safetensors(head, size):
        return describe_weights(path)
    if looks_like_torch(path, head):
        report(_LOADS_PYTORCH)
        return describe_torch(path)
    foreign = foreign_kind(head)
    if foreign:
        raise _refusal(path, foreign)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return describe_weights(path)
    if suffix == ".onnx" or (suffix != ".mlmodel" and looks_like_onnx(head)):
        return describe_onnx(path)
    if suffix == ".toml":
        return describe_settings(path), ()
    raise _refusal(path, _unknown(suffix, head, size))


def _refusal(path: Path, found: str) -> EdgesegError:
    """Return the error about something else; what to do follows unless what was found says it."""
    return EdgesegError(f"{path} is {found}" + ("" if ";" in found else f"; give {_EXPECTED}"))


def _unknown(suffix: str, head: bytes, size: int) -> str:
    """Say what a file of no known kind is, as far as it shows."""
    if suffix == ".mlmodel":
        return "the specification of a Core ML model alone; give the whole .mlpackage folder"
    if head.startswith(b"PK"):
        return "a ZIP archive that PyTorch did not write; unpack it"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, and reading it could run code; save weights as .safetensors"
    if looks_like_text(head):
        first = head.decode("ascii").strip().partition("\n")[0][:40]
        return f"a text file that begins with {first!r}"
    return f"of no known kind ({size} bytes, the first are {shown_bytes(head)})"


FolderReader = Callable[[Path], tuple[Facts, tuple[str, ...]]]


def _folder_reader(folder: Path) -> FolderReader | None:
    if folder.suffix == ".mlpackage":
        return describe_coreml
    if (folder / EXPORT_MANIFEST_NAME).is_file():
        return describe_exported_folder
    if (folder / MANIFEST_NAME).is_file():
        return describe_model_folder
    if looks_like_run(folder):
        return describe_run
    if (folder / PACKAGE_MANIFEST_NAME).is_file() and (folder / "Data").is_dir():
        return describe_coreml
    return None


def _describe_folder(folder: Path, report: Reporter) -> Description:
    reader = _folder_reader(folder)
    if reader is None:
        raise _refusal(folder, _unknown_folder(folder))
    is_run = reader is describe_run  # teachers label images into it: any number of files
    files = (entry for entry in folder.rglob("*") if entry.is_file())
    sizes = [file.stat().st_size for file in (files if is_run else files_below(folder))]
    if is_run:
        report(_LOADS_PYTORCH)
    elif sum(sizes) > SLOW_BYTES:
        report(f"hashing {sum(sizes) / 1e9:.1f} GB")
    if reader is describe_coreml:
        report("loading coremltools to read it")
    facts, notes = reader(folder)
    sha256 = None if is_run else hash_of(folder)
    return Description(str(folder), facts, sum(sizes), len(sizes), sha256, notes)


def _unknown_folder(folder: Path) -> str:
    """Say what is in a folder of no known kind."""
    if folder.suffix == ".mlmodelc":
        return "a compiled Core ML model, which only Core ML reads; give its .mlpackage"
    names = sorted(entry.name for entry in islice(folder.iterdir(), _MOST_ENTRIES))
    inside = [name for name in names if _is_known(folder / name)]
    if inside:
        return f"a folder with {', '.join(inside[:5])}; give one of these"
    if not names:
        return "an empty folder"
    kinds = {Path(name).suffix.lower() or "no suffix" for name in names}
    count = f"{len(names)} entries" + (" or more" if len(names) == _MOST_ENTRIES else "")
    return (
        f"a folder with {count} ({', '.join(sorted(kinds)[:5])}) and no model.toml or export.json"
    )


def _is_known(path: Path) -> bool:
    if path.is_dir():
        return _folder_reader(path) is not None
    return path.suffix.lower() in (".safetensors", ".onnx", ".pth", ".pt")

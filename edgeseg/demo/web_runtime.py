"""ONNX Runtime Web, which runs the graphs in the page: one pinned version, fetched when asked for.

The wheel does not carry its 40 MB. They are taken from the archive that the npm registry publishes,
after the archive was found to be the one whose hash stands here; npm and Node are not needed.
"""

import base64
import contextlib
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeseg.downloads import DownloadLimits, Progress, download, forget_download
from edgeseg.errors import MissingExtraError, WeightsError
from edgeseg.manifest import sha256_of, user_models

VERSION = "1.30.0"
"""Of onnxruntime-web; to change it, change the hashes too."""
LINK = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""Of the archive, in the form of npm's lock files: `npm view onnxruntime-web dist.integrity`."""
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
    "ort-wasm-simd-threaded.asyncify.mjs": (
        "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": (
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da"
    ),
}
"""What the page loads, with the SHA-256 of each: `asyncify` is the one with WebGPU."""
DOWNLOAD_MB = 33
"""Size of the archive."""

_IN_ARCHIVE = "package/dist"
_MAX_ARCHIVE_BYTES = 100_000_000


def runtime_folder() -> Path:
    """Return where the runtime belongs, beside the user's own models; it need not exist."""
    return user_models().parent / f"onnxruntime-web-{VERSION}"


def find_runtime() -> Path:
    """Return the folder with the runtime, whose files are the right ones.

    Raises:
        MissingExtraError: It was not fetched yet.
        WeightsError: A file is missing or was changed.
    """
    folder = runtime_folder()
    if not folder.is_dir():
        raise MissingExtraError(
            f"onnxruntime-web {VERSION}, which runs models in a browser, is not here yet; run: "
            f"edgeseg demo --install (downloads {DOWNLOAD_MB} MB from registry.npmjs.org)"
        )
    for name, sha256 in FILES.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != sha256:
            raise WeightsError(
                f"{path} is missing or is not the file of onnxruntime-web {VERSION}; remove "
                f"{folder} and run: edgeseg demo --install"
            )
    return folder


def install_runtime(progress: Progress, archive: Path | None = None) -> Path:
    """Fetch the runtime, unless it is here.

    Args:
        progress: Told how many bytes are here, and of how many.
        archive: The archive of the npm registry, if it is here already; else it is downloaded.

    Returns:
        The folder that `find_runtime` finds from now on.

    Raises:
        WeightsError: The download fails, or the archive is not the one whose hash is known; then
            nothing is kept of it.
    """
    folder = runtime_folder()
    if folder.is_dir():
        return find_runtime()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if archive is not None:
        _unpack(archive, folder)
        return folder
    download_path = folder.parent / f".onnxruntime-web-{VERSION}.tgz"
    download(LINK, download_path, DownloadLimits(_MAX_ARCHIVE_BYTES, copies=3), progress)
    try:
        _unpack(download_path, folder)
    finally:
        forget_download(download_path)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Take the files out of an archive, all at once or not at all."""
    _check_integrity(archive)
    with _staging(folder) as staging, tarfile.open(archive) as packed:
        for name, sha256 in FILES.items():
            member = packed.extractfile(f"{_IN_ARCHIVE}/{name}")
            assert member is not None  # the archive's hash was right
            with member, (staging / name).open("wb") as file:
                shutil.copyfileobj(member, file)
            if sha256_of(staging / name) != sha256:
                raise WeightsError(
                    f"{name} in {archive} is not the file that is known; get another edgeseg"
                )


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `folder` if the block succeeds."""
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield staging
        staging.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was faster; its files are the same
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_integrity(archive: Path) -> None:
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
    except OSError as error:
        raise WeightsError(
            f"cannot read {archive}: {error.strerror or error}; give the archive that "
            f"`npm pack onnxruntime-web@{VERSION}` writes"
        ) from error
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != INTEGRITY:
        raise WeightsError(
            f"{archive} is not the archive of onnxruntime-web {VERSION} that is known here: its "
            f"hash is {found[:20]}…, not {INTEGRITY[:20]}…; nothing was kept, try again or see "
            f"whether something between here and the registry changes downloads"
        )

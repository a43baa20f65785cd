"""Where things are read from and written to: disks, temporary files, images, models."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.inspection.health.findings import Finding

DATA_VARIABLE = "EDGESEG_DATA"
FULL_BYTES = 5 * 10**8
"""A checkpoint of a run takes 0.13 GB, an exported model about 0.1 GB."""
LITTLE_BYTES = 5 * 10**9
_MOST_ENTRIES = 1000


def check_disk(check: str, folder: Path, purpose: str) -> Finding:
    """Say how much space a folder's disk has left and whether one may write there.

    Args:
        check: How the place is called.
        folder: The place; exists.
        purpose: What goes there.
    """
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}, for {purpose}"
    if not os.access(folder, os.W_OK):
        return Finding(check, "warning", f"{found}; it is read-only", "write to another folder")
    if free < FULL_BYTES:
        return Finding(check, "problem", found, "free some space, or choose another disk")
    if free < LITTLE_BYTES:
        return Finding(
            check, "warning", found, "long runs may need more; `--dry-run` says how much"
        )
    return Finding(check, "ok", found)


def check_temporary_files() -> Finding:
    """Say whether temporary files can be written, and how much space they have."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        advice = "set TMPDIR to a folder that can be written"
        return Finding("temporary files", "problem", str(error), advice)
    return check_disk("temporary files", folder, "exports while they are proven")


def check_data() -> Finding:
    """Look at the folder of real images that recipes and tests name by EDGESEG_DATA."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        text = "not set; recipes such as `distill_s` and the tests on real images need it"
        advice = f"export {DATA_VARIABLE}=FOLDER, images in the SA-1B layout"
        return Finding(DATA_VARIABLE, "warning", text, advice)
    folder = Path(value)
    advice = f"set {DATA_VARIABLE} to a folder of images in the SA-1B layout that can be read"
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except OSError as error:
        text = f"{folder} cannot be read: {error.strerror or error}"
        return Finding(DATA_VARIABLE, "problem", text, advice)
    if not names:
        return Finding(DATA_VARIABLE, "warning", f"{folder} is empty", advice)
    count = f"{_MOST_ENTRIES} or more" if len(names) == _MOST_ENTRIES else str(len(names))
    return Finding(DATA_VARIABLE, "ok", f"{folder}, {count} entries")


def check_models(thorough: bool) -> Iterator[Finding]:
    """Look at the released models and those of the user.

    Args:
        thorough: Compare those of the user with their hashes, too; the released ones, which are
            small, are always compared.
    """
    from edgeseg.manifest import RELEASED, named_models, user_models

    released, own = named_models(RELEASED), named_models(user_models())
    for name, folder in released.items():
        yield _check_model(name, folder, check_hash=True)
    for name, folder in own.items():
        yield _check_model(name, folder, check_hash=thorough)
    if not released and not own:
        text = f"none in {RELEASED} or {user_models()}"
        yield Finding("models", "warning", text, "edgeseg models --help")


def _check_model(name: str, folder: Path, check_hash: bool) -> Finding:
    from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, read_export
    from edgeseg.manifest import read_manifest

    check = f"model {name}"
    exports = sorted(entry.parent for entry in folder.glob(f"*/{EXPORT_MANIFEST_NAME}"))
    try:
        manifest = read_manifest(folder, check_hash)
        for export in exports:
            read_export(export, check_hash)
    except EdgesegError as error:
        advice = f"fetch it again, or remove it: rm -r {shlex.quote(str(folder))}"
        return Finding(check, "problem", str(error), advice)
    made = f", exported to {', '.join(e.name for e in exports)}" if exports else ""
    compared = "its hash is right" if check_hash else "hash not compared; --thorough does"
    return Finding(check, "ok", f"{folder / manifest.weights}: {compared}{made}")

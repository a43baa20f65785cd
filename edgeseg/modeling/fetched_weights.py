"""Weights that a user brings in: fetched, compared with their hash, tried, and given a name.

Nothing reads a file before its hash has been compared. Foreign checkpoints are loaded into their
network once, strictly, and stored as safetensors with the very same numbers: such a file cannot run
code and says which network it is for. Files of our own are copied as they are. A model appears
under its name in one step: weights, manifest and card together.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from edgeseg.downloads import DownloadLimits, Progress, download, forget_download
from edgeseg.errors import WeightsError
from edgeseg.fetch_request import FetchPlan, FetchRequest, plan_fetch
from edgeseg.files import write_atomically
from edgeseg.manifest import (
    LICENCE_UNKNOWN,
    ModelManifest,
    read_manifest,
    sha256_of,
    write_manifest,
)
from edgeseg.model_assembly import Assembly, assembling
from edgeseg.model_library import CARD_NAME, check_new_name
from edgeseg.modeling.checkpoints import load_model, save_weights
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import MODELS
from edgeseg.published_checkpoints import PUBLISHED

Say = Callable[[str], object]
"""Receives a line at each step."""

_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


@dataclass(frozen=True)
class FetchResult:
    """A model that can be named from now on.

    Attributes:
        name: What `--model` takes.
        folder: Of the model.
        manifest: Its facts, with the hash of the source and what that was compared with.
        was_here: Whether the very file had been brought in before, so that nothing was done.
    """

    name: str
    folder: Path
    manifest: ModelManifest
    was_here: bool = False


def fetch_model(request: FetchRequest, progress: Progress, say: Say) -> FetchResult:
    """Bring a model in under a name.

    Args:
        request: What, from where, and into which folder.
        progress: Receives the bytes of a download that are here, and those of the whole file.
        say: Receives a line at each step.

    Raises:
        ConfigError: The request contradicts itself.
        WeightsError: The name is taken, the file cannot be had, has another hash, or is not the
            model it should be. Nothing is left behind but a download that can be continued.
    """
    plan = plan_fetch(request, MODELS)
    folder = request.yours / plan.name
    earlier = _earlier(folder, plan)
    if earlier is not None:
        return FetchResult(plan.name, folder, earlier, was_here=True)
    check_new_name(plan.name, request.yours)
    try:
        with assembling(request.yours, plan.name) as assembly:
            manifest = _assemble(plan, assembly, progress, say)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot bring {plan.name} into {request.yours}: {error}; make it readable and "
            "writable, make room, or choose another folder with --library"
        ) from error
    return FetchResult(plan.name, folder, manifest)


def _earlier(folder: Path, plan: FetchPlan) -> ModelManifest | None:
    """Return the manifest of a sound model in the folder, if it came from the file asked for."""
    try:
        manifest = read_manifest(folder)
    except WeightsError:
        return None  # there is none; or it is damaged, and then its name is taken
    wanted = plan.expected_sha256
    return manifest if wanted is not None and wanted == manifest.source_sha256 else None


def _assemble(plan: FetchPlan, assembly: Assembly, progress: Progress, say: Say) -> ModelManifest:
    """Write weights, card and manifest."""
    original = _bring(plan, assembly.downloads, progress, say)
    try:
        source_sha256 = _checked_hash(plan, original, say)
        if plan.link is not None:
            original = _with_right_suffix(original)
        say(f"loading {original.name}, strictly")
        net = load_model(original)
        _check_network(plan, net)
    except WeightsError:
        if plan.link is not None:
            forget_download(original)  # it is not what was asked for
        raise
    weights = _store(original, net, assembly.folder, plan.request.in_place)
    sha256 = sha256_of(weights)
    if _is_ours(original) and sha256 != source_sha256:
        raise WeightsError(f"{original} changed while it was copied; try again once it is finished")
    manifest = ModelManifest(
        model=net.name,
        image_size=net.image_size,
        weights=weights.name,
        sha256=sha256,
        num_parameters=net.num_parameters(),
        licence=plan.licence or LICENCE_UNKNOWN,
        trained_on=plan.trained_on or "not stated",
        description=plan.description or f"Weights of {net.name}, brought in by the user.",
        source=plan.source,
        source_sha256=source_sha256,
        source_compared_with=plan.compared_with,
    )
    _write_card(plan, manifest, assembly.folder)
    write_manifest(assembly.folder, manifest)
    return manifest


def _bring(plan: FetchPlan, downloads: Path, progress: Progress, say: Say) -> Path:
    """Return the user's own file, or download it."""
    if plan.link is None:
        assert plan.file is not None  # a plan has one of the two
        return plan.file
    say(f"downloading {plan.source} (licence: {plan.licence or LICENCE_UNKNOWN})")
    path = downloads / "original.pth"
    limits = DownloadLimits(plan.request.max_bytes, plan.request.timeout_s, copies=2)
    download(plan.link, path, limits, progress)
    return path


def _checked_hash(plan: FetchPlan, original: Path, say: Say) -> str:
    say(f"hashing {original.name}")
    found = sha256_of(original)
    if plan.expected_sha256 is not None and found != plan.expected_sha256:
        raise WeightsError(
            f"{plan.source} is not the file that was expected: its sha256 is {found}, the "
            f"{plan.compared_with} one is {plan.expected_sha256}; nothing was kept, get the right "
            "file"
        )
    return found


def _with_right_suffix(path: Path) -> Path:
    """Name a download by what it holds, since a link may end in anything."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        is_safetensors = header_bytes < _LARGEST_HEADER and file.read(1) == b"{"
    return path.rename(path.with_suffix(".safetensors")) if is_safetensors else path


def _check_network(plan: FetchPlan, net: PromptableNet) -> None:
    if plan.network in (None, net.name):
        return
    fitting = [name for name, other in PUBLISHED.items() if other.model == net.name]
    raise WeightsError(
        f"{plan.source} holds {net.name}, but {plan.request.name} is {plan.network}; fetch it as "
        f"{' or '.join([*fitting, 'another NAME'])}"
    )


def _store(original: Path, net: PromptableNet, folder: Path, in_place: bool) -> Path:
    """Put the weights into the model's folder: as they are, or converted to safetensors."""
    if in_place:
        weights = folder / f"weights{original.suffix}"
        weights.symlink_to(original.resolve())
        return weights
    weights = folder / "weights.safetensors"
    if _is_ours(original):
        write_atomically(weights, lambda temporary: shutil.copyfile(original, temporary))
    else:
        save_weights(net, weights)
    return weights


def _is_ours(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    with safe_open(path, "numpy") as file:
        return (file.metadata() or {}).get("format") == "edgeseg"


def _write_card(plan: FetchPlan, manifest: ModelManifest, folder: Path) -> None:
    """Take over the card of the user's model folder, or write what is known."""
    card = folder / CARD_NAME
    if plan.described is not None and plan.file is not None:
        theirs = plan.file.with_name(CARD_NAME)
        if theirs.is_file():
            write_atomically(card, lambda temporary: shutil.copyfile(theirs, temporary))
        return
    if plan.published is None:
        return
    compared = {
        "published": "equal to the published one",
        "given": "equal to the one that was given",
        "nothing": "compared with nothing, since none is published",
    }[plan.compared_with]
    text = f"""# {plan.name}

{manifest.description}

- Published by its authors: {plan.published.homepage}
- Licence: {manifest.licence}
- Trained on: {manifest.trained_on}
- Brought in from: {plan.source}
- SHA-256 of that file: {manifest.source_sha256}, {compared}
- Stored as {manifest.weights}; the numbers are those of the file.
"""
    write_atomically(card, lambda temporary: temporary.write_text(text, "utf-8"))

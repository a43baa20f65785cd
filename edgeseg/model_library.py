"""The models that can be named here, and what is known about each; without PyTorch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.errors import EdgesegError, WeightsError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, read_export
from edgeseg.manifest import (
    MANIFEST_NAME,
    RELEASED,
    ModelManifest,
    how_to_get,
    is_plain_name,
    named_models,
    read_manifest,
)

CARD_NAME = "MODEL_CARD.md"

Place = Literal["released", "yours", "path"]
"""Where a model was found: in the checkout, in the user's own folder, or by its path."""


@dataclass(frozen=True)
class ListedModel:
    """A model that can be named.

    Attributes:
        name: What `--model` takes.
        place: Where it was found.
        folder: Of the model.
        manifest: None if it is broken.
        size_bytes: Of the weights; None if the manifest is broken.
        problem: Why it cannot be used, empty if it can.
    """

    name: str
    place: Place
    folder: Path
    manifest: ModelManifest | None
    size_bytes: int | None
    problem: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return what `edgeseg models list --json` prints."""
        facts = {} if self.manifest is None else self.manifest.model_dump(mode="json")
        own = {"name": self.name, "place": self.place, "folder": str(self.folder)}
        return own | facts | {"size_bytes": self.size_bytes, "problem": self.problem or None}


@dataclass(frozen=True)
class ExportedFolder:
    """Exported files inside a model's folder.

    Attributes:
        folder: What `--model` takes, too.
        target: What they were exported for.
        format: "onnx", "coreml" or "onnx_sam_compatible".
        precision: Of weights and arithmetic.
        size_bytes: Of all files.
    """

    folder: Path
    target: str
    format: str
    precision: str
    size_bytes: int


@dataclass(frozen=True)
class ModelDescription:
    """All that is known about one model.

    Attributes:
        listed: Name, place and manifest.
        weights: Path of the weights; None if the manifest is broken.
        hash_problem: What is wrong with the hash of the weights; empty if it is right.
        card: Path of the model card, if there is one.
        exports: Exported files in the model's folder.
    """

    listed: ListedModel
    weights: Path | None
    hash_problem: str
    card: Path | None
    exports: tuple[ExportedFolder, ...]

    @property
    def is_usable(self) -> bool:
        """Whether the weights are the ones the manifest describes."""
        return not (self.listed.problem or self.hash_problem)

    def as_dict(self) -> dict[str, object]:
        """Return what `edgeseg models show --json` prints."""
        exports = [
            {
                "folder": str(export.folder),
                "target": export.target,
                "format": export.format,
                "precision": export.precision,
                "size_bytes": export.size_bytes,
            }
            for export in self.exports
        ]
        return self.listed.as_dict() | {
            "weights_path": None if self.weights is None else str(self.weights),
            "hash_is_right": self.is_usable,
            "problem": self.listed.problem or self.hash_problem or None,
            "card": None if self.card is None else str(self.card),
            "card_text": None if self.card is None else self.card.read_text("utf-8"),
            "exports": exports,
        }


def list_models(yours: Path) -> list[ListedModel]:
    """Return the models that can be named: the released ones, then the user's own.

    Hashes are not compared, since that reads all weights. A model of the user's that has the name
    of a released one is listed as a problem, since its name means the other.

    Args:
        yours: Folder of the user's models; it need not exist.
    """
    released = named_models(RELEASED)
    listed = [_list_model(name, "released", folder) for name, folder in released.items()]
    if yours.resolve() == RELEASED.resolve():
        return listed
    for name, folder in named_models(yours).items():
        hidden = f"hidden by the released model of that name; rename {folder}"
        listed.append(_list_model(name, "yours", folder, hidden if name in released else ""))
    return listed


def describe_model(name_or_folder: str, yours: Path) -> ModelDescription:
    """Return all that is known about a model, and whether its weights are the right ones.

    Args:
        name_or_folder: A model's name, or a folder with `model.toml`.
        yours: Folder of the user's models.

    Raises:
        WeightsError: There is no such model.
    """
    listed = _find(name_or_folder, yours)
    card = listed.folder / CARD_NAME
    is_broken = listed.manifest is None
    return ModelDescription(
        listed=listed,
        weights=listed.folder / listed.manifest.weights if listed.manifest is not None else None,
        hash_problem="" if is_broken else _hash_problem(listed.folder),
        card=card if card.is_file() else None,
        exports=tuple(_exports_in(listed.folder)),
    )


def is_here(name_or_folder: str, yours: Path) -> bool:
    """Return whether `describe_model` finds a model, be it sound or not."""
    known = {*named_models(RELEASED), *named_models(yours)}
    return name_or_folder in known or (Path(name_or_folder) / MANIFEST_NAME).is_file()


def check_new_name(name: str, yours: Path) -> None:
    """Refuse a name for a model of the user's that is no name, or is taken.

    Raises:
        WeightsError: With a way out.
    """
    if not is_plain_name(name):
        raise WeightsError(
            f"{name!r} cannot be the name of a model; use letters, digits, dot, hyphen and "
            "underscore, at most 64, and begin with a letter or a digit"
        )
    if name in named_models(RELEASED):
        raise WeightsError(
            f"{name} is the name of a released model, which would hide yours; give another one "
            "with --name"
        )
    folder = yours / name
    if folder.exists() or folder.is_symlink():
        raise WeightsError(
            f"there is a {folder} already; give another name with --name, or remove that folder"
        )


def _find(name_or_folder: str, yours: Path) -> ListedModel:
    """Look in the order of `edgeseg.manifest.find_weights`; broken models are found, too."""
    folder = Path(name_or_folder)
    if (folder / MANIFEST_NAME).is_file():
        return _list_model(str(folder), "path", folder)
    models = list_models(yours)
    for model in models:
        if model.name == name_or_folder:
            return model
    names = ", ".join(model.name for model in models)
    raise WeightsError(
        f"no model {name_or_folder!r}: it is neither a folder with a {MANIFEST_NAME}, nor one of "
        f"those known by name ({names or 'none'}); {how_to_get(name_or_folder)}"
    )


def _list_model(name: str, place: Place, folder: Path, problem: str = "") -> ListedModel:
    try:
        manifest = read_manifest(folder, check_hash=False)
        size_bytes = (folder / manifest.weights).stat().st_size
    except (EdgesegError, OSError) as error:
        return ListedModel(name, place, folder, None, None, str(error))
    return ListedModel(name, place, folder, manifest, size_bytes, problem)


def _hash_problem(folder: Path) -> str:
    try:
        read_manifest(folder)
    except WeightsError as error:
        return str(error)
    return ""


def _exports_in(folder: Path) -> Iterator[ExportedFolder]:
    for path in sorted(folder.glob(f"*/{EXPORT_MANIFEST_NAME}")):
        try:
            manifest = read_export(path.parent, check_hashes=False)
        except WeightsError:
            continue  # whoever loads it is told
        size_bytes = sum(file.size_bytes for file in manifest.files)
        yield ExportedFolder(
            path.parent, manifest.target, manifest.format, manifest.precision, size_bytes
        )

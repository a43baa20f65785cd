"""Folders that are a model: with `model.toml` and weights, or exported, with `export.json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import WeightsError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, hash_of, read_export
from edgeseg.inspection.description import millions
from edgeseg.inspection.limits import check_text_size
from edgeseg.inspection.safetensors_files import WeightsFacts, describe_weights
from edgeseg.inspection.tensor_counts import TensorCounts
from edgeseg.manifest import MANIFEST_NAME, read_manifest


@dataclass(frozen=True)
class ModelFolderFacts:
    """A model as it is released.

    Attributes:
        manifest: What `model.toml` says; the hash in it was found right.
        counts: Tensors and numbers of the weights; None for a format other than safetensors.
        exports: Exported folders inside.
        has_card: Whether a model card lies beside.
    """

    manifest: dict[str, Any]
    counts: TensorCounts | None
    exports: tuple[str, ...]
    has_card: bool

    kind = "model folder"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        manifest = self.manifest
        return (
            f"model `{manifest['model']}` for {manifest['image_size']} px input, "
            f"{millions(manifest['num_parameters'])} parameters, licence: {manifest['licence']}"
        )


@dataclass(frozen=True)
class ExportedFolderFacts:
    """A model as it was exported.

    Attributes:
        manifest: What `export.json` says; the hashes in it were found right.
    """

    manifest: dict[str, Any]

    kind = "exported model"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        manifest = self.manifest
        roles = ", ".join(file["role"] for file in manifest["files"])
        return (
            f"`{manifest['model']}` exported to {manifest['target']} ({manifest['format']}, "
            f"{manifest['precision']}) for {manifest['image_size']} px input: {roles}"
        )


def describe_model_folder(folder: Path) -> tuple[ModelFolderFacts, tuple[str, ...]]:
    """Return what a folder with `model.toml` holds, and notes.

    Raises:
        WeightsError: The manifest is malformed, or the weights are not the ones it names.
    """
    check_text_size(folder / MANIFEST_NAME)
    manifest = read_manifest(folder)
    weights = folder / manifest.weights
    facts: WeightsFacts | None = None
    notes: tuple[str, ...] = ()
    if weights.suffix == ".safetensors":
        facts, notes = describe_weights(weights)
        stated = manifest.model, manifest.image_size
        found = facts.model or manifest.model, facts.image_size or manifest.image_size
        if found != stated:
            notes += (f"{MANIFEST_NAME} says {stated}, the weights themselves {found}",)
    return ModelFolderFacts(
        manifest=manifest.model_dump(mode="json", exclude_none=True),
        counts=facts.counts if facts else None,
        exports=tuple(sorted(p.parent.name for p in folder.glob(f"*/{EXPORT_MANIFEST_NAME}"))),
        has_card=(folder / "MODEL_CARD.md").is_file(),
    ), notes


def describe_exported_folder(folder: Path) -> tuple[ExportedFolderFacts, tuple[str, ...]]:
    """Return what a folder with `export.json` holds, and notes.

    Raises:
        WeightsError: The manifest is malformed, or a file is missing, damaged or elsewhere.
    """
    path = folder / EXPORT_MANIFEST_NAME
    check_text_size(path)
    manifest = read_export(folder, check_hashes=False)
    for file in manifest.files:
        if file.path in (".", ".."):  # the folder itself, which has no hash of its own
            raise WeightsError(f"{path} names {file.path!r}, which is no file; export again")
        if hash_of(folder / file.path) != file.sha256:
            raise WeightsError(
                f"{folder / file.path} is damaged or was replaced: its sha256 is not the one in "
                f"{EXPORT_MANIFEST_NAME}; export again"
            )
    return ExportedFolderFacts(manifest.model_dump(mode="json", exclude_none=True)), ()

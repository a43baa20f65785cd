"""A pack: what a base model needs to know to be good at one domain, in a folder of its own.

```text
NAME/
├── pack.json             what it is: base model, kind, settings, figures; hashes of the others
├── adapter.safetensors   weights of the adapter
└── vectors.safetensors   feature vectors of some images, by which the router knows the domain
```

Adding, changing or removing a pack touches no other folder. Images of the domain are not in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically
from edgeseg.manifest import sha256_of
from edgeseg.routing import BASE, DomainVectors
from edgeseg.validation import problems_of

PACK_MANIFEST_NAME = "pack.json"
ADAPTER_NAME = "adapter.safetensors"
VECTORS_NAME = "vectors.safetensors"
PackKind = Literal["convolutional", "neck_delta", "memory", "decoder"]
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Names are folders and file names on every system, and classes of a router."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackBase(_Table):
    """The model a pack belongs to.

    Attributes:
        model: Registry name.
        image_size: Side of the square input, in pixels.
        fingerprint: Hash of its weights; a pack is of no use with others.
    """

    model: str
    image_size: int = Field(ge=64, multiple_of=64)
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")


class PackFigures(_Table):
    """What a pack gives on images it was not trained on.

    Attributes:
        prompt_set: Such as "box" or "center".
        base: Mean IoU of the base model, 0 to 1.
        adapted: Mean IoU with the pack.
        gain_interval: 95 % interval of the mean difference, resampling images.
        num_images: Images.
        num_objects: Objects.
    """

    prompt_set: str
    base: float
    adapted: float
    gain_interval: tuple[float, float]
    num_images: int = Field(ge=1)
    num_objects: int = Field(ge=1)


class PackManifest(_Table):
    """The facts of one pack.

    Attributes:
        name: Of the domain; the folder's name.
        base: The model it belongs to.
        kind: Which adapter it holds.
        settings: How the adapter is built.
        adapter_sha256: Of the adapter's weights.
        vectors_sha256: Of the feature vectors.
        trained_on: What it has seen, in words.
        num_images: Training images.
        num_objects: Masks on them.
        seconds: How long it took to make, in all.
        licence: Of the pack; it cannot be freer than that of the base.
        figures: On validation images, if there were any.
        versions: Of the programs that made it.
    """

    format_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    base: PackBase
    kind: PackKind
    settings: dict[str, Any]
    adapter_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    vectors_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    trained_on: str
    num_images: int = Field(ge=0)
    num_objects: int = Field(ge=0)
    seconds: float = Field(ge=0)
    licence: str
    figures: tuple[PackFigures, ...] = ()
    versions: dict[str, str] = {}

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name == BASE:
            raise ValueError(f"{BASE!r} means no pack; choose another name")
        return name


def write_pack(
    folder: Path,
    manifest: PackManifest,
    adapter: Mapping[str, NDArray[Any]],
    vectors: NDArray[np.float32],
) -> PackManifest:
    """Write a pack; its manifest comes last, so that half a pack is none.

    Args:
        folder: Its folder, named as the manifest says; created if need be.
        manifest: Its facts; the hashes in it are replaced by those of the files.
        adapter: Weights by name.
        vectors: (M, F) float32, features of M images.

    Returns:
        The manifest as written.

    Raises:
        WeightsError: The folder has another name than the pack.
    """
    if folder.name != manifest.name:
        raise WeightsError(
            f"a pack lies in a folder of its own name, {manifest.name}, got {folder}; rename one"
        )
    DomainVectors(manifest.name, vectors)  # refused here rather than when it is used
    (folder / PACK_MANIFEST_NAME).unlink(missing_ok=True)
    tensors = {name: np.ascontiguousarray(value) for name, value in adapter.items()}
    _save(folder / ADAPTER_NAME, tensors)
    _save(folder / VECTORS_NAME, {"vectors": np.ascontiguousarray(vectors, np.float32)})
    written = manifest.model_copy(
        update={
            "adapter_sha256": sha256_of(folder / ADAPTER_NAME),
            "vectors_sha256": sha256_of(folder / VECTORS_NAME),
        }
    )
    text = written.model_dump_json(indent=2) + "\n"
    path = folder / PACK_MANIFEST_NAME
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return written


def read_pack(folder: Path) -> PackManifest:
    """Read and check the manifest of a pack.

    Raises:
        WeightsError: There is none, it is malformed, or its files are not the ones it names.
    """
    path = folder / PACK_MANIFEST_NAME
    try:
        manifest = PackManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror or error}; give the folder of a pack, or make "
            "one with edgeseg adapt"
        ) from error
    except ValidationError as error:
        raise WeightsError(
            f"{path} is no valid pack manifest: {problems_of(error)}; make the pack again"
        ) from error
    if folder.resolve().name != manifest.name:
        raise WeightsError(
            f"{path} belongs to the pack {manifest.name!r}, but its folder is "
            f"{folder.resolve().name!r}; rename the folder"
        )
    for name, wanted in (
        (ADAPTER_NAME, manifest.adapter_sha256),
        (VECTORS_NAME, manifest.vectors_sha256),
    ):
        _check_file(folder / name, wanted)
    return manifest


def _check_file(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise WeightsError(f"{path} is missing; copy the whole folder of the pack")
    found = sha256_of(path)
    if found != wanted:
        raise WeightsError(
            f"{path} is damaged or was replaced: sha256 {found[:12]}…, the manifest says "
            f"{wanted[:12]}…; copy the pack again"
        )


def read_adapter(folder: Path) -> dict[str, NDArray[Any]]:
    """Read the weights of a pack's adapter by name.

    Raises:
        WeightsError: The file is not one of weights.
    """
    return _load(folder / ADAPTER_NAME)


def read_vectors(folder: Path) -> DomainVectors:
    """Read by what the router knows a pack's domain.

    Raises:
        WeightsError: The file is damaged.
        ConfigError: Its vectors are too few or not finite.
    """
    return load_vectors(folder / VECTORS_NAME, folder.resolve().name)


def load_vectors(path: Path, name: str) -> DomainVectors:
    """Load feature vectors from a file.

    Raises:
        WeightsError: The file is unreadable or holds something else.
        ConfigError: The vectors are too few or not finite.
    """
    tensors = _load(path)
    if set(tensors) != {"vectors"}:
        raise WeightsError(
            f"{path} must hold one tensor, 'vectors', got {sorted(tensors)}; make the pack again"
        )
    return DomainVectors(name, tensors["vectors"].astype(np.float32))


def save_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    """Save (M, F) float32 feature vectors, such as those of natural images."""
    _save(path, {"vectors": np.ascontiguousarray(vectors, np.float32)})


def find_packs(folder: Path) -> list[Path]:
    """Return the folders of packs in a folder, by name.

    Raises:
        WeightsError: There is no such folder.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"there is no folder {folder}; give the folder that holds the packs' folders"
        )
    return sorted(path.parent for path in folder.glob(f"*/{PACK_MANIFEST_NAME}"))


def _save(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}; copy the pack again") from error

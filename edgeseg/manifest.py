"""`model.toml`: what a released model is, beside its weights."""

import hashlib
import json
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically

MANIFEST_NAME = "model.toml"
RELEASED = Path(__file__).parents[1] / "models"
"""Released models in a source checkout."""


class ModelManifest(BaseModel):
    """The facts of one released model.

    Attributes:
        model: Registry name of the network.
        image_size: Side of the square input the weights were trained for, in pixels.
        weights: File name of the weights, in the folder of the manifest.
        sha256: Of the weights.
        num_parameters: Stored numbers without norm statistics.
        licence: Licence of the weights.
        trained_on: What the weights have seen.
        description: One sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    image_size: int = Field(ge=64, multiple_of=64)
    weights: str = Field("student.safetensors", pattern=r"^[^/\\]+$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    num_parameters: int = Field(gt=0)
    licence: str
    trained_on: str
    description: str


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> ModelManifest:
    """Read and check the manifest of a model folder.

    Raises:
        WeightsError: There is none, it is malformed, or the weights are not the ones it names.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = ModelManifest.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror or error}; give the folder of a model"
        ) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise WeightsError(
            f"{path} is no valid model manifest: {'; '.join(problems)}; correct or fetch it again"
        ) from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise WeightsError(
            f"{path} is no valid model manifest: {error}; correct or fetch it again"
        ) from error
    weights = folder / manifest.weights
    if not weights.is_file():
        raise WeightsError(
            f"{path} names {manifest.weights}, but there is no such file beside it; fetch it again"
        )
    found = sha256_of(weights)
    if found != manifest.sha256:
        raise WeightsError(
            f"{weights} is damaged or was replaced: sha256 {found[:12]}…, the manifest says "
            f"{manifest.sha256[:12]}…; fetch the file again"
        )
    return manifest


def licence_of(weights: Path) -> str:
    """Return the licence a released model's manifest states, or say that none is known."""
    if not (weights.parent / MANIFEST_NAME).is_file():
        return "not stated; see where the weights come from"
    return read_manifest(weights.parent).licence


def write_manifest(folder: Path, manifest: ModelManifest) -> Path:
    """Write `model.toml` into a folder, atomically, and return its path."""
    path = folder / MANIFEST_NAME
    lines = [f"{key} = {_toml(value)}" for key, value in manifest.model_dump().items()]
    text = "\n".join(lines) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path


def find_weights(name_or_path: str | Path) -> Path:
    """Return the weight file meant by a released model's name, a model folder or a file.

    Raises:
        WeightsError: Nothing of that name exists, and the message lists the released models; or the
            folder's manifest does not fit its weights, see `read_manifest`.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    folder = path if (path / MANIFEST_NAME).is_file() else RELEASED / str(name_or_path)
    if (folder / MANIFEST_NAME).is_file():
        return folder / read_manifest(folder).weights
    released = sorted(entry.parent.name for entry in RELEASED.glob(f"*/{MANIFEST_NAME}"))
    raise WeightsError(
        f"no model {str(name_or_path)!r}: it is neither a file, nor a folder with a "
        f"{MANIFEST_NAME}, nor a released model ({', '.join(released) or 'none are installed'}); "
        "give one of these"
    )


def _toml(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes DEL too

"""`model.toml`: what a model is, beside its weights; and where models are found by name."""

import hashlib
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.files import write_atomically
from edgeseg.published_checkpoints import PUBLISHED
from edgeseg.validation import problems_of

MANIFEST_NAME = "model.toml"
RELEASED = Path(__file__).parents[1] / "models"
"""Released models in a source checkout."""
USER_MODELS_VARIABLE = "EDGESEG_MODELS"
"""Environment variable that names the folder of the user's own models."""

LICENCE_UNKNOWN = "not stated; see where the weights come from"

_SHA256 = "^[0-9a-f]{64}$"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ModelManifest(BaseModel):
    """The facts of one model.

    Attributes:
        model: Registry name of the network.
        image_size: Side of the square input the weights were trained for, in pixels.
        weights: File name of the weights, in the folder of the manifest.
        sha256: Of the weights.
        num_parameters: Stored numbers without norm statistics.
        licence: Licence of the weights.
        trained_on: What the weights have seen.
        description: One sentence.
        source: Address or path of the file the weights came from, if `edgeseg models fetch` brought
            them.
        source_sha256: Of that file, as it was before it was stored here.
        source_compared_with: The hash it was found equal to: the published one, one that the user
            gave, or "nothing".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    image_size: int = Field(ge=64, multiple_of=64)
    weights: str = Field("student.safetensors", pattern=r"^[^/\\.][^/\\]*$")
    sha256: str = Field(pattern=_SHA256)
    num_parameters: int = Field(gt=0)
    licence: str
    trained_on: str
    description: str
    source: str | None = None
    source_sha256: str | None = Field(None, pattern=_SHA256)
    source_compared_with: Literal["published", "given", "nothing"] | None = None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path, check_hash: bool = True) -> ModelManifest:
    """Read and check the manifest of a model folder.

    Args:
        folder: Holds `model.toml` and the weights it names.
        check_hash: Compare the weights with their hash, too, which reads them all.

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
        raise WeightsError(
            f"{path} is no valid model manifest: {problems_of(error)}; correct or fetch it again"
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
    if not check_hash:
        return manifest
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
        return LICENCE_UNKNOWN
    return read_manifest(weights.parent).licence


def write_manifest(folder: Path, manifest: ModelManifest) -> Path:
    """Write `model.toml` into a folder, atomically, and return its path."""
    path = folder / MANIFEST_NAME
    facts = manifest.model_dump(exclude_none=True)
    lines = [f"{key} = {_toml(value)}" for key, value in facts.items()]
    text = "\n".join(lines) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path


def user_models() -> Path:
    r"""Return the folder of the models a user brought in; it need not exist.

    That is $EDGESEG_MODELS if it is set, else the place the operating system has for the data of
    programs: `~/.local/share/edgeseg/models` on Linux (or below $XDG_DATA_HOME),
    `~/Library/Application Support/edgeseg/models` on macOS, `%LOCALAPPDATA%\edgeseg\models` on
    Windows.

    Raises:
        ConfigError: This account has no home folder and the variable is not set.
    """
    chosen = os.environ.get(USER_MODELS_VARIABLE)
    try:
        return Path(chosen).expanduser() if chosen else _data_folder() / "edgeseg" / "models"
    except RuntimeError as error:  # pathlib found no home
        raise ConfigError(
            f"there is no folder for your models: {error}; set {USER_MODELS_VARIABLE} to one"
        ) from error


def _data_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    given = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification has relative paths ignored.
    return Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "share"


def is_plain_name(name: str) -> bool:
    """Return whether a model may be called so: letters, digits, dot, hyphen and underscore.

    >>> is_plain_name("sam_vit_b"), is_plain_name("../sam_vit_b"), is_plain_name(".hidden")
    (True, False, False)
    """
    return _PLAIN_NAME.fullmatch(name) is not None


def named_models(place: Path) -> dict[str, Path]:
    """Return the model folders in a place by their names, sorted; none if there is no such place.

    Args:
        place: `RELEASED` or `user_models()`.
    """
    found = sorted(entry.parent for entry in place.glob(f"*/{MANIFEST_NAME}"))
    return {folder.name: folder for folder in found if is_plain_name(folder.name)}


def find_model_folder(name_or_path: str | Path) -> Path | None:
    """Return the folder with `model.toml` meant by a path or a name, or None.

    A path goes before a name, and a released model before one that the user brought in.
    """
    path = Path(name_or_path)
    if (path / MANIFEST_NAME).is_file():
        return path
    name = str(path)
    return named_models(RELEASED).get(name) or named_models(user_models()).get(name)


def find_weights(name_or_path: str | Path) -> Path:
    """Return the weight file meant by a file, a model folder or a model's name, in this order.

    Names are those of the released models of a checkout, then those in the user's own folder, see
    `user_models`.

    Raises:
        WeightsError: Nothing of that name exists, and the message lists the names there are; or the
            folder's manifest does not fit its weights, see `read_manifest`.
        ConfigError: See `user_models`.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    folder = find_model_folder(path)
    if folder is not None:
        return folder / read_manifest(folder).weights
    released, place = named_models(RELEASED), user_models()
    yours = named_models(place)
    own = f", nor one of yours in {place} ({', '.join(yours)})" if yours else ""
    raise WeightsError(
        f"no model {str(name_or_path)!r}: it is neither a file, nor a folder with a "
        f"{MANIFEST_NAME}, nor a released model ({', '.join(released) or 'none are installed'})"
        f"{own}; {how_to_get(str(name_or_path))}"
    )


def how_to_get(name: str) -> str:
    """Return what to do about a model that is not here.

    >>> how_to_get("edgesam")
    'bring it in with: edgeseg models fetch edgesam --from FILE_OR_LINK'
    """
    if name in PUBLISHED:
        return f"bring it in with: edgeseg models fetch {name} --from FILE_OR_LINK"
    return "give one of these"


def _toml(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes DEL too

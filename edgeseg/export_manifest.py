"""`export.json`: what an exported folder holds, beside its files.

An exporter writes it, the runtime reads it, and so can any other program: it names each file with
its hash and its tensors, the preprocessing, and how equal the files were found to PyTorch.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically
from edgeseg.manifest import sha256_of

EXPORT_MANIFEST_NAME = "export.json"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExportedTensor(_Table):
    """One input or output of a file.

    Attributes:
        name: As the file calls it.
        shape: Sizes; a letter stands for any size.
        dtype: numpy's name of the element type.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class ExportedFile(_Table):
    """One graph.

    Attributes:
        path: File or package, relative to the manifest.
        role: What it computes; "fused" is encoder and decoder in one.
        sha256: Of the file; of a package, over the names and hashes of all its files.
        size_bytes: Of the file or of all files of the package.
        inputs: In order.
        outputs: In order.
        notes: What is worth knowing, such as layers that quantisation left alone.
    """

    path: str = Field(pattern=r"^[^/\\.][^/\\]*$")
    role: Literal["encoder", "decoder", "proposals", "fused"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    inputs: tuple[ExportedTensor, ...]
    outputs: tuple[ExportedTensor, ...]
    notes: tuple[str, ...] = ()


class ParityFigures(_Table):
    """How far a file's output was from PyTorch's over all cases.

    Attributes:
        output: File and tensor, such as "decoder.low_res_logits".
        max_difference: Largest absolute difference.
        mean_difference: Mean absolute difference.
        relative_error: Largest root mean square of a case's differences, over that of PyTorch's
            numbers; None for masks.
        min_mask_iou: Smallest IoU with PyTorch's of an image's masks, or of those of a kind of
            prompt, together; None for outputs that are no masks.
        num_cases: Cases compared.
    """

    output: str
    max_difference: float
    mean_difference: float
    relative_error: float | None = None
    min_mask_iou: float | None = None
    num_cases: int


class AccuracyFigures(_Table):
    """How well a file segments labelled images, beside PyTorch.

    Attributes:
        prompt_set: What was asked, such as "box" or "center".
        miou: Mean IoU with the labels, mean over domains, 0 to 1.
        miou_pytorch: The same of the network in PyTorch, on the same objects.
        num_objects: Objects asked for.
    """

    prompt_set: str
    miou: float
    miou_pytorch: float
    num_objects: int


class ExportManifest(_Table):
    """The facts of one exported folder.

    Attributes:
        model: Registry name of the network.
        target: Name of the target it was exported for.
        format: "onnx", "coreml", or "onnx_sam_compatible" with the tensors of SAM's own export.
        precision: Weights and arithmetic, such as "float32", "float16" or "int8".
        image_size: Side S of the model input, in pixels.
        normalises: Whether the graphs take uint8 RGB and normalise themselves.
        pixel_mean: Mean of R, G, B on the 0..255 scale.
        pixel_std: Standard deviation of R, G, B on the 0..255 scale.
        padding: What fills the right and bottom of the square input, in words.
        files: The graphs.
        parity: Figures against PyTorch, from the proof that let the files be kept.
        accuracy: On labelled images, if some were given to the proof.
        versions: Of the programs that made the files.
        weights_sha256: Of the weights that were exported.
        licence: Licence of the weights.
    """

    format_version: Literal[1] = 1
    model: str
    target: str
    format: Literal["onnx", "onnx_sam_compatible", "coreml"]
    precision: str
    image_size: int = Field(ge=64, multiple_of=64)
    normalises: bool
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    padding: str
    files: tuple[ExportedFile, ...]
    parity: tuple[ParityFigures, ...] = ()
    accuracy: tuple[AccuracyFigures, ...] = ()
    versions: dict[str, str]
    weights_sha256: str
    licence: str

    def file(self, role: str) -> ExportedFile | None:
        """Return the file with a role, or None."""
        return next((file for file in self.files if file.role == role), None)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a package: over its files' names and hashes in order."""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file or of all files of a package."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def read_export(folder: Path, check_hashes: bool = True) -> ExportManifest:
    """Read and check the manifest of an exported folder.

    Args:
        folder: What `edgeseg export` wrote.
        check_hashes: Compare each file with its hash, too.

    Raises:
        WeightsError: There is none, it is malformed, or a file is missing or not the one it names.
    """
    path = folder / EXPORT_MANIFEST_NAME
    try:
        manifest = ExportManifest.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror or error}; give a folder that "
            "`edgeseg export` wrote"
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{path} is no valid export manifest: {str(error).splitlines()[0]}; export again"
        ) from error
    for file in manifest.files:
        place = folder / file.path
        if not place.exists():
            raise WeightsError(f"{path} names {file.path}, which is missing; export again")
        if check_hashes and hash_of(place) != file.sha256:
            raise WeightsError(
                f"{place} is damaged or was replaced: its sha256 is not the one in "
                f"{EXPORT_MANIFEST_NAME}; export again"
            )
    return manifest


def write_export(folder: Path, manifest: ExportManifest) -> Path:
    """Write `export.json` into a folder, atomically, and return its path."""
    path = folder / EXPORT_MANIFEST_NAME
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path

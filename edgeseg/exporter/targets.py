"""What a model is exported to: one TOML file a target, validated, with unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeseg.errors import ConfigError
from edgeseg.signature import PromptSlots


class Table(BaseModel):
    """A table of the file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SlotsConfig(Table):
    """How many prompts and points a decoder takes in one call; absent: any number.

    Attributes:
        num_prompts: Prompts a call.
        num_points: Points and box corners of a prompt; a box takes two.
    """

    num_prompts: int | None = Field(default=None, ge=1, le=1024)
    num_points: int | None = Field(default=None, ge=2, le=64)

    @property
    def slots(self) -> PromptSlots:
        """The same for the runtime."""
        return PromptSlots(self.num_prompts, self.num_points)


class ToleranceConfig(Table):
    """How far a file may be from PyTorch; the reasons stand in export/README.md.

    Attributes:
        max_logit_difference: Largest difference of mask logits and of scores, or None.
        max_feature_error: Largest relative error of the encoder's features (root mean square of the
            differences over that of the features), or None.
        min_mask_iou: Smallest IoU with PyTorch's that the masks of an image, or of a kind of
            prompt, may have together.
        max_miou_loss: Largest loss of mIoU on labelled images, in points, or None. It is measured
            when labelled images are given, and otherwise reported as skipped.
    """

    max_logit_difference: float | None = Field(default=None, gt=0)
    max_feature_error: float | None = Field(default=None, gt=0)
    min_mask_iou: float = Field(gt=0, le=1)
    max_miou_loss: float | None = Field(default=None, gt=0)


class CalibrationConfig(Table):
    """Images that tell static quantisation the range of every tensor.

    Attributes:
        num_images: How many of the images given are used, spread over them evenly.
        max_error: Layers stay in floating point, the most sensitive first, until the relative error
            of the encoder's features is below this.
    """

    num_images: int = Field(default=32, ge=1)
    max_error: float = Field(default=0.1, gt=0)


class CompressionConfig(Table):
    """Weights of a Core ML package in fewer bits, through coremltools.optimize.

    Attributes:
        kind: "linear8" for 8-bit linear, "palette6" and "palette4" for k-means palettes.
        min_values: Tensors with fewer numbers stay as they are.
        palette_min_values: Tensors with fewer numbers become 8-bit linear instead of a palette.
    """

    kind: Literal["linear8", "palette6", "palette4"]
    min_values: int = Field(default=2048, ge=0)
    palette_min_values: int = Field(default=50_000, ge=0)


class ExportTarget(Table):
    """Format, precision and proof of one export.

    Attributes:
        name: Of the target; the name of its file.
        description: One sentence: for which device or program.
        format: "onnx", "onnx_sam_compatible" (the tensors of SAM's own ONNX export) or "coreml".
        precision: Arithmetic and weights. "int8_dynamic" quantises the weights of matrix products,
            "int8" weights and activations, which needs calibration images.
        opset: ONNX operator set.
        deployment_target: Oldest iOS a Core ML package runs on.
        normalises: Take uint8 RGB and normalise inside the graph.
        fused: Also write encoder and decoder in one file.
        slots: Fixed numbers of prompts and points.
        compression: Core ML weight compression.
        calibration: For "int8".
        runs_on: Runtimes whose operators the graphs are checked against; one they would not take
            fails the export.
        tolerance: What the proof demands.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    description: str
    format: Literal["onnx", "onnx_sam_compatible", "coreml"]
    precision: Literal["float32", "float16", "int8_dynamic", "int8"] = "float32"
    opset: int = Field(default=18, ge=18, le=23)
    deployment_target: Literal["iOS16", "iOS17", "iOS18"] = "iOS16"
    normalises: bool = False
    fused: bool = False
    slots: SlotsConfig = SlotsConfig()
    compression: CompressionConfig | None = None
    calibration: CalibrationConfig | None = None
    runs_on: tuple[Literal["neural_engine", "tensorrt", "webgpu"], ...] = ()
    tolerance: ToleranceConfig

    @property
    def num_calibration_images(self) -> int:
        """How many photographs tell the ranges of tensors: for int8, and a few for float16."""
        if self.calibration is not None:
            return self.calibration.num_images
        return 4 if self.format == "onnx" and self.precision == "float16" else 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        coreml = self.format == "coreml"
        if coreml and (self.slots.num_prompts is None or self.slots.num_points is None):
            raise ValueError("a Core ML target needs slots.num_prompts and slots.num_points")
        if coreml and self.precision.startswith("int8"):
            raise ValueError("Core ML weights are compressed by [compression], not by precision")
        if self.compression is not None and not coreml:
            raise ValueError("[compression] is for Core ML; use precision for ONNX")
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError("precision int8 and [calibration] belong together")
        if "neural_engine" in self.runs_on and not coreml:
            raise ValueError("only Core ML packages run on the Neural Engine")
        return self


def read_target(path: Path) -> ExportTarget:
    """Read a target from a TOML file; its name is the file's.

    Raises:
        ConfigError: The file cannot be read or a setting is unknown, out of range or contradictory.
    """
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the target {path}: {error.strerror or error}; give a TOML file"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is no TOML file: {error}; correct it") from error
    try:
        return ExportTarget.model_validate({"name": path.stem, **settings})
    except ValidationError as error:
        problems = [_problem(entry["loc"], entry["msg"]) for entry in error.errors()]
        raise ConfigError(f"{path} is no valid target: {'; '.join(problems)}") from error


def _problem(location: tuple[int | str, ...], message: str) -> str:
    if message.startswith("Extra inputs"):
        message = f"unknown; known here are {', '.join(ExportTarget.model_fields)}"
    return f"{'.'.join(map(str, location)) or 'target'}: {message}"


def find_target(name_or_path: str) -> ExportTarget:
    """Return a target by the name of one that travels with the package, or by the path of a file.

    Raises:
        ConfigError: There is none of that name, or it is not valid.
    """
    if name_or_path.endswith(".toml"):
        return read_target(Path(name_or_path))
    known = target_names()
    if name_or_path not in known:
        raise ConfigError(
            f"no target {name_or_path!r}; targets are {', '.join(known)}, or give a .toml file"
        )
    return read_target(_folder() / f"{name_or_path}.toml")


def target_names() -> tuple[str, ...]:
    """Return the names of the targets that travel with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def _folder() -> Path:
    """Return the folder of targets: inside an installed wheel, else of the source checkout."""
    installed = Path(__file__).with_name("release_targets")
    return installed if installed.is_dir() else Path(__file__).parents[2] / "export" / "targets"

"""Exported Core ML packages run by Core ML; macOS only."""

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, PlatformError, WeightsError, missing_extra
from edgeseg.export_manifest import ExportedFile, ExportManifest
from edgeseg.runtime.exported_model import ExportedModel, read_graphs
from edgeseg.signature import IMAGE_RGB, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

COMPUTE_UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")
"""What Core ML may use; "ne" is the Neural Engine."""


class CoreMLModel(Protocol):
    """What is needed of a `coremltools.models.MLModel`."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Compute all outputs from all inputs, by name."""


LoadModel = Callable[[Path, str], CoreMLModel]
"""Package and compute units -> model."""


def load_mlmodel(path: Path, compute_units: str) -> CoreMLModel:
    """Load a package with coremltools.

    Raises:
        PlatformError: This is no macOS.
        MissingExtraError: coremltools is not installed.
        WeightsError: Core ML cannot open the package.
    """
    if sys.platform != "darwin":
        raise PlatformError(
            f"Core ML runs on macOS, this is {sys.platform}; export an ONNX target and load it "
            "with backend='onnx'"
        )
    try:
        import coremltools
    except ModuleNotFoundError as error:
        raise missing_extra("coremltools", "export") from error
    units = coremltools.ComputeUnit[compute_units.upper()]
    try:
        model: CoreMLModel = coremltools.models.MLModel(str(path), compute_units=units)
    except Exception as error:  # coremltools passes on whatever Core ML says
        raise WeightsError(
            f"Core ML cannot open {path}: {str(error).splitlines()[0]}; export it again"
        ) from error
    return model


def open_coreml(
    folder: Path | str,
    compute_units: str = "all",
    load_model: LoadModel = load_mlmodel,
) -> ExportedModel:
    """Open an exported folder of Core ML packages. Threads may share it; its calls take turns.

    Args:
        folder: What `edgeseg export` wrote, in the format "coreml".
        compute_units: One of `COMPUTE_UNITS`.
        load_model: How to open a package.

    Raises:
        PlatformError: This is no macOS.
        MissingExtraError: coremltools is not installed.
        WeightsError: The folder or a package is missing, damaged, or not what its manifest says.
        ConfigError: The compute units are unknown.
    """
    if compute_units not in COMPUTE_UNITS:
        raise ConfigError(
            f"unknown compute units {compute_units!r}; choose one of {', '.join(COMPUTE_UNITS)}"
        )
    manifest, paths = read_graphs(Path(folder), "coreml")
    graphs = {
        role: _CoreMLGraph(load_model(path, compute_units), _file(manifest, role), compute_units)
        for role, path in paths.items()
    }
    return ExportedModel(manifest, **graphs)


class _CoreMLGraph:
    """One package as a `Graph`, described by the manifest: the package itself names no dtypes."""

    def __init__(self, model: CoreMLModel, file: ExportedFile, compute_units: str) -> None:
        self.runs_on = (compute_units,)  # Core ML does not tell more
        self._model = model
        self._turn = threading.Lock()  # Apple promises one thread a model at a time
        self.inputs = [TensorSpec(t.name, t.shape, t.dtype) for t in file.inputs]  # type: ignore[arg-type]
        self.output_names = [tensor.name for tensor in file.outputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        data: dict[str, Any] = dict(feeds)
        if IMAGE_RGB in data:
            data[IMAGE_RGB] = _picture(data[IMAGE_RGB])
        with self._turn:
            answers = self._model.predict(data)
        return {name: np.asarray(answers[name]) for name in self.output_names}


def _picture(pixels: NDArray[np.uint8]) -> "Image":
    """Return the image object that Core ML's image inputs take."""
    try:
        from PIL.Image import fromarray
    except ModuleNotFoundError as error:
        raise missing_extra("pillow", "export") from error
    return fromarray(pixels)


def _file(manifest: ExportManifest, role: str) -> ExportedFile:
    file = manifest.file(role)
    assert file is not None  # `read_graphs` has looked
    return file

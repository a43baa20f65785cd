"""What is used of coremltools' benchmark: models that it takes, inputs, and shares of a plan."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import BenchError, missing_extra
from edgeseg.export_manifest import ExportedFile, ExportedTensor
from edgeseg.signature import HAS_MASK, IMAGE_RGB, POINT_LABELS, POINTS_XY_MODEL

_UNITS = {
    "MLNeuralEngineComputeDevice": "neural engine",
    "MLGPUComputeDevice": "gpu",
    "MLCPUComputeDevice": "cpu",
}
"""Classes of `coremltools.models.compute_device`."""

Inputs = dict[str, object]
"""Arrays and pictures by name."""
Message = Any
"""A protobuf message."""


class Statistics(Protocol):
    """What is needed of `MLModelBenchmarker.Statistics`."""

    average: float


class Timed(Protocol):
    """What is needed of `MLModelBenchmarker.Measurement`; times are in milliseconds."""

    samples: list[float]
    statistics: Statistics | None


class DeviceUsage(Protocol):
    """What is needed of `MLComputePlanDeviceUsage`."""

    preferred_compute_device: object


class Operation(Protocol):
    """What is needed of `MLModelBenchmarker.OperationExecutionInfo`."""

    compute_device_usage: DeviceUsage | None
    measurement: Timed


class LoadedModel(Protocol):
    """What is needed of `MLModelAsyncWrapper`."""

    async def unload(self) -> None:
        """Free it where it is."""


class Benchmarker(Protocol):
    """What is needed of `MLModelBenchmarker`."""

    _loaded_model: LoadedModel | None

    async def benchmark_predict(
        self, inputs: Inputs | None = None, iterations: int = 1, warmup: bool = False
    ) -> Timed:
        """Time calls one by one."""

    async def benchmark_operation_execution(
        self, inputs: Inputs | None = None, iterations: int = 1, warmup: bool = False
    ) -> list[Operation]:
        """Time calls, and share the time between the operations of the compute plan."""


class AppSession(Protocol):
    """What is needed of a `Device`'s session."""

    def stop(self) -> None:
        """End the app."""


class Phone(Protocol):
    """What is needed of a `Device`."""

    udid: str
    os_version: str
    session: AppSession

    async def prepare_for_model_debugging(self, credentials: object) -> "Phone":
        """Build, install and start coremltools' app; return the device with its session."""


@dataclass(frozen=True)
class CoreMLKit:
    """Parts of coremltools, which takes seconds to import and is only whole on a Mac.

    Attributes:
        open_model: Package, compute units, and whether pixels come as an array -> an `MLModel` that
            is not loaded yet.
        benchmarker: `MLModelBenchmarker`.
        connected_iphones: The `Device`s that are connected.
        credentials: `AppSigningCredentials`.
    """

    open_model: Callable[[Path, str, bool], object]
    benchmarker: Callable[..., Benchmarker]
    connected_iphones: Callable[[], list[Phone]]
    credentials: Callable[..., object]


def load_kit() -> CoreMLKit:
    """Import coremltools.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import coremltools  # noqa: F401  # parts of it may be loaded where it is hidden
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
        from coremltools.models.ml_program.experimental.remote_device import (
            AppSigningCredentials,
            Device,
            DeviceType,
        )
    except ModuleNotFoundError as error:
        raise missing_extra("coremltools", "export") from error
    return CoreMLKit(
        open_model=open_model,
        benchmarker=MLModelBenchmarker,
        connected_iphones=lambda: Device.get_connected_devices(device_type=DeviceType.IPHONE),
        credentials=AppSigningCredentials,
    )


def open_model(path: Path, compute_units: str, pixels_as_array: bool) -> object:
    """Describe a package to coremltools without loading it into Core ML.

    Args:
        path: The package.
        compute_units: "all", "cpu_only", "cpu_and_gpu" or "cpu_and_ne".
        pixels_as_array: Declare image inputs as the arrays that the program computes with,
            (1, 3, S, S), since an image cannot be sent to a phone. What is computed stays the same.

    Raises:
        BenchError: coremltools cannot read the package.
    """
    import coremltools

    units = coremltools.ComputeUnit[compute_units.upper()]
    settings = {"compute_units": units, "skip_model_load": True}
    try:
        model = coremltools.models.MLModel(str(path), **settings)
        if not pixels_as_array:
            return model
        spec = model.get_spec()
        declare_pixels_as_array(spec)
        return coremltools.models.MLModel(spec, weights_dir=model.weights_dir, **settings)
    except Exception as error:  # coremltools has no errors of its own
        raise BenchError(
            f"coremltools cannot read {path}: {first_line(error)}; export it again"
        ) from error


def declare_pixels_as_array(spec: Message) -> None:
    """Give image inputs of an ML Program's specification the type of its tensors, in place."""
    tensors = {
        tensor.name: tensor.type.tensorType
        for function in spec.mlProgram.functions.values()
        for tensor in function.inputs
    }
    for feature in spec.description.input:
        if feature.type.WhichOneof("Type") == "imageType":
            tensor = tensors[feature.name]
            array = feature.type.multiArrayType  # taking it replaces the image type
            array.shape.extend(size.constant.size for size in tensor.dimensions)
            kind = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type
            name = kind.values_by_number[tensor.dataType].name  # FLOAT16 or FLOAT32, here as there
            array.dataType = array.ArrayDataType.Value(name)


def random_inputs(file: ExportedFile, image_size: int, as_image: bool) -> Inputs:
    """Return inputs for one call: a random image, clicks on it, no mask prompts.

    Args:
        file: Whose inputs.
        image_size: Side S of the model input, in pixels.
        as_image: Whether pixels come as a picture, or as (1, 3, S, S) float32 from 0 to 255.
    """
    generator = np.random.default_rng(0)
    return {
        tensor.name: _random_input(tensor, image_size, as_image, generator)
        for tensor in file.inputs
    }


def _random_input(
    tensor: ExportedTensor, image_size: int, as_image: bool, generator: np.random.Generator
) -> object:
    if tensor.name == IMAGE_RGB:
        pixels = generator.integers(0, 256, (image_size, image_size, 3), np.uint8)
        if as_image:
            return _picture(pixels)
        # coremltools sends bytes in C order, whatever the strides say.
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    shape = tuple(map(int, tensor.shape))
    if tensor.name == POINT_LABELS:
        return np.ones(shape, tensor.dtype)
    if tensor.name == HAS_MASK:
        return np.zeros(shape, tensor.dtype)
    end = image_size if tensor.name == POINTS_XY_MODEL else 1.0
    return generator.uniform(0, end, shape).astype(tensor.dtype)


def _picture(pixels: NDArray[np.uint8]) -> object:
    try:
        from PIL.Image import fromarray
    except ModuleNotFoundError as error:
        raise missing_extra("pillow", "export") from error
    return fromarray(pixels)


def compute_unit_shares(operations: Iterable[Operation]) -> str:
    """Return which share of operations each compute unit is planned to take, largest first.

    Constants have no compute unit and do not count.

    Args:
        operations: `MLModelBenchmarker.OperationExecutionInfo` of each.
    """
    counts: dict[str, int] = {}
    costs: dict[str, float] = {}
    for operation in operations:
        if operation.compute_device_usage is None:
            continue
        unit = _unit(operation.compute_device_usage.preferred_compute_device)
        statistics = operation.measurement.statistics
        counts[unit] = counts.get(unit, 0) + 1
        costs[unit] = costs.get(unit, 0.0) + (0.0 if statistics is None else statistics.average)
    if not counts:
        return "compute plan empty"
    shares = _percentages(counts)
    if not sum(costs.values()):
        return f"{shares} of operations"
    return f"{shares} of operations ({_percentages(costs)} of estimated cost)"


def _unit(device: object) -> str:
    name = type(device).__name__
    return _UNITS.get(name, name)


def _percentages(amounts: Mapping[str, float]) -> str:
    total = sum(amounts.values())
    order = sorted(amounts, key=lambda unit: -amounts[unit])
    return ", ".join(f"{unit} {100 * amounts[unit] / total:.0f} %" for unit in order)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Exported ONNX files run by OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, WeightsError, missing_extra
from edgeseg.runtime.exported_model import ExportedModel, read_graphs
from edgeseg.signature import Precision, TensorSpec

if TYPE_CHECKING:
    import openvino


def open_openvino(
    folder: Path | str, threads: int | None = None, device: str = "CPU"
) -> ExportedModel:
    """Open an exported folder of ONNX files with OpenVINO. Threads may share the result.

    Args:
        folder: What `edgeseg export` wrote, in the format "onnx".
        threads: Threads of one call on the CPU; default: OpenVINO's choice.
        device: OpenVINO's name of the device, such as "CPU", "GPU", "NPU" or "AUTO".

    Returns:
        A backend; its `runs_on` names the devices that really run it.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        WeightsError: The folder or a file is missing, damaged, or not what its manifest says.
        ConfigError: There is no such device; or `threads` is below 1.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", "openvino") from error

    manifest, paths = read_graphs(Path(folder), "onnx")
    engine = openvino.Core()
    _check_device(device, engine.available_devices)
    settings = _settings(threads, device, manifest.precision)
    graphs = {role: _OpenVinoGraph(engine, path, device, settings) for role, path in paths.items()}
    return ExportedModel(manifest, **graphs)


class _OpenVinoGraph:
    """One compiled file as a `Graph`; every call has an inference request of its own."""

    def __init__(
        self, engine: "openvino.Core", path: Path, device: str, settings: Mapping[str, Any]
    ) -> None:
        try:
            self._compiled = engine.compile_model(engine.read_model(path), device, dict(settings))
        except RuntimeError as error:
            reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
            raise WeightsError(
                f"OpenVINO cannot run {path} on {device}: {reason}; export it again or use "
                "backend='onnx'"
            ) from error
        self.inputs = [_spec(port) for port in self._compiled.inputs]
        self.output_names = [port.get_any_name() for port in self._compiled.outputs]
        self.runs_on = tuple(self._compiled.get_property("EXECUTION_DEVICES"))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        answers = self._compiled.create_infer_request().infer(dict(feeds))
        return {name: answers[name] for name in self.output_names}


def _settings(threads: int | None, device: str, precision: str) -> dict[str, Any]:
    if threads is not None and threads < 1:
        raise ConfigError(
            f"threads must be 1 or more, got {threads}; leave it out for OpenVINO's choice"
        )
    settings: dict[str, Any] = {}
    if device != "CPU":
        return settings
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    if precision == "float32":  # or OpenVINO computes in bfloat16 where the CPU can
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    return settings


def _check_device(device: str, available: list[str]) -> None:
    family = device.split(":")[0].split(".")[0]  # "AUTO:GPU,CPU" and "GPU.1"
    if family not in {"AUTO", "HETERO", "MULTI", *(name.split(".")[0] for name in available)}:
        raise ConfigError(
            f"OpenVINO has no device {device!r} here; choose AUTO or {', '.join(available)}"
        )


def _spec(port: "openvino.ConstOutput") -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else "?" for size in port.get_partial_shape())
    dtype: Precision = np.dtype(port.get_element_type().to_dtype()).name
    return TensorSpec(port.get_any_name(), shape, dtype)

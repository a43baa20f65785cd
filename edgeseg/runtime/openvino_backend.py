"""OpenVINO behind the interface that `Segmenter` asks of a backend."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, WeightsError, missing_extra
from edgeseg.runtime.exported_model import ExportedModel, read_pair
from edgeseg.signature import Precision, TensorSpec

if TYPE_CHECKING:
    import openvino


class OpenVinoBackend:
    """Run an exported folder of ONNX files with OpenVINO. Threads may share it.

    Args:
        folder: What `edgeseg export` wrote, in the format "onnx".
        threads: Threads of one call on the CPU; default: OpenVINO's choice.
        device: OpenVINO's name of the device, such as "CPU", "GPU", "NPU" or "AUTO".

    Attributes:
        name: Registry name of the exported model.
        image_size: Side S of the square input, in pixels.
        normalises: Whether `encode` takes (S, S, 3) uint8 instead of normalised floats.
        slots: How many prompts and points the decoder takes in one call; more are split up.
        devices_used: For "encoder" and "decoder" the devices that really run it.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        WeightsError: The folder or a file is missing, damaged, or not what its manifest says.
        ConfigError: There is no such device; or `threads` is below 1.
    """

    def __init__(self, folder: Path | str, threads: int | None = None, device: str = "CPU") -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise missing_extra("openvino", "openvino") from error

        manifest, encoder_path, decoder_path = read_pair(Path(folder), "onnx")
        engine = openvino.Core()
        _check_device(device, engine.available_devices)
        settings = _settings(threads, device, manifest.precision)
        encoder = _OpenVinoGraph(engine, encoder_path, device, settings)
        decoder = _OpenVinoGraph(engine, decoder_path, device, settings)
        self.devices_used = {"encoder": encoder.devices_used, "decoder": decoder.devices_used}
        self._model = ExportedModel(manifest, encoder, decoder)
        self.name = self._model.name
        self.image_size = self._model.image_size
        self.normalises = self._model.normalises
        self.slots = self._model.slots

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode one model input; see `edgeseg.runtime.backend.Backend`."""
        return self._model.encode(pixels)

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode N prompts of one image; see `edgeseg.runtime.backend.Backend`."""
        return self._model.decode(features, points_xy, point_labels, mask_logits, has_mask)


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
        self.devices_used = tuple(self._compiled.get_property("EXECUTION_DEVICES"))

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

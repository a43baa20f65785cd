"""All drivers by name."""

import importlib
from collections.abc import Callable

from edgeseg.bench.adb import AdbDriver
from edgeseg.bench.coreml_devices import CoreMLBenchmarkDriver, IPhoneDriver
from edgeseg.bench.driver import CallDriver, Driver, Opened, Request
from edgeseg.bench.runtime_driver import RuntimeDriver
from edgeseg.bench.trtexec import TrtexecDriver

_NOT_ON_DEVICE = "never ran on such a device here"


class _PyTorchLater:
    """A driver that needs PyTorch, which is imported only when it is used.

    Args:
        name: As suites call it.
        about: Where it runs.
        class_name: In `edgeseg.bench.pytorch_driver`.
        untested: As for every driver.
    """

    target: str | None = None

    def __init__(self, name: str, about: str, class_name: str, untested: str = "") -> None:
        self.name, self.about, self.untested = name, about, untested
        self._class_name = class_name

    def unavailable(self) -> str | None:
        """Return why it cannot run here, or None."""
        try:
            found: str | None = self._driver().unavailable()
        except ModuleNotFoundError:
            return "PyTorch is not installed; run: pip install 'edgeseg[train]'"
        return found

    def open(self, request: Request) -> Opened:
        """Load a model."""
        opened: Opened = self._driver().open(request)
        return opened

    def _driver(self) -> CallDriver:
        module = importlib.import_module("edgeseg.bench.pytorch_driver")
        build: Callable[[], CallDriver] = getattr(module, self._class_name)
        return build()


def all_drivers() -> dict[str, Driver]:
    """Return every driver, by the name that suites use."""
    drivers: list[Driver] = [
        RuntimeDriver("onnx", "ONNX Runtime on the processor"),
        RuntimeDriver("onnx:cuda", "ONNX Runtime on an NVIDIA GPU", untested=_NOT_ON_DEVICE),
        RuntimeDriver(
            "onnx:tensorrt",
            "ONNX Runtime with TensorRT",
            target="onnx_tensorrt",
            untested=_NOT_ON_DEVICE,
        ),
        RuntimeDriver("onnx:coreml", "ONNX Runtime with Core ML", untested=_NOT_ON_DEVICE),
        RuntimeDriver("onnx:openvino", "ONNX Runtime with OpenVINO", untested=_NOT_ON_DEVICE),
        RuntimeDriver("openvino", "OpenVINO on the processor"),
        RuntimeDriver("openvino:GPU", "OpenVINO on an Intel GPU", untested=_NOT_ON_DEVICE),
        RuntimeDriver("coreml", "Core ML on this Mac", "coreml_fp16", _NOT_ON_DEVICE),
        _PyTorchLater("pytorch", "PyTorch on the processor", "PyTorchDriver"),
        _PyTorchLater(
            "pytorch:cuda",
            "PyTorch on an NVIDIA GPU, timed by CUDA events",
            "CudaDriver",
            "tested on a processor that plays the GPU, not yet on a device",
        ),
        TrtexecDriver(),
        AdbDriver(),
        CoreMLBenchmarkDriver(),
        IPhoneDriver(),
    ]
    return {driver.name: driver for driver in drivers}

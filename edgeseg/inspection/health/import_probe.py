"""Loads one package in a process of its own and says what devices it has.

Run by path, so that it needs nothing of EdgeSeg: a package that is broken, crashes or hangs then
takes nobody with it. Writes one line to stdout: `MARK` and a JSON object with either `error`, or
`devices`, `missing` (devices it was built for and cannot use) and `warnings`.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

MARK = "edgeseg-probe: "

Devices = tuple[list[str], list[str]]
"""Devices that can be used, and those it was built for but cannot use."""

IDENTITY_ONNX = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model of one operation, Identity of one float32: enough to start a provider with."""


def torch_devices(torch: Any) -> Devices:  # noqa: ANN401 - a module that may not be installed
    """Return what PyTorch can compute on."""
    devices, missing = ["cpu"], []
    build = torch.version.cuda or getattr(torch.version, "hip", None)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            devices.append(f"cuda:{index} {facts.name} {facts.total_memory / 1e9:.1f} GB")
    elif build:
        missing.append(f"cuda (built for {build})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices, missing


def onnxruntime_providers(onnxruntime: Any) -> Devices:  # noqa: ANN401
    """Return the execution providers that start; TensorRT's is not tried, it would take long."""
    devices: list[str] = []
    missing: list[str] = []
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for provider in onnxruntime.get_available_providers():
        used = [provider]
        if provider != "TensorrtExecutionProvider":
            session = onnxruntime.InferenceSession(IDENTITY_ONNX, options, providers=[provider])
            used = session.get_providers()
        (devices if provider in used else missing).append(provider)
    return devices, missing


def openvino_devices(openvino: Any) -> Devices:  # noqa: ANN401
    """Return OpenVINO's devices with the names of their makers."""
    engine = openvino.Core()
    names = engine.available_devices
    return [f"{name} {engine.get_property(name, 'FULL_DEVICE_NAME')}" for name in names], []


def no_devices(module: ModuleType) -> Devices:
    """Return nothing, for packages that only have to load."""
    return [], []


DEVICES_OF: dict[str, Callable[[Any], Devices]] = {
    "torch": torch_devices,
    "onnxruntime": onnxruntime_providers,
    "openvino": openvino_devices,
}


def probe(name: str) -> dict[str, Any]:
    """Import a module and return what is found."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            module = importlib.import_module(name)
            devices, missing = DEVICES_OF.get(name, no_devices)(module)
        except (Exception, SystemExit) as error:  # a module does as it likes when it is imported
            return {"error": f"{type(error).__name__}: {error}"}
    texts = [str(warning.message) for warning in caught]
    return {"devices": devices, "missing": missing, "warnings": texts}


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(probe(sys.argv[1]))}\n")
    sys.stdout.flush()

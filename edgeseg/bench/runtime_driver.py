"""Exported files through the runtime that apps use: ONNX Runtime, OpenVINO, Core ML."""

import importlib.util
import sys
from dataclasses import dataclass

from edgeseg.bench.calls import segmenter_calls
from edgeseg.bench.driver import Opened, Request, exported_card
from edgeseg.export_manifest import read_export
from edgeseg.runtime.exported_model import ExportedModel
from edgeseg.runtime.loading import load


@dataclass(frozen=True)
class RuntimeDriver:
    """Runs what `edgeseg.load` runs; see `edgeseg.bench.driver.Driver`.

    Attributes:
        name: Backend of `edgeseg.load`, such as "onnx:cuda".
        about: Where it runs.
        target: What to export for it.
        untested: Why its figures should be looked at twice, or empty.
    """

    name: str
    about: str
    target: str | None = "onnx_fp32"
    untested: str = ""

    def unavailable(self) -> str | None:
        """Return why it cannot run here, or None."""
        runner, _, place = self.name.partition(":")
        if runner == "coreml":
            return None if sys.platform == "darwin" else "Core ML exists on Apple devices only"
        if runner == "openvino":
            return _openvino_lacks(place or "CPU")
        return _onnxruntime_lacks(place or "cpu")

    def open(self, request: Request) -> Opened:
        """Load the files and prepare a call of each part."""
        assert request.folder is not None
        segmenter = load(request.folder, self.name, request.threads, strict=True)
        assert isinstance(segmenter.backend, ExportedModel)
        label = request.contender.label
        calls, missing = segmenter_calls(segmenter, request.parts, request.photo, label)
        runs_on = ", ".join(segmenter.backend.runs_on["encoder"])
        manifest = read_export(request.folder, check_hashes=False)
        return Opened(exported_card(request.contender, manifest, runs_on), calls, missing)


def _onnxruntime_lacks(place: str) -> str | None:
    import onnxruntime

    from edgeseg.runtime.onnx_providers import PROVIDERS

    provider = PROVIDERS[place]
    if provider in onnxruntime.get_available_providers():
        return None
    return (
        f"this onnxruntime has no {provider}; install the onnxruntime package that brings it, such "
        "as onnxruntime-gpu or onnxruntime-openvino"
    )


def _openvino_lacks(device: str) -> str | None:
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed; run: pip install 'edgeseg[openvino]'"
    import openvino

    available = openvino.Core().available_devices
    if any(name.split(".")[0] == device for name in available):
        return None
    return f"OpenVINO finds no {device} here, only {', '.join(available)}"

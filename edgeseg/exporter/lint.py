"""Which operations of an exported file a runtime would not take.

A file may be correct and still slow: Core ML, TensorRT and ONNX Runtime Web move what they do not
know to a CPU, or refuse the file on the device. This reads a file without running it. It knows what
the tables of its modules know, and those name their sources; a device has the last word.
"""

from pathlib import Path
from typing import Any, Literal

from edgeseg.errors import ExportError, missing_extra
from edgeseg.exporter.coreml_tools import load_coremltools
from edgeseg.exporter.lint_findings import Finding, Runtime, check_lint
from edgeseg.exporter.lint_neural_engine import lint_program
from edgeseg.exporter.lint_onnx_graphs import OnnxFacts, lint_tensorrt, lint_webgpu
from edgeseg.exporter.mil.package import MilPackage, load_package

__all__ = ["Finding", "Runtime", "check_lint", "lint_coreml", "lint_onnx"]


def lint_coreml(
    package: Path | MilPackage, runtime: Literal["neural_engine"] = "neural_engine"
) -> list[Finding]:
    """List what the Neural Engine would not take of a Core ML package.

    Args:
        package: A `.mlpackage` folder, or what `load_package` made of it.
        runtime: Only "neural_engine"; CPU and GPU take every ML Program.

    Raises:
        ExportError: The runtime is another one, or the package cannot be read.
        MissingExtraError: coremltools, which reads the package, is not installed.
    """
    _check_runtime(runtime, ("neural_engine",), "a Core ML package")
    if isinstance(package, Path):
        load_coremltools()
        package = load_package(package)
    return list(lint_program(package))


def lint_onnx(
    model: Path | Any,  # noqa: ANN401 - onnx.ModelProto, and onnx is optional
    runtime: Literal["tensorrt", "webgpu"],
) -> list[Finding]:
    """List what TensorRT or ONNX Runtime Web would not take of an ONNX file.

    Args:
        model: A file, or an `onnx.ModelProto`.
        runtime: "tensorrt" or "webgpu".

    Raises:
        ExportError: The runtime is another one, or the file cannot be read.
        MissingExtraError: onnx is not installed.
    """
    _check_runtime(runtime, ("tensorrt", "webgpu"), "an ONNX file")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra("onnx", "export") from error
    if isinstance(model, Path):
        try:
            model = onnx.load(model)
        except Exception as error:  # protobuf and onnx raise what they please
            raise ExportError(f"{model}: cannot read it as ONNX ({error}); export again") from error
    try:
        facts = OnnxFacts(onnx.shape_inference.infer_shapes(model))
    except Exception as error:  # an InferenceError, or whatever a broken graph leads to
        raise ExportError(f"not a valid ONNX graph: {error}; export it again") from error
    return list(lint_tensorrt(facts) if runtime == "tensorrt" else lint_webgpu(facts))


def _check_runtime(runtime: str, known: tuple[str, ...], what: str) -> None:
    if runtime not in known:
        raise ExportError(f"{what} is checked for {' or '.join(known)}, got {runtime!r}")

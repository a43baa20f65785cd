"""Saved Core ML packages run by the interpreter, behind the interfaces that a proof asks.

What surrounds the packages is the runtime's: element types, slots, names and sizes are filled and
checked by the code that runs them on a Mac.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.exporter.coreml_tools import load_coremltools
from edgeseg.exporter.mil.interpreter import Arithmetic, Interpreter
from edgeseg.exporter.mil.package import load_package
from edgeseg.runtime.exported_model import ExportedModel, read_graphs
from edgeseg.signature import Precision, TensorSpec

_DTYPES: Mapping[str, Precision] = {
    "fp32": "float32",
    "fp16": "float16",
    "int32": "int32",
    "uint8": "uint8",
}


class MilGraph:
    """One package as the runtime sees a loaded file; threads may share it.

    Args:
        path: A `.mlpackage` folder.
        arithmetic: "float32", or "float16" to round as the program's types say.

    Attributes:
        inputs: What the package takes, as it says itself.
        output_names: Names of what `run` returns.
        runs_on: The interpreter.

    Raises:
        ExportError: The package is damaged, or has an operation or type that is not known here.
        MissingExtraError: coremltools, which reads the specification, is not installed.
    """

    def __init__(self, path: Path, arithmetic: Arithmetic = "float32") -> None:
        load_coremltools()  # or its warnings show when the package is read
        package = load_package(path)
        unknown = [feature for feature in package.inputs if feature.dtype not in _DTYPES]
        if unknown:
            raise ExportError(
                f"{path} takes {unknown[0]}, which apps cannot be asked for; export it again"
            )
        self.inputs: Sequence[TensorSpec] = [
            TensorSpec(feature.name, feature.shape, _DTYPES[feature.dtype])
            for feature in package.inputs
        ]
        self.output_names: Sequence[str] = [feature.name for feature in package.outputs]
        self.runs_on = (f"interpreter, {arithmetic}",)
        self._interpreter = Interpreter(package, arithmetic)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Compute all outputs from all inputs, by name."""
        return self._interpreter.run(feeds)


def open_interpreted(folder: Path | str, arithmetic: Arithmetic = "float32") -> ExportedModel:
    """Open an exported folder of Core ML packages with the interpreter.

    Args:
        folder: What `edgeseg export` wrote, in the format "coreml".
        arithmetic: As for `MilGraph`.

    Raises:
        WeightsError: There is no such folder, it is damaged, of another format, or its packages are
            not what its manifest says.
        ExportError: A package is damaged or has an operation that is not known here.
        MissingExtraError: coremltools is not installed.
    """
    manifest, paths = read_graphs(Path(folder), "coreml")
    graphs = {role: MilGraph(path, arithmetic) for role, path in paths.items()}
    return ExportedModel(manifest, **graphs)

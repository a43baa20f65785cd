"""Which program runs which exported file in a proof."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.errors import ExportError
from edgeseg.export_manifest import ExportedFile, ExportManifest
from edgeseg.exporter.fused_answers import FusedAnswerer
from edgeseg.exporter.proof import Answerer, PairAnswerer
from edgeseg.runtime.exported_model import ExportedModel, Graph
from edgeseg.runtime.segmenter import Segmenter
from edgeseg.signature import HIGH_RES_S4, HIGH_RES_S8, IMAGE_EMBEDDING, POINT_LABELS


@dataclass(frozen=True)
class CandidateFile:
    """What is to be run.

    Attributes:
        folder: The exported folder.
        manifest: Its manifest.
        exact_arithmetic: Let the interpreter of Core ML programs compute in float32 throughout,
            instead of rounding to float16 where the program says so, as a device does.
    """

    folder: Path
    manifest: ExportManifest
    exact_arithmetic: bool = False

    @property
    def arithmetic(self) -> Literal["float32", "float16"]:
        """What the interpreter of Core ML programs computes in."""
        return "float32" if self.exact_arithmetic else "float16"

    def path(self, role: str) -> Path:
        """Return the path of the file with a role.

        Raises:
            ExportError: The folder has none.
        """
        return self.folder / self.file(role).path

    def file(self, role: str) -> ExportedFile:
        """Return what the manifest says of the file with a role.

        Raises:
            ExportError: The folder has none.
        """
        file = self.manifest.file(role)
        if file is None:
            raise ExportError(f"{self.folder} has no {role}; export a target that has one")
        return file


@dataclass(frozen=True)
class Candidate:
    """Files that are loaded and can be asked.

    Attributes:
        answerer: Answers prompts on images.
        runner: The program behind it, for reports.
        features: Names of the features it shows, in order.
        max_points: Most points and box corners of a prompt, or None for any number.
    """

    answerer: Answerer
    runner: str
    features: Sequence[str]
    max_points: int | None


def open_pair(file: CandidateFile) -> Candidate:
    """Load encoder and decoder behind the runtime's segmenter.

    Raises:
        ExportError: The folder has no pair.
        WeightsError: A file is missing, damaged or not what the manifest says.
        MissingExtraError: The program that runs it is not installed.
    """
    if file.manifest.format == "onnx_sam_compatible":
        from edgeseg.exporter.sam_answers import SamContractAnswerer

        answerer = SamContractAnswerer(file.path("encoder"), file.path("decoder"))
        return Candidate(answerer, _onnx_runtime(), (IMAGE_EMBEDDING,), None)
    backend, runner = _pair_backend(file)
    outputs = {tensor.name for tensor in file.file("encoder").outputs}
    names = [name for name in (IMAGE_EMBEDDING, HIGH_RES_S8, HIGH_RES_S4) if name in outputs]
    pair = PairAnswerer(Segmenter(backend), file.manifest.file("proposals") is not None)
    return Candidate(pair, runner, names, _max_points(file, "decoder"))


def open_fused(file: CandidateFile) -> Candidate:
    """Load the file that holds encoder and decoder; see `open_pair`."""
    graph, runner = _fused_graph(file)
    answerer = FusedAnswerer(graph, file.manifest.image_size)
    return Candidate(answerer, runner, (), _max_points(file, "fused"))


def _pair_backend(file: CandidateFile) -> tuple[ExportedModel, str]:
    if file.manifest.format == "onnx":
        from edgeseg.runtime.onnx_backend import open_onnx

        return open_onnx(file.folder, providers="cpu", strict=True), _onnx_runtime()
    if sys.platform == "darwin":
        from edgeseg.runtime.coreml_backend import open_coreml

        return open_coreml(file.folder), "Core ML"
    from edgeseg.exporter.coreml_answers import open_interpreted

    return open_interpreted(file.folder, file.arithmetic), _interpreter(file)


def _fused_graph(file: CandidateFile) -> tuple[Graph, str]:
    path = file.path("fused")
    if file.manifest.format == "onnx":
        from edgeseg.runtime.onnx_backend import open_graph

        return open_graph(path), _onnx_runtime()
    from edgeseg.exporter.coreml_answers import MilGraph

    return MilGraph(path, file.arithmetic), _interpreter(file)


def _interpreter(file: CandidateFile) -> str:
    return f"ML Program interpreter, {file.arithmetic}"


def _onnx_runtime() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def _max_points(file: CandidateFile, role: str) -> int | None:
    for tensor in file.file(role).inputs:
        if tensor.name == POINT_LABELS:
            return tensor.shape[1] if isinstance(tensor.shape[1], int) else None
    return None

"""Core ML packages (`.mlpackage`): the specification is read, weights are counted, not loaded."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.errors import EdgesegError, ExportError
from edgeseg.inspection.coreml_weights import (
    NUMPY_NAMES,
    StoredNumbers,
    compressions,
    count_parameters,
)
from edgeseg.inspection.description import Facts, TensorFacts, millions, written_counts
from edgeseg.inspection.limits import check_text_size, files_below

MANIFEST_NAME = "Manifest.json"
MAX_SPECIFICATION_BYTES = 2**31 - 1
MAX_WEIGHT_BYTES = 2**31
"""A weight file is held in memory while its chain of blobs is checked."""

_SYSTEMS = {7: " (iOS 16)", 8: " (iOS 17)", 9: " (iOS 18)"}


@dataclass(frozen=True)
class CoremlFacts:
    """What a package says about itself.

    Attributes:
        model_type: "mlProgram" for all that EdgeSeg writes.
        specification_version: 7 for iOS 16, 8 for iOS 17, 9 for iOS 18.
        opset: Set of operations, such as "CoreML6"; empty for other types of models.
        inputs: What an app gives.
        outputs: What an app gets.
        operations: Number of each operation, the most frequent first, without stored values; empty
            for other types of models, whose operations are not known here.
        num_parameters: Numbers of the weight files after decompression.
        numbers_by_type: Numbers of the weight files as they are stored, by element type.
        compression: Number of compressed weights by way of compression.
        metadata: Author, licence, version, description, and what the author added.
    """

    model_type: str
    specification_version: int
    opset: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operations: Mapping[str, int]
    num_parameters: int
    numbers_by_type: Mapping[str, int]
    compression: Mapping[str, int]
    metadata: Mapping[str, str]

    kind = "core ml package"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        name = self.metadata.get("edgeseg.model")
        system = _SYSTEMS.get(self.specification_version, "")
        what = "Core ML package" + (f" of `{name}`" if name else "")
        compressed = f", compressed ({', '.join(self.compression)})" if self.compression else ""
        return (
            f"{what}, specification {self.specification_version}{system}, "
            f"{sum(self.operations.values())} operations, {millions(self.num_parameters)} "
            f"parameters ({written_counts(self.numbers_by_type) or 'none'}){compressed}"
        )


@dataclass(frozen=True)
class UnreadCoremlFacts:
    """A package where coremltools or PyTorch, which read it, are not installed.

    Attributes:
        author: Who wrote the package's manifest.
    """

    author: str

    kind = "core ml package"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        return "a Core ML package, which takes the extra `export` to read"


def describe_coreml(path: Path) -> tuple[Facts, tuple[str, ...]]:
    """Return what a package says about itself, and notes.

    Raises:
        ExportError: It is damaged, or leads outside of itself.
        EdgesegError: It holds links.
    """
    root = _root_item(path)
    weights = [file for file in files_below(path) if file.parent.name == "weights"]
    try:
        with _quiet():
            from coremltools.proto import Model_pb2

            from edgeseg.exporter.mil.features import read_feature  # takes PyTorch
    except ImportError as error:
        note = f"it takes more to read it ({error}); run: python -m pip install 'edgeseg[export]'"
        return UnreadCoremlFacts(str(root.get("author", ""))), (note,)
    model = Model_pb2.Model()
    file = _inside(path, str(root["path"]))
    try:
        model.ParseFromString(file.read_bytes())
        which = model.WhichOneof("Type")
    except Exception as error:  # DecodeError, whose module is google's own business
        reason = f"{file} is no Core ML specification ({error}); export it again"
        raise ExportError(reason) from error
    try:
        inputs = tuple(_feature(read_feature(each)) for each in model.description.input)
        outputs = tuple(_feature(read_feature(each)) for each in model.description.output)
        return _facts(model, which or "unknown", inputs, outputs), _check_weights(weights)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def _facts(
    model: Any,  # noqa: ANN401 - a message of protobuf
    which: str,
    inputs: tuple[TensorFacts, ...],
    outputs: tuple[TensorFacts, ...],
) -> CoremlFacts:
    facts = CoremlFacts(
        model_type=which,
        specification_version=model.specificationVersion,
        opset="",
        inputs=inputs,
        outputs=outputs,
        operations={},
        num_parameters=0,
        numbers_by_type={},
        compression={},
        metadata=_metadata(model.description.metadata),
    )
    return _with_program(facts, model.mlProgram) if which == "mlProgram" else facts


def _with_program(facts: CoremlFacts, message: Any) -> CoremlFacts:  # noqa: ANN401 - protobuf
    from edgeseg.exporter.mil.program import decode_program

    stored = StoredNumbers()
    program = decode_program(message, stored.read)
    kinds = Counter(each.kind for each in program.operations if not each.is_stored)
    return replace(
        facts,
        opset=program.opset,
        operations=dict(kinds.most_common()),
        num_parameters=count_parameters(program, stored),
        numbers_by_type=dict(stored.by_type),
        compression=dict(Counter(compressions(program))),
    )


def _feature(feature: Any) -> TensorFacts:  # noqa: ANN401 - edgeseg.exporter.mil needs PyTorch
    kind = f"{feature.colors} image" if feature.is_image else feature.dtype
    return TensorFacts(feature.name, feature.shape, NUMPY_NAMES.get(kind, kind))


def _metadata(metadata: Any) -> dict[str, str]:  # noqa: ANN401
    stated = {
        "description": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    return {**metadata.userDefined, **{key: text for key, text in stated.items() if text}}


def _check_weights(files: list[Path]) -> tuple[str, ...]:
    """Walk the blobs of weight files, which finds those that are cut off or damaged between blobs.

    Raises:
        ExportError: One is.
    """
    from edgeseg.exporter.mil.weight_file import WeightFile

    notes = []
    for file in files:
        size = file.stat().st_size
        if size > MAX_WEIGHT_BYTES:
            notes.append(f"{file.name} with {size / 1e9:.1f} GB was not checked")
        else:
            WeightFile(file)
    return tuple(notes)


def _root_item(path: Path) -> Mapping[str, Any]:
    """Return the manifest's entry of the model."""
    file = path / MANIFEST_NAME
    check_text_size(file)
    try:
        manifest = json.loads(file.read_text("utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(
            f"{file} is no manifest of a package ({type(error).__name__}); export it again"
        ) from error
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        raise ExportError(f"{file} names no model; export it again")
    return root


def _inside(package: Path, name: str) -> Path:
    """Return the file that a manifest names, which must lie inside the package."""
    parts = PurePosixPath(name)
    file = package / "Data" / parts
    if parts.is_absolute() or ".." in parts.parts or not file.is_file():
        raise ExportError(
            f"{package / MANIFEST_NAME} names {name!r}, which is no file of the package; "
            "export it again"
        )
    if file.stat().st_size > MAX_SPECIFICATION_BYTES:
        raise EdgesegError(f"{file} is too large for a specification; export it again")
    return file


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what coremltools says about its own installation from people who did not ask."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

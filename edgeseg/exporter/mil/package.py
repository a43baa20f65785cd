"""`.mlpackage` folders: the manifest, the specification and the weight files it names.

Source: Model.proto of the Core ML specification; the package layout as coremltools writes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeseg.errors import ExportError, missing_extra
from edgeseg.exporter.mil.element_types import ElementType
from edgeseg.exporter.mil.features import Feature, read_feature
from edgeseg.exporter.mil.program import Binding, MilOperation, MilProgram, decode_program
from edgeseg.exporter.mil.values import Constant, Message, TensorType
from edgeseg.exporter.mil.weight_file import WeightFile

_MODEL_PATH = "@model_path"


@dataclass(frozen=True)
class MilPackage:
    """A loaded package.

    Attributes:
        path: The folder.
        specification_version: 7 for iOS 16, 8 for iOS 17, 9 for iOS 18.
        inputs: What apps give.
        outputs: What apps get.
        program: The function `main`.
        metadata: Author, licence, version, description, and what the author added.
    """

    path: Path
    specification_version: int
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    program: MilProgram
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def operations(self) -> tuple[MilOperation, ...]:
        """Return the operations of the program, in order."""
        return self.program.operations

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """Return the declared type of every value, by name: inputs and results."""
        results = (output for operation in self.operations for output in operation.outputs)
        return {tensor.name: tensor.type for tensor in (*self.program.inputs, *results)}

    @cached_property
    def constants(self) -> Mapping[str, Constant]:
        """Return the values of the `const` operations, by name."""
        return {
            operation.outputs[0].name: operation.attributes["val"]
            for operation in self.operations
            if operation.kind == "const" and "val" in operation.attributes
        }

    def constant(self, binding: Binding) -> Constant | None:
        """Return the constant that an argument is bound to; None if it is computed."""
        return self.constants.get(binding) if isinstance(binding, str) else binding


def load_package(path: Path) -> MilPackage:
    """Read a package from disk, with every constant as stored.

    Args:
        path: A `.mlpackage` folder.

    Raises:
        ExportError: It is not a package, is damaged, or holds something other than one ML Program.
        MissingExtraError: coremltools, whose protobuf classes read the specification, is absent.
    """
    items = _manifest_items(path)
    specification = _specification(path, items)
    try:
        return _decode(path, specification)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def _decode(path: Path, specification: "_Specification") -> MilPackage:
    model = specification.model
    which = model.WhichOneof("Type")
    if which != "mlProgram":
        raise ExportError(f"the model is of type {which}; only ML Programs (mlProgram) are known")
    description = model.description
    if description.functions or description.state:
        raise ExportError("the model has several functions or a state; export one plain function")
    package = MilPackage(
        path=path,
        specification_version=model.specificationVersion,
        inputs=tuple(map(read_feature, description.input)),
        outputs=tuple(map(read_feature, description.output)),
        program=decode_program(model.mlProgram, specification.read_blob),
        metadata=_metadata(description.metadata),
    )
    _check_names(package)
    return package


class _Specification:
    """The model message of a package, and the weight files beside it, each opened once."""

    def __init__(self, model: Message, folder: Path) -> None:
        self.model = model
        self._folder = folder
        self._files: dict[str, WeightFile] = {}

    def read_blob(
        self, file_name: str, offset: int, element: ElementType, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Return a stored tensor."""
        if file_name not in self._files:
            parts = PurePosixPath(file_name).parts
            if parts[:1] != (_MODEL_PATH,) or ".." in parts:
                raise ExportError(f"a weight file is named {file_name}, not {_MODEL_PATH}/...")
            self._files[file_name] = WeightFile(self._folder.joinpath(*parts[1:]))
        return self._files[file_name].read(offset, element, shape)


def _manifest_items(path: Path) -> Mapping[str, Any]:
    manifest_path = path / "Manifest.json"
    try:
        manifest = json.loads(manifest_path.read_text("utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    except OSError as error:
        raise ExportError(
            f"{manifest_path}: cannot read ({error.strerror}); give a .mlpackage folder"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{manifest_path}: not a package manifest ({error!r})") from error
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        raise ExportError(f"{manifest_path}: the root model has no path; export it again")
    return root


def _specification(path: Path, root: Mapping[str, Any]) -> _Specification:
    try:
        from coremltools.proto import Model_pb2  # loads all of coremltools, which takes seconds
    except ImportError as error:
        raise missing_extra("coremltools", "export") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model_path = path / "Data" / root["path"]
    model = Model_pb2.Model()
    try:
        model.ParseFromString(model_path.read_bytes())
    except OSError as error:
        raise ExportError(
            f"{model_path}: cannot read the model specification ({error.strerror})"
        ) from error
    except DecodeError as error:
        raise ExportError(
            f"{model_path}: not a Core ML specification ({error}); export it again"
        ) from error
    return _Specification(model, model_path.parent)


def _metadata(metadata: Message) -> Mapping[str, str]:
    stated = {
        "description": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    return {**metadata.userDefined, **{key: text for key, text in stated.items() if text}}


def _check_names(package: MilPackage) -> None:
    described = sorted(feature.name for feature in package.inputs)
    taken = sorted(tensor.name for tensor in package.program.inputs)
    if described != taken:
        raise ExportError(f"the description names the inputs {described}, the program {taken}")
    unknown = {feature.name for feature in package.outputs} - set(package.program.outputs)
    if unknown:
        raise ExportError(
            f"the description names the outputs {sorted(unknown)}, which the program does not give"
        )

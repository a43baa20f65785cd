"""The operations of a MIL program, in order.

Source: Function, Block and Operation in MIL.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.values import (
    BlobReader,
    Constant,
    Message,
    TensorType,
    decode_constant,
    decode_type,
)

Binding = str | Constant
"""What an argument is bound to: the name of a value, or a constant written in its place."""


@dataclass(frozen=True)
class MilTensor:
    """A named value of a program."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class MilOperation:
    """One operation.

    Attributes:
        kind: What it does, for example "conv".
        name: What the converter called it.
        inputs: Its arguments by parameter name; several bindings where a parameter takes a list.
        outputs: What it gives.
        attributes: Constants that belong to the operation itself, without its name.
        num_blocks: Number of nested blocks, which only control flow has.
    """

    kind: str
    name: str
    inputs: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[MilTensor, ...]
    attributes: Mapping[str, Constant]
    num_blocks: int = 0

    @property
    def label(self) -> str:
        """Return how messages name the operation."""
        names = ", ".join(output.name for output in self.outputs)
        return f"operation {self.kind} with output '{names}'"

    @property
    def is_stored(self) -> bool:
        """Whether it only states a value that the package holds, compressed or not."""
        return self.kind == "const" or self.kind.startswith("constexpr_")


@dataclass(frozen=True)
class MilProgram:
    """The function of a package.

    Attributes:
        opset: Name of the set of operations, for example "CoreML6" for iOS 16.
        inputs: What it takes.
        outputs: Names of the values it gives.
        operations: In the order in which they run.
    """

    opset: str
    inputs: tuple[MilTensor, ...]
    outputs: tuple[str, ...]
    operations: tuple[MilOperation, ...]


def decode_program(program: Message, read_blob: BlobReader) -> MilProgram:
    """Decode a Program message that has the one function `main`.

    Raises:
        ExportError: There are other functions, or something in it cannot be decoded.
    """
    if list(program.functions) != ["main"]:
        raise ExportError(
            f"the program has the functions {sorted(program.functions)}; export one, `main`"
        )
    function = program.functions["main"]
    if function.opset not in function.block_specializations:
        raise ExportError(f"the program has no block for its own opset {function.opset}")
    block = function.block_specializations[function.opset]
    return MilProgram(
        opset=function.opset,
        inputs=tuple(map(_tensor, function.inputs)),
        outputs=tuple(block.outputs),
        operations=tuple(_operation(operation, read_blob) for operation in block.operations),
    )


def _tensor(named: Message) -> MilTensor:
    return MilTensor(named.name, decode_type(named.type))


def _operation(operation: Message, read_blob: BlobReader) -> MilOperation:
    names = ", ".join(output.name for output in operation.outputs)
    try:
        attributes = {
            key: decode_constant(value, read_blob) for key, value in operation.attributes.items()
        }
        inputs = {
            key: tuple(_binding(binding, read_blob) for binding in argument.arguments)
            for key, argument in operation.inputs.items()
        }
        outputs = tuple(map(_tensor, operation.outputs))
    except ExportError as error:
        raise ExportError(f"operation {operation.type} with output '{names}': {error}") from error
    name = attributes.pop("name", None)
    return MilOperation(
        kind=operation.type,
        name=name.value if name is not None and isinstance(name.value, str) else names,
        inputs=inputs,
        outputs=outputs,
        attributes=attributes,
        num_blocks=len(operation.blocks),
    )


def _binding(binding: Message, read_blob: BlobReader) -> Binding:
    if binding.WhichOneof("binding") == "name":
        return str(binding.name)
    return decode_constant(binding.value, read_blob)

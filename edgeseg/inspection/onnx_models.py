"""`.onnx` files: what they take, give, compute and hold; the graph is read and never run.

With the package `onnx` everything is told. Without it ONNX Runtime, which the base install has,
opens the file and tells inputs, outputs and metadata.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.errors import ExportError
from edgeseg.inspection.description import Facts, TensorFacts, millions, written_counts

MAX_BYTES = 2**31 - 1
"""The format, protobuf, has no larger messages."""

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
_INDEX_TYPES = ("int64", "int32", "bool", "string")
"""Types of shapes and indices, which nobody calls parameters."""


@dataclass(frozen=True)
class OnnxFacts:
    """What a model says about itself.

    Attributes:
        producer: Program that wrote it, with its version.
        ir_version: Version of the format; None where the reader does not tell.
        opsets: Version of each set of operators, by domain; "ai.onnx" is the standard one.
        inputs: In order.
        outputs: In order.
        operations: Number of each operator, the most frequent first, those of subgraphs and
            functions too; None where the reader does not tell.
        num_parameters: Stored numbers without indices.
        numbers_by_type: All stored numbers, by element type.
        quantisation: How it is quantised, in words; empty if it is not.
        external_files: Files beside it that hold its tensors.
        metadata: Texts that its writer added.
        description: What its writer says about it.
    """

    producer: str
    ir_version: int | None
    opsets: Mapping[str, int]
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operations: Mapping[str, int] | None
    num_parameters: int | None
    numbers_by_type: Mapping[str, int]
    quantisation: str
    external_files: tuple[str, ...]
    metadata: Mapping[str, str]
    description: str

    kind = "onnx model"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        name = self.metadata.get("edgeseg.model")
        parts = [f"ONNX model of `{name}`" if name else "ONNX model"]
        if self.producer:
            parts.append(f"written by {self.producer}")
        if self.opsets.get("ai.onnx"):
            parts.append(f"opset {self.opsets['ai.onnx']}")
        if self.operations is not None:
            parts.append(f"{sum(self.operations.values())} operations")
        if self.num_parameters is not None:
            numbers = written_counts(self.numbers_by_type)
            parts.append(f"{millions(self.num_parameters)} parameters ({numbers or 'none'})")
        return ", ".join([*parts, *filter(None, [self.quantisation])])


def looks_like_onnx(head: bytes) -> bool:
    """Return whether bytes begin as ONNX files do: the version of the format, then the producer.

    >>> looks_like_onnx(bytes([8, 10, 0x12, 2])), looks_like_onnx(b"8 10")
    (True, False)
    """
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in (0x12, 0x3A, 0x42)


def describe_onnx(path: Path) -> tuple[Facts, tuple[str, ...]]:
    """Return what an ONNX file says about itself, and notes.

    Raises:
        ExportError: It is damaged, too large, or no ONNX model.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ExportError(
            f"{path} has {size / 1e9:.1f} GB, and an ONNX file has 2 at most; large models keep "
            "their tensors in files beside it"
        )
    try:
        import onnx
    except Exception as error:  # absent, or broken in any way
        note = (
            f"told by ONNX Runtime, which tells no operations ({error}); run: "
            "python -m pip install 'edgeseg[export]'"
        )
        return _by_onnxruntime(path), (note,)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        facts = _by_onnx(model)
    except Exception as error:  # a damaged message fails in protobuf, or wherever it misleads
        raise _no_model(path, error) from error
    if not model.graph.node and not model.graph.output:
        raise ExportError(f"{path} is no ONNX model: its graph is empty; export it again")
    return facts, _notes(path, facts)


def quantisation_of(operations: Mapping[str, int]) -> str:
    """Say how a graph is quantised by the operators it has.

    >>> quantisation_of({"Conv": 3}), quantisation_of({"MatMulInteger": 2, "Conv": 1})
    ('', 'quantised dynamically (2 integer products)')
    """

    def count(*names: str) -> int:
        return sum(number for name, number in operations.items() if name.split(".")[-1] in names)

    integer = count("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul")
    fixed = count("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd")
    quantize, dequantize = count("QuantizeLinear"), count("DequantizeLinear")
    narrow = count("MatMulNBits")
    found = []
    if integer:
        found.append(f"quantised dynamically ({integer} integer products)")
    if fixed:
        found.append(f"quantised statically ({fixed} integer operators)")
    if quantize and dequantize:
        found.append(f"quantised statically ({quantize} QuantizeLinear)")
    elif dequantize:
        found.append(f"quantised weights ({dequantize} DequantizeLinear)")
    if narrow:
        found.append(f"weights of few bits ({narrow} MatMulNBits)")
    return ", ".join(found)


def _by_onnx(model: Any) -> OnnxFacts:  # noqa: ANN401 - a message of protobuf
    graph = model.graph
    operations: Counter[str] = Counter()
    stored: list[Any] = []
    for nodes in (graph.node, *(function.node for function in model.functions)):
        for node in _all_nodes(nodes):
            standard = node.domain in ("", "ai.onnx")
            operations[node.op_type if standard else f"{node.domain}.{node.op_type}"] += 1
            stored += [
                a.t for a in node.attribute if node.op_type == "Constant" and a.HasField("t")
            ]
    stored += _initializers(graph)
    numbers: Counter[str] = Counter()
    for tensor in stored:
        numbers[_type_name(tensor.data_type)] += max(0, math.prod(tensor.dims))
    constant = {tensor.name for tensor in graph.initializer}
    ordered = dict(operations.most_common())
    return OnnxFacts(
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
        inputs=tuple(_tensor(each) for each in graph.input if each.name not in constant),
        outputs=tuple(_tensor(each) for each in graph.output),
        operations=ordered,
        num_parameters=sum(n for name, n in numbers.items() if name not in _INDEX_TYPES),
        numbers_by_type=dict(numbers),
        quantisation=quantisation_of(ordered),
        external_files=tuple(sorted({name for tensor in stored for name in _location(tensor)})),
        metadata={each.key: each.value for each in model.metadata_props},
        description=(model.doc_string or graph.doc_string).strip(),
    )


def _all_nodes(nodes: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield nodes and those of the graphs in their attributes; protobuf limits the depth to 100."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)


def _initializers(graph: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the tensors of a graph and of the graphs inside it."""
    yield from graph.initializer
    yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _initializers(inner)


def _location(tensor: Any) -> Iterator[str]:  # noqa: ANN401
    if tensor.data_location == tensor.EXTERNAL:
        yield from (each.value for each in tensor.external_data if each.key == "location")


def _tensor(value: Any) -> TensorFacts:  # noqa: ANN401
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        return TensorFacts(value.name, (), value.type.WhichOneof("value") or "unknown")
    shape = tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or "?"
        for size in tensor.shape.dim
    )
    return TensorFacts(value.name, shape, _type_name(tensor.elem_type))


def _type_name(code: int) -> str:
    from onnx import TensorProto

    try:
        name = TensorProto.DataType.Name(code).lower()
    except ValueError:
        return f"type {code}"
    return _NUMPY_NAMES.get(name, name)


def _notes(path: Path, facts: OnnxFacts) -> tuple[str, ...]:
    """Tell what is wrong with the files that hold its tensors; none of them is opened."""
    notes = []
    for name in facts.external_files:
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts:
            notes.append(f"it wants tensors from {name!r}, outside of its folder; do not run it")
        elif not (path.parent / place).is_file():
            notes.append(f"its tensors are in {name!r}, which is not beside it; copy it there")
    return tuple(notes)


def _by_onnxruntime(path: Path) -> OnnxFacts:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has an exception for everything
        raise _no_model(path, error) from error
    facts = session.get_modelmeta()
    return OnnxFacts(
        producer=facts.producer_name,
        ir_version=None,
        opsets={},
        inputs=tuple(map(_session_tensor, session.get_inputs())),
        outputs=tuple(map(_session_tensor, session.get_outputs())),
        operations=None,
        num_parameters=None,
        numbers_by_type={},
        quantisation="",
        external_files=(),
        metadata=dict(facts.custom_metadata_map),
        description=(facts.description or facts.graph_description).strip(),
    )


def _session_tensor(value: Any) -> TensorFacts:  # noqa: ANN401 - onnxruntime has no types
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple("?" if size is None else size for size in value.shape)
    return TensorFacts(value.name, shape, _NUMPY_NAMES.get(dtype, dtype))


def _no_model(path: Path, error: Exception) -> ExportError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ExportError(
        f"{path} is damaged or no ONNX model: {lines[0][:200]}; export or fetch it again"
    )

"""What every layer of an exported graph computes, moves and takes, from ONNX Runtime's profile.

The profile holds the graph that really ran, after ONNX Runtime's fusions, with the shapes and the
time of every layer. Work is counted in multiply-accumulates of convolutions and matrix products;
other layers only move numbers.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from edgeseg.bench.exported_tasks import random_feeds
from edgeseg.errors import BenchError
from edgeseg.runtime.onnx_backend import open_graph, session_options

_BYTES = {
    "float": 4, "float16": 2, "double": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
_MATRIX = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulInteger", "DynamicQuantizeMatMul"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
"""Operations that only look at the same numbers differently."""
_KERNEL = "_kernel_time"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerWork:
    """One layer of a graph.

    Attributes:
        name: Of its node.
        op: Its operation.
        output_shape: Of its first output.
        macs: Multiply-accumulates.
        bytes_moved: Sizes of all its inputs, weights and outputs; zero for a mere view.
        time_ms: Median time of a call.
    """

    name: str
    op: str
    output_shape: Shape
    macs: int
    bytes_moved: int
    time_ms: float


def profile_layers(
    path: Path, image_size: int, threads: int, rounds: int, num_prompts: int = 1
) -> list[LayerWork]:
    """Run a graph with ONNX Runtime's profiler.

    Args:
        path: An ONNX file that `edgeseg export` wrote; its inputs become random.
        image_size: Side of the model input, in pixels.
        threads: Threads of one call.
        rounds: Calls that count; two before them do not.
        num_prompts: Prompts of one call of a decoder that takes any number.

    Raises:
        BenchError: The profile is not understood.
    """
    feeds = random_feeds(open_graph(path, threads).inputs, image_size, num_prompts)
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(2 + rounds):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return layers_of(events, rounds)


def layers_of(events: Iterable[Mapping[str, Any]], rounds: int) -> list[LayerWork]:
    """Return the layers of a profile, with the median of their last `rounds` times.

    Raises:
        BenchError: The profile has no layers, or not each of them in every call.
    """
    times: dict[str, list[float]] = defaultdict(list)
    arguments: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            key = f"{event['args'].get('node_index', '')} {name.removesuffix(_KERNEL)}"
            times[key].append(event["dur"] / 1e3)
            arguments[key] = event["args"]
    if not times or min(map(len, times.values())) < rounds:
        raise BenchError(
            f"ONNX Runtime's profile shows {len(times)} layers, not each of them {rounds} times; "
            "run it with another version of onnxruntime"
        )
    return [
        _layer(key.partition(" ")[2], arguments[key], median(samples[-rounds:]))
        for key, samples in times.items()
    ]


def _layer(name: str, arguments: Mapping[str, Any], time_ms: float) -> LayerWork:
    inputs, outputs = (
        [next(iter(each.items())) for each in arguments[key] if each]
        for key in ("input_type_shape", "output_type_shape")
    )
    op = str(arguments["op_name"])
    shapes = [tuple(shape) for _, shape in inputs]
    output = tuple(outputs[0][1]) if outputs else ()
    moved = [] if op in _VIEWS else inputs + outputs
    bytes_moved = sum(_BYTES.get(dtype, 4) * prod(shape) for dtype, shape in moved)
    return LayerWork(name, op, output, count_macs(op, shapes, output), bytes_moved, time_ms)


def count_macs(op: str, inputs: list[Shape], output: Shape) -> int:
    """Return the multiply-accumulates of a layer, zero if it is no product.

    Args:
        op: Operation as ONNX Runtime names it.
        inputs: Shapes of all inputs, weights included.
        output: Shape of the first output.

    >>> count_macs("Conv", [(1, 8, 4, 4), (16, 2, 3, 3), (16,)], (1, 16, 4, 4))  # four groups
    4608
    >>> count_macs("MatMul", [(2, 5, 7), (2, 7, 3)], (2, 5, 3))
    210
    """
    if op in ("Conv", "FusedConv", "QLinearConv", "ConvInteger"):
        weight = next(shape for shape in inputs[1:] if len(shape) == 4)
        return prod(output) * prod(weight[1:])
    if op == "ConvTranspose":
        return prod(inputs[0]) * prod(inputs[1][1:])
    if op in _MATRIX:
        return prod(output) * _inner_size(inputs[0], output)
    if op == "QLinearMatMul":
        return prod(output) * inputs[0][-1]
    return 0


def _inner_size(first: Shape, output: Shape) -> int:
    """Return the length of the sums of a product whose first factor may be transposed."""
    if len(first) > 1 and first[-2] != output[-2] and first[-1] == output[-2]:
        return first[-2]
    return first[-1]

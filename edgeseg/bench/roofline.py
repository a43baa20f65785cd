"""How near a graph comes to what the machine can do (Williams et al. 2009, Roofline).

A layer cannot be faster than its work at the machine's peak, nor than its bytes at the bandwidth of
the memory they lie in. Peak and bandwidths are measured with the runtime, threads and settings that
run the graph: a large matrix product, and sums of arrays in the cache and in the main memory.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bench.layer_work import LayerWork
from edgeseg.bench.tables import text_table
from edgeseg.errors import ConfigError, missing_extra
from edgeseg.runtime.onnx_backend import open_graph

_PRODUCT_SIDE = 2048
_CACHED_BYTES = 2 * 1024 * 1024
"""Of each of three arrays: together they fit where the layers of small networks lie."""
_LARGE_BYTES = 128 * 1024 * 1024
_SECONDS = 1.0


@dataclass(frozen=True)
class MachineLimits:
    """What a machine can do.

    Attributes:
        peak_gmacs: Billions of multiply-accumulates a second, float32.
        cache_gbs: GB (1e9 bytes) a second between the processor and its cache.
        memory_gbs: The same for the main memory.
        cache_bytes: A layer whose arrays take less than this finds them in the cache.
    """

    peak_gmacs: float
    cache_gbs: float
    memory_gbs: float
    cache_bytes: int = 8 * 1024 * 1024

    def or_better(self, other: "MachineLimits") -> "MachineLimits":
        """Return the best of two measurements; neighbours on a shared machine only take away."""
        return MachineLimits(
            max(self.peak_gmacs, other.peak_gmacs),
            max(self.cache_gbs, other.cache_gbs),
            max(self.memory_gbs, other.memory_gbs),
            self.cache_bytes,
        )

    def limit_ms(self, layer: LayerWork) -> float:
        """Return the shortest time that a layer could take, in milliseconds."""
        bandwidth = self.cache_gbs if layer.bytes_moved < self.cache_bytes else self.memory_gbs
        return max(layer.macs / self.peak_gmacs, layer.bytes_moved / bandwidth) / 1e6

    def bound_by(self, layer: LayerWork) -> str:
        """Return "work" or "memory", whichever limits a layer."""
        work_ms = layer.macs / self.peak_gmacs / 1e6
        return "work" if work_ms >= self.limit_ms(layer) else "memory"


@dataclass(frozen=True)
class Roofline:
    """A graph against the limits of a machine.

    Attributes:
        limits: Of the machine.
        layers: Of the graph.
    """

    limits: MachineLimits
    layers: tuple[LayerWork, ...]

    @property
    def time_ms(self) -> float:
        """Time of all layers."""
        return sum(layer.time_ms for layer in self.layers)

    @property
    def limit_ms(self) -> float:
        """Shortest time that all layers could take, one after the other."""
        return sum(self.limits.limit_ms(layer) for layer in self.layers)

    @property
    def achieved_share(self) -> float:
        """How much of the limit is reached, 1 for all of it."""
        return self.limit_ms / self.time_ms

    def excess_ms(self, layer: LayerWork) -> float:
        """Return the time that a layer takes beyond its limit, in ms."""
        return layer.time_ms - self.limits.limit_ms(layer)

    def farthest(self, count: int) -> list[LayerWork]:
        """Return the layers with the most time beyond their limit."""
        return sorted(self.layers, key=self.excess_ms, reverse=True)[:count]

    def by_operation(self) -> dict[str, tuple[float, float]]:
        """Return time and limit of each operation, in ms, the slowest operation first."""
        sums: dict[str, tuple[float, float]] = {}
        for layer in self.layers:
            time_ms, limit_ms = sums.get(layer.op, (0.0, 0.0))
            sums[layer.op] = time_ms + layer.time_ms, limit_ms + self.limits.limit_ms(layer)
        return dict(sorted(sums.items(), key=lambda item: -item[1][0]))

    def as_dict(self) -> dict[str, Any]:
        """Return limits, totals and layers as numbers and strings, for JSON."""
        return {
            "limits": asdict(self.limits),
            "time_ms": self.time_ms,
            "limit_ms": self.limit_ms,
            "achieved_share": self.achieved_share,
            "layers": [
                {**asdict(layer), "limit_ms": self.limits.limit_ms(layer)} for layer in self.layers
            ],
        }


def read_roofline(path: Path) -> tuple[str, Roofline]:
    """Read what `edgeseg bench roofline --out` wrote: a title, and the layers with the limits.

    Raises:
        ConfigError: The file is missing or is something else.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        title = "{model} {role} at {image_size}, {precision}, {threads} threads".format(**document)
        limits = MachineLimits(**document["limits"])
        rows = [{key: row[key] for key in LayerWork.__annotations__} for row in document["layers"]]
        layers = [LayerWork(**{**row, "output_shape": tuple(row["output_shape"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no roofline ({type(error).__name__}: {error}); give a file that "
            "`edgeseg bench roofline --out` wrote"
        ) from None
    return title, Roofline(limits, tuple(layers))


def measure_limits(work: Path, threads: int) -> MachineLimits:
    """Measure the limits of this machine with ONNX Runtime.

    Args:
        work: Folder for two small graphs.
        threads: Threads of one call.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    product = _runner(work, "MatMul", (_PRODUCT_SIDE, _PRODUCT_SIDE), threads)
    peak = _PRODUCT_SIDE**3 / _best_s(product) / 1e9
    cache_gbs, memory_gbs = (
        3 * size / _best_s(_runner(work, "Add", (size // 4096, 1024), threads)) / 1e9
        for size in (_CACHED_BYTES, _LARGE_BYTES)
    )
    return MachineLimits(peak, cache_gbs, memory_gbs)


def _runner(work: Path, op: str, shape: tuple[int, int], threads: int) -> Callable[[], object]:
    """Return a call of a graph that is one operation of two matrices."""
    try:
        import onnx
        from onnx import TensorProto, helper
    except ModuleNotFoundError:
        raise missing_extra("onnx", "export") from None
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in "abc"]
    node = helper.make_node(op, ["a", "b"], ["c"])
    graph = helper.make_graph([node], op, values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{op}.onnx"
    onnx.save(model, path)
    runner = open_graph(path, threads)
    generator = np.random.default_rng(0)
    feeds = {name: generator.standard_normal(shape, np.float32) for name in "ab"}
    return partial(runner.run, feeds)


def _best_s(call: Callable[[], object]) -> float:
    """Return the shortest of the times that fit into a second, in seconds."""
    times: list[float] = []
    call()
    while sum(times) < _SECONDS or len(times) < 3:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def roofline_report(found: Roofline, count: int) -> str:
    """Return what is reached of the limits, by operation and by layer, as text."""
    limits = found.limits
    head = (
        f"this machine: {2 * limits.peak_gmacs:.0f} GFLOP/s, {limits.cache_gbs:.0f} GB/s in the "
        f"cache, {limits.memory_gbs:.0f} GB/s in memory\n"
        f"all layers: {found.time_ms:.2f} ms, limit {found.limit_ms:.2f} ms: "
        f"{100 * found.achieved_share:.0f} % of the limit is reached\n"
    )
    operations = [
        [op, "", f"{time_ms:.2f}", f"{limit_ms:.2f}", f"{time_ms - limit_ms:.2f}"]
        for op, (time_ms, limit_ms) in found.by_operation().items()
    ]
    layers = [
        [
            layer.name[-48:],
            layer.op,
            "x".join(map(str, layer.output_shape)),
            f"{layer.macs / 1e6:.1f}",
            f"{layer.bytes_moved / 1e6:.2f}",
            f"{layer.time_ms:.3f}",
            f"{limits.limit_ms(layer):.3f}",
            limits.bound_by(layer),
        ]
        for layer in found.farthest(count)
    ]
    by_operation = text_table(["operation", "", "ms", "limit ms", "beyond"], operations)
    header = ["layer", "operation", "output", "MMACs", "MB", "ms", "limit ms", "bound by"]
    return f"{head}\n{by_operation}\n{text_table(header, layers)}".rstrip("\n")

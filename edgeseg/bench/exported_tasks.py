"""The files of an exported folder as work for the stopwatch: one call of ONNX Runtime each."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.tool_request import NUM_POINTS
from edgeseg.errors import ExportError
from edgeseg.export_manifest import ExportManifest, read_export
from edgeseg.runtime.onnx_backend import open_graph
from edgeseg.signature import TensorSpec


def onnx_tasks(
    folder: Path, threads: int, num_prompts: int = 1, roles: tuple[str, ...] = ()
) -> dict[str, Callable[[], object]]:
    """Open the files of a folder and return one call of each, by role.

    The inputs are random, points lie on the image. A file whose number of prompts is fixed gets
    that number, whatever is asked.

    Args:
        folder: What `edgeseg export` wrote in an ONNX format.
        threads: Threads of one call.
        num_prompts: Prompts of one call of a decoder.
        roles: Only these; empty means all.

    Raises:
        ExportError: The folder holds Core ML packages, which run on Apple devices only.
        WeightsError: The folder is damaged.
    """
    manifest = read_export(folder)
    if not manifest.format.startswith("onnx"):
        raise ExportError(
            f"{folder} holds {manifest.format} files, which ONNX Runtime cannot time; give a "
            "folder of an ONNX target"
        )
    return {
        file.role: _task(folder / file.path, manifest, threads, num_prompts)
        for file in manifest.files
        if not roles or file.role in roles
    }


def _task(
    path: Path, manifest: ExportManifest, threads: int, num_prompts: int
) -> Callable[[], object]:
    graph = open_graph(path, threads)
    feeds = random_feeds(graph.inputs, manifest.image_size, num_prompts)
    return lambda: graph.run(feeds)


def random_feeds(
    inputs: Iterable[TensorSpec], image_size: int, num_prompts: int
) -> dict[str, NDArray[np.generic]]:
    """Return random inputs of a file, by name.

    Args:
        inputs: What it takes.
        image_size: Side of the model input, in pixels.
        num_prompts: Prompts of one call of a decoder that takes any number.
    """
    generator = np.random.default_rng(0)
    return {spec.name: _random_input(spec, image_size, num_prompts, generator) for spec in inputs}


def _random_input(
    spec: TensorSpec, image_size: int, num_prompts: int, generator: np.random.Generator
) -> NDArray[np.generic]:
    open_sizes = {"N": num_prompts, "P": NUM_POINTS, "num_points": NUM_POINTS}
    shape = [
        size if isinstance(size, int) else open_sizes.get(size, image_size) for size in spec.shape
    ]
    if "label" in spec.name:
        return np.ones(shape, spec.dtype)
    if "point" in spec.name:
        return generator.uniform(0, image_size, shape).astype(spec.dtype)
    if spec.name.startswith("has_mask"):
        return np.zeros(shape, spec.dtype)
    if spec.name in ("image_hw", "orig_im_size"):
        return np.full(shape, image_size, spec.dtype)
    if spec.dtype == "uint8":
        return generator.integers(0, 256, shape, np.uint8)
    return generator.standard_normal(shape).astype(spec.dtype)

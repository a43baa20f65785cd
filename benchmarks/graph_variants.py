"""Try the ideas that could make an exported image encoder faster, each against the released form.

Every variant is one change of the graph or of ONNX Runtime's settings; all run in turns. A changed
activation is another network: its time says what choosing it would buy before training.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from edgeseg.bench.machine import describe_machine
from edgeseg.bench.stopwatch import measure_in_turns
from edgeseg.exporter.graphs import EncoderGraph, shape_of
from edgeseg.exporter.onnx_files import convert, write_onnx
from edgeseg.files import write_atomically
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.reparam import fuse
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.onnx_backend import session_options
from edgeseg.signature import IMAGE, encoder_spec

LEVELS = onnxruntime.GraphOptimizationLevel


def graph_variants(net: PromptableNet) -> Iterator[tuple[str, nn.Module]]:
    """Yield encoder graphs with what is different about each."""
    released = EncoderGraph(net)
    yield "as released", released
    unfolded, resized = copy.deepcopy(released), copy.deepcopy(released)
    unfolded.net.image_encoder = copy.deepcopy(net.image_encoder).eval()
    yield "branches and norms not folded", unfolded
    resized.net.image_encoder = fuse(net.image_encoder)
    yield "upsampling as Resize, not as a matrix product", resized
    for title, activation in (("hard swish", nn.Hardswish()), ("ReLU", nn.ReLU())):
        changed = copy.deepcopy(released)
        replace(changed, nn.GELU, activation)
        yield f"{title} instead of GELU", changed


def replace(module: nn.Module, kind: type[nn.Module], by: nn.Module) -> None:
    """Put another layer in place of every layer of a kind."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, by)
        else:
            replace(child, kind, by)


def session_variants(threads: int) -> Iterator[tuple[str, onnxruntime.SessionOptions]]:
    """Yield ONNX Runtime settings with what is different about each."""
    for title, level in (("none", LEVELS.ORT_DISABLE_ALL), ("basic", LEVELS.ORT_ENABLE_BASIC)):
        options = session_options(threads)
        options.graph_optimization_level = level
        yield f"graph optimisation: {title}", options
    options = session_options(threads)
    options.enable_mem_pattern = True
    yield "one block of memory for all tensors", options
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern = threads, False
    yield "threads spin while they wait", options
    yield "one thread", session_options(1)


def main() -> None:
    """Measure all variants and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="edgesam")
    parser.add_argument("--image-size", type=int, help="default: the model's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graph_variants.json"))
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    net = build_model(given.model, given.image_size).eval()
    shape = (1, 3, net.image_size, net.image_size)
    pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    backend = TorchBackend(net, fused=True)
    tasks: dict[str, Callable[[], object]] = {"PyTorch, folded": partial(backend.encode, pixels)}
    with tempfile.TemporaryDirectory() as folder:
        for number, (title, graph) in enumerate(graph_variants(net)):
            path = Path(folder) / f"{number}.onnx"
            write_onnx(convert(graph, encoder_spec(shape_of(net))).model, path)
            choices = [(title, session_options(given.threads))]
            if number == 0:
                choices += session_variants(given.threads)
            for choice, options in choices:
                session = onnxruntime.InferenceSession(str(path), options)
                tasks[choice] = partial(session.run, None, {IMAGE: pixels})
            print(title, flush=True)
        samples = measure_in_turns(tasks, given.rounds)
    result = {
        "model": given.model,
        "image_size": net.image_size,
        "machine": describe_machine(("torch", "onnxruntime")),
        "threads": given.threads,
        "rounds": given.rounds,
        "latency_p50_ms": {title: found.p50_ms for title, found in samples.items()},
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    write_atomically(given.out, partial(Path.write_text, data=text))


if __name__ == "__main__":
    main()

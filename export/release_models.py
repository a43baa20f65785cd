"""Export models to every target, prove the files, time them in turns, and write all figures down.

    python export/release_models.py edgeseg_m NAME=WEIGHTS --data DATA --calibrate DATA

A model is a released one, or NAME=WEIGHTS. What an earlier call exported is kept and timed again.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeseg.bench.exported_tasks import onnx_tasks
from edgeseg.bench.machine import describe_machine
from edgeseg.bench.stopwatch import measure_in_turns
from edgeseg.cli.labelled_data import list_validation, read_photos
from edgeseg.errors import ConfigError, ExportError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, read_export
from edgeseg.exporter.release import export_model
from edgeseg.exporter.targets import ExportTarget, find_target, target_names
from edgeseg.exporter.written_files import ExportFacts
from edgeseg.files import write_atomically
from edgeseg.manifest import find_weights, licence_of, sha256_of
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PACKAGES = ("edgeseg", "torch", "onnxruntime", "coremltools")
NUM_PROMPTS = 1, 64
"""Prompts in one call of a decoder."""


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="released model, or NAME=WEIGHTS")
    parser.add_argument("--targets", nargs="+", default=target_names())
    parser.add_argument("--out", type=Path, default=Path("out/release"))
    parser.add_argument("--data", type=Path, help="labelled images in the SA-1B layout")
    parser.add_argument("--calibrate", type=Path, help="photographs for static int8")
    parser.add_argument("--photos", type=Path, help="photographs asked beside random images")
    parser.add_argument("--max-images", type=int, default=10, help="labelled images per domain")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


def export(
    name: str, target: ExportTarget, weights: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Export to one target, unless that is done, and return its facts or why there are none."""
    folder = given.out / name / target.name
    if not (folder / EXPORT_MANIFEST_NAME).is_file():
        try:
            export_model(
                load_model(weights),
                folder,
                target,
                ExportFacts(sha256_of(weights), licence_of(weights)),
                calibration=[
                    image
                    for _, image in read_photos(given.calibrate, target.num_calibration_images)
                ],
                photos=read_photos(given.photos, 4),
                records=list_validation(given.data, given.max_images),
                progress=lambda step: print(f"{name} {target.name}: {step}", flush=True),
            )
        except ExportError as error:
            print(f"{name} {target.name}: {error}", flush=True)
            return {"target": target.name, "not_made": str(error)}
    manifest = read_export(folder)
    if manifest.weights_sha256 != sha256_of(weights):
        raise ConfigError(f"{folder} was exported from other weights than {weights}; remove it")
    return {
        "target": target.name,
        "precision": manifest.precision,
        "size_bytes": {file.role: file.size_bytes for file in manifest.files},
        "parity": [figures.model_dump() for figures in manifest.parity],
        "accuracy": [figures.model_dump() for figures in manifest.accuracy],
    }


def tasks_of(folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Return the calls to time of an exported folder: encoder, and decoder by prompts."""
    found = onnx_tasks(folder, threads, roles=("encoder",))
    decoder = read_export(folder).file("decoder")
    assert decoder is not None
    takes_any = any("N" in tensor.shape for tensor in decoder.inputs)
    for count in NUM_PROMPTS if takes_any else NUM_PROMPTS[:1]:
        task = onnx_tasks(folder, threads, count, roles=("decoder",))["decoder"]
        found[f"decoder, {count}"] = task
    return found


def pytorch_tasks(net: PromptableNet) -> dict[str, Callable[[], object]]:
    """Return the same calls of the network in PyTorch, branches and norms folded."""
    backend = TorchBackend(net, fused=True)
    generator, size = np.random.default_rng(0), net.image_size
    pixels = generator.standard_normal((1, 3, size, size)).astype(np.float32)
    features = backend.encode(pixels)
    found: dict[str, Callable[[], object]] = {"encoder": partial(backend.encode, pixels)}
    for count in NUM_PROMPTS:
        points_xy = generator.uniform(0, size, (count, 2, 2)).astype(np.float32)
        labels = np.ones((count, 2), np.int64)
        found[f"decoder, {count}"] = partial(
            backend.decode, features, points_xy, labels, None, None
        )
    return found


def release(name: str, weights: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Export one model to all targets, time what ONNX Runtime runs, and return the figures."""
    targets = [find_target(target) for target in given.targets]
    rows = [export(name, target, weights, given) for target in targets]
    net = load_model(weights)
    tasks = {("pytorch", call): task for call, task in pytorch_tasks(net).items()}
    for target, row in zip(targets, rows, strict=True):
        if "not_made" not in row and target.format.startswith("onnx"):
            folder = given.out / name / target.name
            for call, task in tasks_of(folder, given.threads).items():
                tasks[target.name, call] = task
    print(f"{name}: timing {len(tasks)} calls in turns", flush=True)
    latency: dict[str, dict[str, float]] = {}
    for (target_name, call), samples in measure_in_turns(tasks, given.rounds).items():
        latency.setdefault(target_name, {})[call] = samples.p50_ms
    return {
        "model": name,
        "image_size": net.image_size,
        "machine": describe_machine(PACKAGES),
        "threads": given.threads,
        "rounds": given.rounds,
        "latency_p50_ms": latency,
        "targets": rows,
    }


def main() -> None:
    """Release every model."""
    given = options()
    torch.set_num_threads(given.threads)
    for model in given.models:
        name, _, weights = model.partition("=")
        result = release(name, find_weights(weights or name), given)
        text = json.dumps(result, indent=2) + "\n"
        write_atomically(
            given.results / f"exports_{name}.json", partial(Path.write_text, data=text)
        )


if __name__ == "__main__":
    main()

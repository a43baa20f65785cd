"""Time the image encoders in PyTorch before and after `fuse`, alternately, and compare outputs."""

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from edgeseg.bench.machine import describe_machine
from edgeseg.bench.stopwatch import measure_in_turns
from edgeseg.files import write_atomically
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.reparam import fuse

MODELS = ("edgesam", "edgeseg_m", "edgeseg_s", "edgeseg_xs")


@torch.inference_mode()
def main() -> None:
    """Measure every model at its own input size and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/encoder_fusion.json"))
    options = parser.parse_args()

    rows = []
    for name in options.models:
        torch.manual_seed(0)
        net = build_model(name).to(memory_format=torch.channels_last).eval()
        plain, fused = net.image_encoder, fuse(net.image_encoder)
        shape = (1, 3, net.image_size, net.image_size)
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        tasks = {"plain": partial(plain, images), "fused": partial(fused, images)}
        samples = measure_in_turns(tasks, options.runs)
        difference = (plain(images).embedding - fused(images).embedding).abs().max()
        rows.append(
            {
                "model": name,
                "image_size": net.image_size,
                "parameters": sum(p.numel() for p in plain.parameters()),
                "plain_ms": samples["plain"].p50_ms,
                "fused_ms": samples["fused"].p50_ms,
                "max_difference": float(difference),
            }
        )
        print(json.dumps(rows[-1]))
    result = {
        "machine": describe_machine(("torch",)),
        "threads": torch.get_num_threads(),
        "runs": options.runs,
        "models": rows,
    }
    text = json.dumps(result, indent=2)
    write_atomically(options.out, lambda path: path.write_text(text + "\n", "utf-8"))


if __name__ == "__main__":
    main()

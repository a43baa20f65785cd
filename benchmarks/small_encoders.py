"""Time backbones that could carry `edgeseg_xs`, alternately: what the choice was made from.

Every candidate gets the same pyramid and neck and ends at stride 16 or 32. All are pure CNNs with
operators that phones run without fallback.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from edgeseg.bench.machine import describe_machine
from edgeseg.bench.stopwatch import measure_in_turns
from edgeseg.files import write_atomically
from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.imagenet import PACKAGES
from edgeseg.modeling.reparam import fuse

CANDIDATES = (
    ("efficientnet_lite0", 16),
    ("efficientnet_lite0", 32),
    ("mobilenetv2_050", 32),
    ("mobilenetv2_100", 16),
    ("mobilenetv3_small_100", 32),
    ("mobilenetv3_large_100", 16),
    ("mobilenetv3_large_100", 32),
    ("mobilenetv4_conv_small", 32),
    ("lcnet_100", 32),
    ("tinynet_c", 32),
)
"""timm names and the deepest stride that is used."""
WIDTH = 128


@torch.inference_mode()
def main() -> None:
    """Measure every candidate and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/small_encoders.json"))
    options = parser.parse_args()

    shape = (1, 3, options.image_size, options.image_size)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    encoders = {}
    for backbone, stride in CANDIDATES:
        torch.manual_seed(0)
        encoder = PyramidEncoder(backbone, WIDTH, stride).to(memory_format=torch.channels_last)
        encoders[backbone, stride] = fuse(encoder.eval())
    tasks = {choice: partial(encoder, images) for choice, encoder in encoders.items()}
    samples = measure_in_turns(tasks, options.runs)
    rows = [
        {
            "backbone": name,
            "deepest_stride": stride,
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "latency_ms": samples[name, stride].p50_ms,
            "imagenet_weights": name in PACKAGES,
        }
        for (name, stride), encoder in encoders.items()
    ]
    result = {
        "machine": describe_machine(("torch", "timm")),
        "threads": torch.get_num_threads(),
        "image_size": options.image_size,
        "embed_dim": WIDTH,
        "runs": options.runs,
        "encoders": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    write_atomically(options.out, lambda path: path.write_text(text + "\n", "utf-8"))


if __name__ == "__main__":
    main()

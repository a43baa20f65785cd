"""Time backbones that could carry `edgeseg_xs`, alternately: what the choice was made from.

Every candidate gets the same pyramid and neck and ends at stride 16 or 32. All are pure CNNs with
operators that phones run without fallback.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

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
WARMUP_RUNS = 2


def milliseconds(encoder: nn.Module, images: Tensor) -> float:
    """Return the time of one forward pass."""
    started = time.perf_counter()
    encoder(images)
    return 1e3 * (time.perf_counter() - started)


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
    encoders = []
    for backbone, stride in CANDIDATES:
        torch.manual_seed(0)
        encoder = PyramidEncoder(backbone, WIDTH, stride).to(memory_format=torch.channels_last)
        encoders.append(fuse(encoder.eval()))
    rounds = [
        [milliseconds(encoder, images) for encoder in encoders]
        for _ in range(WARMUP_RUNS + options.runs)
    ][WARMUP_RUNS:]
    rows = []
    for (backbone, stride), encoder, times in zip(
        CANDIDATES, encoders, zip(*rounds, strict=True), strict=True
    ):
        rows.append(
            {
                "backbone": backbone,
                "deepest_stride": stride,
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "latency_ms": statistics.median(times),
                "imagenet_weights": backbone in PACKAGES,
            }
        )
        print(json.dumps(rows[-1]))
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "image_size": options.image_size,
        "embed_dim": WIDTH,
        "runs": options.runs,
        "encoders": rows,
    }
    text = json.dumps(result, indent=2)
    write_atomically(options.out, lambda path: path.write_text(text + "\n", "utf-8"))


if __name__ == "__main__":
    main()

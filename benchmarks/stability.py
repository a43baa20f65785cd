"""Stability of masks on the low-res cells, as everything mode measures it, beside full resolution.

    EDGESEG_DATA=... python benchmarks/stability.py MODEL

Asks at a 16 x 16 grid of points on validation images. SAM's automatic mask generator measures
stability on masks of the size of the image, which costs as much as making them.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.machine import describe_machine
from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.objects import select_records
from edgeseg.files import write_atomically
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.postprocess import content_logits, stability_score, upsample_logits
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results"
POINTS_PER_SIDE = 16


def both_stabilities(segmenter: Segmenter, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (2, M) float32: stability on cells and at full size of every mask with a pixel."""
    encoded = segmenter.encode(image)
    height, width = encoded.frame.image_hw
    steps = (np.arange(POINTS_PER_SIDE) + 0.5) / POINTS_PER_SIDE
    points = [(x * width, y * height) for y in steps for x in steps]
    found = []
    for point in points:
        logits, _ = segmenter.predict_logits(encoded, [Prompt(points_xy=[point])])
        for answer in logits[0, 1:]:
            cells = content_logits(answer, encoded.frame)
            if (cells > 0).any():
                full = upsample_logits(answer, encoded.frame)
                found.append((float(stability_score(cells)), float(stability_score(full))))
    return np.array(found, np.float32).reshape(-1, 2).T


def main() -> None:
    """Compare both on every image and write the differences down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="released model, model folder or weight file")
    parser.add_argument("--data", default="$EDGESEG_DATA")
    parser.add_argument("--images", type=int, default=2, help="of each domain")
    parser.add_argument("--threshold", type=float, default=0.95, help="SAM's default")
    parser.add_argument("--out", type=Path, default=RESULTS / "stability.json")
    options = parser.parse_args()
    source = SourceConfig(format="sa1b", path=expand_path(Path(options.data)), split="val")
    config = EvaluationConfig(max_images_a_domain=options.images)
    segmenter = Segmenter(TorchBackend(load_model(options.model), fused=True))
    records = select_records(list_records([source]), config)
    cells, full = np.concatenate(
        [both_stabilities(segmenter, record.read_image()) for record in records], axis=1
    )
    difference = np.abs(cells - full)
    document = {
        "machine": describe_machine(("torch",)),
        "model": options.model,
        "num_images": len(records),
        "num_masks": len(cells),
        "mean_difference": float(difference.mean()),
        "p99_difference": float(np.percentile(difference, 99)),
        "threshold": options.threshold,
        "judged_otherwise": float(
            ((cells >= options.threshold) != (full >= options.threshold)).mean()
        ),
    }
    text = json.dumps(document, indent=2) + "\n"
    print(text)
    write_atomically(options.out, partial(Path.write_text, data=text))


if __name__ == "__main__":
    main()

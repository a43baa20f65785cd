"""A single click with and without the box that proposals give it, and what merging boxes does.

    EDGESEG_DATA=... python benchmarks/click_boxes.py MODEL

mIoU of a click at the point of each object that is farthest from its border, by domain.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseg.bench.machine import describe_machine
from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.evaluator import evaluate
from edgeseg.evaluation.proposal_recall import proposal_recall
from edgeseg.files import write_atomically
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.prompts import Prompt
from edgeseg.runtime.granularity import GranularitySettings
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

RESULTS = Path(__file__).parent / "results"
VARIANTS = {
    f"K = {k}, weight^{power:g}": GranularitySettings(num_merged=k, weight_power=power)
    for k, power in ((1, 1.0), (2, 0.0), (2, 1.0), (2, 2.0), (4, 1.0))
}


class Clicked:
    """A segmenter whose clicks go along with boxes that are made in a certain way."""

    def __init__(self, segmenter: Segmenter, settings: GranularitySettings) -> None:
        self.segmenter = segmenter
        self.settings = settings

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """Encode one image."""
        return self.segmenter.encode(image)

    def predict_logits(
        self, encoded: EncodedImage, prompts: Sequence[Prompt]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer prompts."""
        return self.segmenter.predict_logits(encoded, prompts)

    def click_prompt(self, encoded: EncodedImage, point_xy: NDArray[np.float32]) -> Prompt:
        """Return the click with its box."""
        return self.segmenter.click_prompt(encoded, point_xy, self.settings)


def main() -> None:
    """Measure every way on the same objects and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="released model, model folder or weight file")
    parser.add_argument("--data", default="$EDGESEG_DATA")
    parser.add_argument("--images", type=int, default=None, help="of each domain; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "click_boxes.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    source = SourceConfig(format="sa1b", path=expand_path(Path(options.data)), split="val")
    records = list_records([source])
    limits = {"max_images_a_domain": options.images, "max_objects_an_image": 8}
    segmenter = Segmenter(TorchBackend(load_model(options.model), fused=True), 8)
    rows = {}
    for name, settings in {"point alone": None, **VARIANTS}.items():
        start = "center" if settings is None else "click"
        config = EvaluationConfig(prompt_sets=(start,), boundary=False, grabcut=None, **limits)
        found = evaluate(Clicked(segmenter, settings or GranularitySettings()), records, config)
        row = found.row(start)
        assert row.mean is not None
        rows[name] = {
            "mean": row.mean.iou,
            "domains": {domain: figures.iou for domain, figures in row.domains.items()},
        }
        print(f"{name:20} {100 * (row.mean.iou or 0):.1f}", flush=True)
    recall = proposal_recall(segmenter, records, config)
    print(recall.summary())
    document = {
        "machine": describe_machine(("torch",)),
        "model": options.model,
        "num_objects": {domain: count.num_objects for domain, count in found.domains.items()},
        "rows": rows,
        "box_recall": recall.mean,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_atomically(options.out, lambda temporary: temporary.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()

"""Everything in an image: proposals, grids, and the package's own generator, on the same weights.

    EDGESEG_DATA=... python benchmarks/everything.py MODEL

All rows run the same network in PyTorch with folded norms. `segment_anything`'s generator is the
one of the package, untouched; only its predictor is replaced by one that asks this network.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.transforms import ResizeLongestSide

from edgeseg.bench.machine import describe_machine
from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.objects import select_records
from edgeseg.evaluation.recall import ImageAnswers, average_recall
from edgeseg.files import write_atomically
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.everything import EverythingMasks, EverythingSettings
from edgeseg.runtime.mask_grid import GridSettings
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

RESULTS = Path(__file__).parent / "results"
Rles = Sequence[Mapping[str, Any]]
Row = Callable[[NDArray[np.uint8]], tuple[Rles, int]]
"""An image to masks, the best first, and the number of prompts that were decoded."""


class PackagePredictor:
    """What the package's generator asks of its predictor, answered by one of our segmenters."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.transform = ResizeLongestSide(segmenter.backend.image_size)
        self.device = torch.device("cpu")
        self.model = SimpleNamespace(mask_threshold=0.0)
        self.num_prompts = 0
        self._encoded: EncodedImage | None = None

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an image."""
        self._encoded = self.segmenter.encode(image)

    def reset_image(self) -> None:
        """Forget the image."""
        self._encoded = None

    def predict_torch(
        self, points: torch.Tensor, labels: torch.Tensor, **options: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Answer (N, 1, 2) points in model pixels with logits at the size of the image."""
        assert self._encoded is not None
        assert options == {"multimask_output": True, "return_logits": True}
        self.num_prompts += len(points)
        arrays = points.float().numpy() + np.float32(0.5), labels.long().numpy()
        logits, scores = self.segmenter.backend.decode(self._encoded.features, *arrays, None, None)
        low_res = torch.from_numpy(logits[:, 1:])
        frame = self._encoded.frame
        height, width = frame.content_hw
        side = frame.image_size  # as the package's own network does it
        full = F.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)
        full = full[..., :height, :width]
        full = F.interpolate(full, frame.image_hw, mode="bilinear", align_corners=False)
        return full, torch.from_numpy(scores[:, 1:]), low_res


def package_row(segmenter: Segmenter, thresholds: Mapping[str, float]) -> Row:
    """Return the package's generator with a grid of 32 x 32 points."""
    model = SimpleNamespace(image_encoder=SimpleNamespace(img_size=segmenter.backend.image_size))
    generator = SamAutomaticMaskGenerator(model, output_mode="coco_rle", **thresholds)
    predictor = PackagePredictor(segmenter)
    generator.predictor = predictor

    def run(image: NDArray[np.uint8]) -> tuple[Rles, int]:
        predictor.num_prompts = 0
        rows = sorted(generator.generate(image), key=lambda row: -row["predicted_iou"])
        return [row["segmentation"] for row in rows], predictor.num_prompts

    return run


def our_row(segmenter: Segmenter, settings: EverythingSettings | GridSettings) -> Row:
    """Return a search of ours."""

    def run(image: NDArray[np.uint8]) -> tuple[Rles, int]:
        found: EverythingMasks = segmenter.segment_everything(image, settings)
        return found.masks.to_rle(), found.num_prompts

    return run


def rows_of(net: PromptableNet, min_score: float, min_stability: float) -> dict[str, Row]:
    """Return everything that is compared; the thresholds on masks are those of all grids."""
    few = Segmenter(TorchBackend(net, fused=True), 16)  # PyTorch's fastest on two cores
    many = Segmenter(TorchBackend(net, fused=True), 64)  # as the package decodes by default
    thresholds = {"pred_iou_thresh": min_score, "stability_score_thresh": min_stability}
    grids = {side: GridSettings(points_per_side=side, **thresholds) for side in (16, 32)}  # type: ignore[arg-type]
    return {
        "proposals": our_row(few, EverythingSettings()),
        "proposals, then points": our_row(few, EverythingSettings(fill_points_per_side=16)),
        "grid 16 x 16": our_row(few, grids[16]),
        "grid 32 x 32": our_row(few, grids[32]),
        "segment_anything 32 x 32": package_row(many, thresholds),
    }


def main() -> None:
    """Run every search on every image in turns and write recall, prompts and seconds down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="released model, model folder or weight file")
    parser.add_argument("--data", default="$EDGESEG_DATA")
    parser.add_argument("--images", type=int, default=3, help="of each domain")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--min-score", type=float, default=0.3)
    parser.add_argument("--min-stability", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=RESULTS / "everything.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    source = SourceConfig(format="sa1b", path=expand_path(Path(options.data)), split="val")
    records = select_records(
        list_records([source]), EvaluationConfig(max_images_a_domain=options.images)
    )
    rows = rows_of(load_model(options.model), options.min_score, options.min_stability)
    answers: dict[str, dict[str, list[ImageAnswers]]] = {name: {} for name in rows}
    costs: dict[str, list[tuple[float, int]]] = {name: [] for name in rows}
    for number, record in enumerate(records):
        image = record.read_image()
        targets = record.read_masks((image.shape[0], image.shape[1]))
        for name, run in rows.items():
            if number == 0:
                run(image)  # the first run of anything is slow
            started = time.perf_counter()
            masks, num_prompts = run(image)
            costs[name].append((time.perf_counter() - started, num_prompts))
            found = ImageAnswers(targets, masks, None, -np.arange(len(masks), dtype=np.float64))
            answers[name].setdefault(record.domain, []).append(found)
        print(f"{number + 1} of {len(records)}: {record.name}", flush=True)

    results = {}
    for name, domains in answers.items():
        recalls = {domain: average_recall(images, "masks") for domain, images in domains.items()}
        limits = next(iter(recalls.values()))
        results[name] = {
            "recall": {n: float(np.mean([r[n] for r in recalls.values()])) for n in limits},
            "recall_by_domain": recalls,
            "mean_seconds": float(np.mean([seconds for seconds, _ in costs[name]])),
            "mean_prompts": float(np.mean([prompts for _, prompts in costs[name]])),
        }
        shown = ", ".join(f"AR@{n} {100 * r:.1f}" for n, r in results[name]["recall"].items())  # type: ignore[attr-defined]
        cost = results[name]
        print(
            f"{name:26} {shown}, {cost['mean_prompts']:.0f} prompts, {cost['mean_seconds']:.2f} s"
        )
    document = {
        "machine": describe_machine(("torch", "segment-anything")),
        "model": options.model,
        "threads": options.threads,
        "num_images": len(records),
        "min_score": options.min_score,
        "min_stability": options.min_stability,
        "rows": results,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_atomically(options.out, lambda temporary: temporary.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()

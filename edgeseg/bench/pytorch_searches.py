"""Ways to find everything in an image, on one network in PyTorch, to be measured side by side.

`segment_anything`'s generator is the one of the package, untouched; only its predictor is replaced
by one that asks our network.
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.transforms import ResizeLongestSide

from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.everything import EverythingMasks, EverythingSettings
from edgeseg.runtime.mask_grid import GridSettings
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

Rles = Sequence[Mapping[str, Any]]
Search = Callable[[NDArray[np.uint8]], tuple[Rles, int]]
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


def package_search(segmenter: Segmenter, thresholds: Mapping[str, float]) -> Search:
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


def our_search(segmenter: Segmenter, settings: EverythingSettings | GridSettings) -> Search:
    """Return a search of ours."""

    def run(image: NDArray[np.uint8]) -> tuple[Rles, int]:
        found: EverythingMasks = segmenter.segment_everything(image, settings)
        return found.masks.to_rle(), found.num_prompts

    return run


def all_searches(net: PromptableNet, min_score: float, min_stability: float) -> dict[str, Search]:
    """Return everything that is compared; the thresholds on masks are those of all grids."""
    few = Segmenter(TorchBackend(net, fused=True), 16)  # PyTorch's fastest on two cores
    many = Segmenter(TorchBackend(net, fused=True), 64)  # as the package decodes by default
    thresholds = {"pred_iou_thresh": min_score, "stability_score_thresh": min_stability}
    grids = {side: GridSettings(points_per_side=side, **thresholds) for side in (16, 32)}  # type: ignore[arg-type]
    return {
        "proposals": our_search(few, EverythingSettings()),
        "proposals, then points": our_search(few, EverythingSettings(fill_points_per_side=16)),
        "grid 16 x 16": our_search(few, grids[16]),
        "grid 32 x 32": our_search(few, grids[32]),
        "segment_anything 32 x 32": package_search(many, thresholds),
    }

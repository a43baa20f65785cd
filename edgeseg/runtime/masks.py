"""The answer to prompts: masks at image size, and the forms people take them away in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ImageError, MissingExtraError
from edgeseg.mask_crop import MaskCrop
from edgeseg.preprocess import check_image
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import encode_crop
from edgeseg.runtime.drawing import draw_masks, draw_prompts
from edgeseg.runtime.outlines import trace_polygons


@dataclass(frozen=True, eq=False)
class Masks:
    """M masks on one image.

    They are kept without the empty image around them: hundreds of masks of a large photograph fit
    in memory as long as `masks` is not asked for.

    Attributes:
        crops: M masks at the size of the original image, each the rectangle it covers.
        image_hw: Height and width of the image, in pixels.
        low_res_logits: (M, S/4, S/4) float32 in the model frame; a row can be the `mask_logits` of
            a next prompt.
        scores: (M,) float32, the model's own estimate of each mask's IoU.
        prompt_indices: (M,) int64, which prompt each mask answers.
    """

    crops: tuple[MaskCrop, ...]
    image_hw: tuple[int, int]
    low_res_logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    prompt_indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.crops)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """(M, H, W) bool, true on the object: a byte for every pixel of the image and mask."""
        masks = np.zeros((len(self.crops), *self.image_hw), np.bool_)
        for mask, crop in zip(masks, self.crops, strict=True):
            crop.paste(mask)
        return masks

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(M, 4) float32, outer pixel edges, x0 y0 x1 y1 in image pixels; 0 for an empty mask."""
        return np.array([crop.edges_xyxy for crop in self.crops], np.float32).reshape(-1, 4)

    @property
    def areas_px(self) -> NDArray[np.int64]:
        """(M,) int64, number of pixels on each object."""
        return np.array([crop.area_px for crop in self.crops], np.int64)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Masks":
        """Return some of the masks, in the order of the indices."""
        rows = np.asarray(indices, np.intp)
        return Masks(
            crops=tuple(self.crops[row] for row in rows),
            image_hw=self.image_hw,
            low_res_logits=self.low_res_logits[rows],
            scores=self.scores[rows],
            prompt_indices=self.prompt_indices[rows],
        )

    def to_rle(self) -> list[dict[str, Any]]:
        """Return each mask as COCO run lengths, {"size": [height, width], "counts": str}.

        This is the form of annotation and result files: JSON takes it as it is. See `to_coco_rle`
        for pycocotools.
        """
        return [encode_crop(crop) for crop in self.crops]

    def to_coco_rle(self) -> list[dict[str, Any]]:
        """Return each mask as `pycocotools.mask.encode` does: `to_rle` with "counts" as bytes."""
        return [{**rle, "counts": rle["counts"].encode("ascii")} for rle in self.to_rle()]

    def to_supervision(self) -> Any:  # noqa: ANN401  # no extra of ours brings the package
        """Return the masks as a `supervision.Detections` of the package of that name.

        Boxes are outer pixel edges, as everywhere here, so x1 and y1 are one more than those of
        `supervision.mask_to_xyxy`. Scores become confidences, there are no classes, and
        `data["prompt_index"]` says which prompt each mask answers.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            supervision = import_module("supervision")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "supervision is not installed; run: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes_xyxy,
            mask=self.masks,
            confidence=self.scores,
            class_id=None,
            data={"prompt_index": self.prompt_indices},
        )

    def to_polygons(self, tolerance_px: float = 0.0) -> list[list[NDArray[np.float32]]]:
        """Return the outlines of each mask, parts and holes.

        Outlines run along pixel edges, so a polygon has exactly the area of its part. Seen with y
        pointing down, parts run clockwise and holes counter-clockwise.

        Args:
            tolerance_px: How far a simplified outline may leave the exact one, in pixels; 0 keeps
                every corner.

        Returns:
            For each mask a list of (K, 2) float32 polygons, x then y, in image pixels.

        Raises:
            ConfigError: The tolerance is negative.
        """
        return [trace_polygons(crop, tolerance_px) for crop in self.crops]

    def overlay(
        self,
        image: NDArray[np.uint8],
        alpha: float = 0.45,
        prompts: Prompt | Sequence[Prompt] = (),
    ) -> NDArray[np.uint8]:
        """Draw the masks, and the prompts if given, over their image.

        Args:
            image: (H, W, 3) uint8 RGB, the image that was encoded; it is not changed.
            alpha: How much of the colour covers the image inside a mask, 0..1.
            prompts: Drawn on top: green points on the object, red ones outside it, white boxes.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ImageError: The image has another size than the masks.
            ConfigError: `alpha` is not in 0..1.
        """
        check_image(image)
        if image.shape[:2] != self.image_hw:
            raise ImageError(
                f"the masks belong to an image of {self.image_hw} (height, width), got "
                f"{image.shape[:2]}; draw on the image that was encoded"
            )
        drawn = draw_masks(image, self.crops, alpha)
        return draw_prompts(drawn, [prompts] if isinstance(prompts, Prompt) else prompts)

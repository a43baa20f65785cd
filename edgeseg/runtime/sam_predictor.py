"""A predictor with the methods of `segment_anything.SamPredictor`, over any segmenter.

Code written for SAM runs by changing the import. What differs is said where it differs.

Coordinates: SAM counts pixels, so that an integer is a pixel's centre, scales them into the model
input and adds half a model pixel there. EdgeSeg's coordinates are continuous: the centre of the
first pixel is 0.5. This class hands the network the coordinates that SAM would, so that SAM's
weights answer as in SAM: x becomes x + 0.5 / scale, cut off at the edge of the image. At the scale
1 that is the centre of the pixel; where an image shrinks it lies beside the centre, by half a model
pixel at most.
"""

import os
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ConfigError, ImageError, PromptError
from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import upsample_logits, upsample_masks
from edgeseg.preprocess import check_image
from edgeseg.prompts import Prompt
from edgeseg.runtime.loading import load
from edgeseg.runtime.segmenter import EncodedImage, Segmenter


class SamPredictor:
    """Answers prompts on the image that was set last.

    Unlike a `Segmenter` it keeps an image between calls: give every thread a predictor of its own;
    they may share the segmenter.

    Args:
        segmenter: A segmenter, or the name or folder of a model for `edgeseg.load`.
    """

    def __init__(self, segmenter: Segmenter | str | os.PathLike[str]) -> None:
        self.segmenter = segmenter if isinstance(segmenter, Segmenter) else load(segmenter)
        self._encoded: EncodedImage | None = None

    @property
    def is_image_set(self) -> bool:
        """Whether `predict` can be called."""
        return self._encoded is not None

    @property
    def features(self) -> tuple[NDArray[Any], ...] | None:
        """What the encoder made of the image, or None; SAM has one tensor here."""
        return None if self._encoded is None else self._encoded.features

    @property
    def original_size(self) -> tuple[int, int] | None:
        """Height and width of the image in pixels, or None."""
        return None if self._encoded is None else self._encoded.frame.image_hw

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the scaled image without padding in model pixels, or None."""
        return None if self._encoded is None else self._encoded.frame.content_hw

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image, so that `predict` answers prompts on it.

        Args:
            image: (H, W, 3) uint8.
            image_format: "RGB" or "BGR", the order of its channels.

        Raises:
            ImageError: The image is not (H, W, 3) uint8.
            ConfigError: The format is another one.
        """
        if image_format not in ("RGB", "BGR"):
            raise ConfigError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}")
        check_image(image)
        self.reset_image()  # or an error would leave the image before this one
        rgb = image if image_format == "RGB" else np.ascontiguousarray(image[..., ::-1])
        self._encoded = self.segmenter.encode(rgb)

    def reset_image(self) -> None:
        """Forget the image."""
        self._encoded = None

    def get_image_embedding(self) -> NDArray[Any]:
        """Return the (1, D, S/16, S/16) float image embedding; SAM returns a tensor.

        Raises:
            ImageError: No image is set.
        """
        return self._image().features[0]

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Answer one prompt on the image.

        Args:
            point_coords: (P, 2), x then y, in pixels of the image as SAM counts them, on it.
            point_labels: (P,), 1 on the object, 0 outside it.
            box: (4,), x0 y0 x1 y1 with x0 < x1 and y0 < y1, in the same pixels.
            mask_input: (1, S/4, S/4) logits in the model frame, a row of an earlier answer.
            multimask_output: Return the three answers of tokens 1 to 3 instead of token 0, as SAM
                does, whatever the prompt is.
            return_logits: Return float32 logits at image size instead of masks.

        Returns:
            C masks, (C, H, W) bool, or float32 logits; their predicted IoU, (C,) float32; and their
            low-res logits, (C, S/4, S/4) float32. C is 3 with `multimask_output`, else 1.

        Raises:
            ImageError: No image is set.
            PromptError: There is no prompt, or it does not fit the image; SAM lets such prompts
                through.
        """
        encoded = self._image()
        prompt = _prompt(encoded.frame, point_coords, point_labels, box, mask_input)
        logits, scores = self.segmenter.predict_logits(encoded, [prompt])
        tokens = slice(1, 4) if multimask_output else slice(0, 1)
        low_res_logits, iou_scores = logits[0, tokens], scores[0, tokens]
        if return_logits:
            full = [upsample_logits(cells, encoded.frame) for cells in low_res_logits]
            return np.stack(full), iou_scores, low_res_logits
        return upsample_masks(low_res_logits, encoded.frame), iou_scores, low_res_logits

    def predict_torch(self, *_: object, **__: object) -> NoReturn:
        """Refuse: there are no tensors here.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "predict_torch takes PyTorch tensors, which this runtime does without; use predict, or "
            "predictor.segmenter.segment(encoded, [prompt, ...]) for many prompts in one call"
        )

    def set_torch_image(self, *_: object, **__: object) -> NoReturn:
        """Refuse: there are no tensors here.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "set_torch_image takes a PyTorch tensor, which this runtime does without; use "
            "set_image with an (H, W, 3) uint8 array"
        )

    def _image(self) -> EncodedImage:
        if self._encoded is None:
            raise ImageError(
                "no image is set; call set_image with an (H, W, 3) uint8 array before predict"
            )
        return self._encoded


def _prompt(
    frame: ModelFrame,
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
) -> Prompt:
    if point_coords is not None and point_labels is None:  # SAM refuses this, too
        raise PromptError("point_labels must be given with point_coords; 1 is object, 0 is not")
    if box is not None and np.size(box) == 4:
        box = np.reshape(box, 4)  # code for SAM often has one row, (1, 4)
    if mask_input is not None and np.shape(mask_input)[:-2] == (1,):
        mask_input = np.asarray(mask_input)[0]
    points = () if point_coords is None else point_coords
    return _continuous(Prompt(points, point_labels, box, mask_input), frame)


def _continuous(prompt: Prompt, frame: ModelFrame) -> Prompt:
    """Move a prompt from SAM's pixels to continuous ones, see the top of this file."""
    shift_xy = 0.5 / frame.scale_xy
    size_xy = np.array(frame.image_hw[::-1], np.float32)
    points_xy = prompt.points_xy
    moved_xy = points_xy + shift_xy
    # The last pixels of a large image would leave it; points that were never on it stay refused.
    moved_xy = np.where(points_xy <= size_xy, np.minimum(moved_xy, size_xy), moved_xy)
    box_xyxy = prompt.box_xyxy
    if box_xyxy is not None:
        box_xyxy = box_xyxy + np.tile(shift_xy, 2)
    return Prompt(moved_xy, prompt.point_labels, box_xyxy, prompt.mask_logits)

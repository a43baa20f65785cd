"""A pair with the tensors of SAM's own ONNX export, driven as programs for SAM drive it.

Written from the published contract (segment-anything, scripts/export_onnx_model.py, and what
samexporter's programs feed), not from the exporter beside it: the image is scaled to the longest
side of the input, points count from pixel centres in the scaled frame, and the app itself appends
the padding point (0, 0) with label -1 to prompts without a box.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.exporter.proof import ImageAnswer, PromptAnswer
from edgeseg.geometry import ModelFrame
from edgeseg.preprocess import resize_longest_side
from edgeseg.prompts import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING, Prompt
from edgeseg.runtime.onnx_backend import open_graph


class SamContractAnswerer:
    """Answers prompts through the two files, one prompt a call.

    Args:
        encoder: Path of the encoder.
        decoder: Path of the decoder.
    """

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self._encoder, self._decoder = open_graph(encoder), open_graph(decoder)
        (mask,) = (spec for spec in self._decoder.inputs if spec.name == "mask_input")
        self._mask_side = int(mask.shape[-1])
        self._image_size = 4 * self._mask_side

    def answer(
        self, image: NDArray[np.uint8], prompt_sets: Sequence[Sequence[Prompt]]
    ) -> ImageAnswer:
        """Encode once, decode prompt by prompt."""
        scaled = resize_longest_side(image, self._image_size).astype(np.float32)
        embedding = self._encoder.run({"input_image": scaled})["image_embeddings"]
        frame = ModelFrame((image.shape[0], image.shape[1]), self._image_size)
        answers = tuple(
            PromptAnswer(
                np.concatenate([logits for logits, _ in found]),
                np.concatenate([scores for _, scores in found]),
            )
            for prompts in prompt_sets
            for found in [[self._decode(embedding, frame, prompt) for prompt in prompts]]
        )
        return ImageAnswer((np.asarray(embedding, np.float32),), answers)

    def _decode(
        self, embedding: NDArray[np.float32], frame: ModelFrame, prompt: Prompt
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points_xy = frame.to_model_xy(prompt.points_xy).reshape(-1, 2) - 0.5
        labels = [int(label) for label in prompt.point_labels]
        if prompt.box_xyxy is not None:
            corners_xy = frame.to_model_box(prompt.box_xyxy).reshape(2, 2) - 0.5
            points_xy = np.concatenate([points_xy, corners_xy])
            labels += [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
        elif labels:
            points_xy = np.concatenate([points_xy, np.zeros((1, 2))])
            labels.append(PADDING)
        mask = np.zeros((1, 1, self._mask_side, self._mask_side), np.float32)
        if prompt.mask_logits is not None:
            mask[0, 0] = prompt.mask_logits
        found = self._decoder.run(
            {
                "image_embeddings": embedding,
                "point_coords": points_xy[None].astype(np.float32),
                "point_labels": np.array([labels], np.float32),
                "mask_input": mask,
                "has_mask_input": np.array([prompt.mask_logits is not None], np.float32),
                "orig_im_size": np.array(frame.image_hw, np.float32),
            }
        )
        return found["low_res_masks"], found["iou_predictions"]

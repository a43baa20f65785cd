"""A file that holds encoder and decoder, asked the same as a pair."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.exporter.proof import ImageAnswer, PromptAnswer
from edgeseg.geometry import ModelFrame
from edgeseg.prompt_packing import pack_prompts
from edgeseg.prompts import Prompt
from edgeseg.runtime.exported_model import Graph, cast
from edgeseg.runtime.model_input import model_input
from edgeseg.runtime.prompt_slots import EmptyMasks, fill_slots
from edgeseg.signature import (
    IMAGE,
    IMAGE_HW,
    IMAGE_RGB,
    IOU_SCORES,
    LOW_RES_LOGITS,
    POINT_LABELS,
    POINTS_XY_IMAGE,
    PromptSlots,
)


class FusedAnswerer:
    """Run `edgeseg.signature.fused_spec` as an app would.

    Args:
        graph: The loaded file.
        image_size: Side S of the model input, in pixels.
    """

    def __init__(self, graph: Graph, image_size: int) -> None:
        self._graph = graph
        self._image_size = image_size
        self._specs = {spec.name: spec for spec in graph.inputs}
        missing = {IMAGE_HW, POINTS_XY_IMAGE, POINT_LABELS} - self._specs.keys()
        if missing or not {IMAGE, IMAGE_RGB} & self._specs.keys():
            raise ExportError(
                f"a fused file takes an image, {IMAGE_HW}, {POINTS_XY_IMAGE} and {POINT_LABELS}, "
                f"got {', '.join(self._specs)}; export it again"
            )
        num_prompts, num_points = self._specs[POINT_LABELS].shape
        self._slots = PromptSlots(
            num_prompts if isinstance(num_prompts, int) else None,
            num_points if isinstance(num_points, int) else None,
        )

    def answer(
        self, image: NDArray[np.uint8], prompt_sets: Sequence[Sequence[Prompt]]
    ) -> ImageAnswer:
        """Answer each set; the image is encoded again in every call, as the file does."""
        normalises = IMAGE_RGB in self._specs
        name = IMAGE_RGB if normalises else IMAGE
        frame = ModelFrame((image.shape[0], image.shape[1]), self._image_size)
        feeds = {
            name: cast(model_input(image, self._image_size, normalises), self._specs[name].dtype),
            IMAGE_HW: cast(np.array(frame.image_hw), self._specs[IMAGE_HW].dtype),
        }
        answers = tuple(self._answer(feeds, frame, prompts) for prompts in prompt_sets)
        return ImageAnswer((), answers)

    def _answer(
        self, feeds: dict[str, NDArray[Any]], frame: ModelFrame, prompts: Sequence[Prompt]
    ) -> PromptAnswer:
        packed = pack_prompts(prompts, frame)
        points_xy_image = frame.to_image_xy(packed.points_xy)
        no_masks = EmptyMasks(1, np.dtype(np.float32))
        logits, scores = [], []
        for part in fill_slots(
            points_xy_image, packed.point_labels, None, None, self._slots, no_masks
        ):
            given: dict[str, NDArray[Any]] = {
                POINTS_XY_IMAGE: part.points_xy,
                POINT_LABELS: part.point_labels,
            }
            typed = {name: cast(array, self._specs[name].dtype) for name, array in given.items()}
            found = self._graph.run({**feeds, **typed})
            logits.append(np.asarray(found[LOW_RES_LOGITS], np.float32)[: part.num_prompts])
            scores.append(np.asarray(found[IOU_SCORES], np.float32)[: part.num_prompts])
        return PromptAnswer(np.concatenate(logits), np.concatenate(scores))

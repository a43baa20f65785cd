"""The picture panel of an evaluation: image with prompt, target, teacher, student."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.records import ImageRecord
from edgeseg.errors import DataError, ImageError
from edgeseg.evaluation.config import EvaluationConfig, Start
from edgeseg.evaluation.objects import TargetObject, read_objects
from edgeseg.files import write_atomically
from edgeseg.mask_crop import MaskCrop
from edgeseg.prompts import Prompt
from edgeseg.runtime.drawing import draw_masks, draw_prompts
from edgeseg.runtime.segmenter import Segmenter

TILE_PX = 240
"""Width and height of one picture of a panel."""
_BAR_PX = 22


def save_panel(
    path: Path,
    records: Sequence[ImageRecord],
    student: Segmenter,
    teacher: Segmenter | None,
    num_images: int,
) -> None:
    """Draw how some objects are segmented, always the same ones, and save it as PNG.

    Rows alternate between a box and a centre point as the prompt.

    Args:
        path: A .png file; it is replaced.
        records: Images to choose from, evenly over the list.
        student: The network in training.
        teacher: Drawn beside it, or None.
        num_images: Rows of the panel.
    """
    step = max(1, len(records) // max(1, num_images))
    rows: list[NDArray[np.uint8]] = []
    for record in records[::step]:
        if len(rows) == num_images:
            break
        row = _row(record, student, teacher, "box" if len(rows) % 2 == 0 else "center")
        if row is not None:
            rows.append(row)
    if not rows:
        return
    titles = ["prompt", "target"] + (["teacher"] if teacher is not None else []) + ["student"]
    panel = np.concatenate([_header(titles), *rows])
    encoded = cv2.cvtColor(panel, cv2.COLOR_RGB2BGR)
    write_atomically(path, lambda temporary: cv2.imwrite(str(temporary), encoded))


def _row(
    record: ImageRecord, student: Segmenter, teacher: Segmenter | None, start: Start
) -> NDArray[np.uint8] | None:
    try:
        image, target = _largest_object(record)
    except (DataError, ImageError):
        return None
    prompt = target.first_prompt(start)
    masks = [target.mask]
    masks += [_answer(segmenter, image, prompt) for segmenter in (teacher, student) if segmenter]
    pictures = [draw_prompts(image, [prompt])]
    pictures += [draw_masks(image, [mask], 0.5) for mask in masks]
    return np.concatenate([_tile(picture) for picture in pictures], axis=1)


def _largest_object(record: ImageRecord) -> tuple[NDArray[np.uint8], TargetObject]:
    image, objects = read_objects(record, EvaluationConfig(boundary=False, grabcut=None))
    if not objects:
        raise DataError(f"{record.name} has no object to draw")
    area = image.shape[0] * image.shape[1]
    # A region of about a tenth of the image shows more than the whole background would.
    return image, min(objects, key=lambda o: abs(o.mask.area_px / area - 0.1))


def _answer(segmenter: Segmenter, image: NDArray[np.uint8], prompt: Prompt) -> MaskCrop:
    return segmenter.segment(segmenter.encode(image), prompt).crops[0]


def _tile(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = TILE_PX / max(picture.shape[:2])
    size_wh = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


def _header(titles: Sequence[str]) -> NDArray[np.uint8]:
    bar = np.full((_BAR_PX, TILE_PX * len(titles), 3), 255, np.uint8)
    for index, title in enumerate(titles):
        origin = (index * TILE_PX + 4, _BAR_PX - 6)
        cv2.putText(bar, title, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return bar

"""Average recall: how many objects are among the best N answers of an image that had no prompt.

Source: COCO's evaluation (Lin et al. 2014, arXiv:1405.0312), through pycocotools: recall over all
images and objects, averaged over the IoU thresholds 0.50, 0.55 ... 0.95. Each object is found by
one answer at most. Classes are ignored.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, DataError, missing_extra

LIMITS = (10, 100, 1000)
"""Answers of an image that count."""


@dataclass(frozen=True, eq=False)
class ImageAnswers:
    """What was found on one image, beside what is there.

    Attributes:
        targets: COCO run lengths of the objects, all of one size.
        masks: COCO run lengths of the answers; None where only boxes are compared.
        boxes_xyxy: (M, 4) float, boxes of the answers in pixels; None where masks are compared.
        scores: (M,) float, the most confident answers are looked at first.
    """

    targets: Sequence[Mapping[str, Any]]
    masks: Sequence[Mapping[str, Any]] | None
    boxes_xyxy: NDArray[np.floating] | None
    scores: NDArray[np.floating]


def average_recall(
    images: Sequence[ImageAnswers],
    kind: Literal["masks", "boxes"],
    limits: Sequence[int] = LIMITS,
) -> dict[int, float]:
    """Return the average recall for each limit on the number of answers.

    Args:
        images: Of all images; one without objects counts for nothing.
        kind: What of the answers is compared with the objects' masks or their boxes.
        limits: Answers of an image that count, in rising order.

    Raises:
        ConfigError: There is no limit, or they do not rise.
        DataError: No image has an object.
        MissingExtraError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise missing_extra("pycocotools", "train") from error
    if not limits or list(limits) != sorted(set(limits)) or limits[0] < 1:
        raise ConfigError(f"limits must rise from 1 or more, got {list(limits)}; 10, 100, 1000 do")
    if not any(image.targets for image in images):
        raise DataError("no image has an object to be found; give images with masks")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        truth.dataset = _truth(images)
        truth.createIndex()
        rows = list(_answers(images, kind))
        # loadRes() refuses an empty list.
        found = truth.loadRes(rows) if rows else COCO()
        if not rows:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(truth, found, "segm" if kind == "masks" else "bbox")
        run.params.useCats = 0
        run.params.maxDets = list(limits)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"][:, 0, 0]  # (thresholds, limits)
    return {limit: float(recall[:, index].mean()) for index, limit in enumerate(limits)}


def _truth(images: Sequence[ImageAnswers]) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        for rle in image.targets:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 means "not found" in pycocotools
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentation": dict(rle),
                    "bbox": coco_mask.toBbox(dict(rle)).tolist(),
                    "area": float(coco_mask.area(dict(rle))),
                }
            )
    return {
        "info": {},
        "images": [_size(image) | {"id": n} for n, image in enumerate(images, start=1)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }


def _size(image: ImageAnswers) -> dict[str, int]:
    """Return the size of an image, which pycocotools asks for even where masks have it."""
    masks = [*image.targets, *(image.masks or ())]
    height, width = masks[0]["size"] if masks else (0, 0)
    return {"height": int(height), "width": int(width)}


def _answers(images: Sequence[ImageAnswers], kind: str) -> Any:  # noqa: ANN401 - rows as COCO's
    for number, image in enumerate(images, start=1):
        for index, score in enumerate(image.scores.tolist()):
            row: dict[str, Any] = {"image_id": number, "category_id": 1, "score": score}
            if kind == "masks":
                assert image.masks is not None
                row["segmentation"] = dict(image.masks[index])
            else:
                assert image.boxes_xyxy is not None
                x0, y0, x1, y1 = image.boxes_xyxy[index].tolist()
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            yield row

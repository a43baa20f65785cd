"""Prompts for images without annotations: the teacher's own masks.

A grid of points asks the teacher for everything it sees; answers are kept when the teacher is sure
of them, when they are stable and when no better answer covers the same region, as SAM's automatic
mask generator does (Kirillov et al. 2023, arXiv:2304.02643). They are written in the SA-1B layout,
one file an image, so a run that is interrupted continues with the next image.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.distill.config import LabelSettings
from edgeseg.errors import DataError, ImageError
from edgeseg.files import write_atomically
from edgeseg.metrics import mask_iou
from edgeseg.postprocess import content_logits, stability_score, upsample_masks
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import encode_rle
from edgeseg.runtime.segmenter import Segmenter


def label_image(
    segmenter: Segmenter, image: NDArray[np.uint8], settings: LabelSettings
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Find what the teacher sees in an image.

    Args:
        segmenter: The teacher.
        image: (H, W, 3) uint8 RGB.
        settings: What to keep.

    Returns:
        (K, H, W) bool masks and their (K,) float32 predicted scores, best first; K may be 0.
    """
    height, width = image.shape[:2]
    encoded = segmenter.encode(image)
    side = settings.points_per_side
    steps = (np.arange(side) + 0.5) / side
    grid = [(x * width, y * height) for y in steps for x in steps]
    logits_parts, score_parts = [], []
    for start in range(0, len(grid), segmenter.max_prompts_a_call):
        points = grid[start : start + segmenter.max_prompts_a_call]
        prompts = [Prompt(np.array([point], np.float32)) for point in points]
        logits, scores = segmenter.predict_logits(encoded, prompts)
        logits, scores = logits[:, 1:].reshape(-1, *logits.shape[2:]), scores[:, 1:].reshape(-1)
        content = content_logits(logits, encoded.frame)  # what lies on padding says nothing
        share = (content > 0).mean(axis=(1, 2))
        keep = (scores >= settings.min_score) & (share >= settings.min_area_share)
        keep[keep] &= stability_score(content[keep]) >= settings.min_stability
        logits_parts.append(logits[keep])
        score_parts.append(scores[keep])
    logits, scores = np.concatenate(logits_parts), np.concatenate(score_parts)
    content = content_logits(logits, encoded.frame)
    chosen = _without_overlaps(content > 0, scores, settings.max_overlap)[: settings.max_masks]
    masks, scores = upsample_masks(logits[chosen], encoded.frame), scores[chosen]
    seen = masks.any(axis=(1, 2))  # a lone cell may vanish between the pixels of a small image
    return masks[seen], scores[seen]


def _without_overlaps(
    masks: NDArray[np.bool_], scores: NDArray[np.float32], max_overlap: float
) -> list[int]:
    """Return indices of masks, best first, none of which overlaps a better one too much."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if all(mask_iou(masks[index], masks[other]) <= max_overlap for other in kept):
            kept.append(index)
    return kept


def label_records(
    records: Sequence[ImageRecord],
    segmenter: Segmenter,
    folder: Path,
    settings: LabelSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ImageRecord]:
    """Give records without annotations the teacher's masks, in place.

    Args:
        records: Those with annotations are passed through as they are.
        segmenter: The teacher.
        folder: Where the masks of each image are written; finished ones are reused.
        settings: What to keep.
        on_progress: Called with the numbers of images done and to do.

    Returns:
        The records in the same order. An image that cannot be read keeps its lack of annotations,
        and the loader reports it.
    """
    bare = [record for record in records if record.annotations is None]
    labelled: dict[str, ImageRecord] = {}
    for done, record in enumerate(bare):
        path = folder / f"{sha256(record.name.encode()).hexdigest()[:24]}.json"
        if not path.exists():
            try:
                _write_labels(record, segmenter, path, settings)
            except (DataError, ImageError):
                continue
        labelled[record.name] = replace(record, annotations=ByteRange(path))
        on_progress(done + 1, len(bare))
    return [labelled.get(record.name, record) for record in records]


def check_masks(records: Sequence[ImageRecord]) -> None:
    """Raise if no record has any mask; the first one that has ends the search.

    Raises:
        DataError: There is nothing to learn.
    """
    for record in records:
        try:
            if record.annotations and json.loads(record.annotations.read())["annotations"]:
                return
        except (DataError, ValueError, LookupError, TypeError):
            continue  # the loader reports it
    raise DataError(
        f"none of the {len(records)} images has a mask to learn from; give data with masks, or a "
        "teacher that is surer of its own"
    )


def _write_labels(
    record: ImageRecord, segmenter: Segmenter, path: Path, settings: LabelSettings
) -> None:
    image = record.read_image()
    masks, scores = label_image(segmenter, image, settings)
    layout = {
        "image": {"image_id": record.name, "height": image.shape[0], "width": image.shape[1]},
        "annotations": [
            {
                "id": number,
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "predicted_iou": float(score),
            }
            for number, (mask, score) in enumerate(zip(masks, scores, strict=True))
        ],
    }
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(layout), "utf-8"))

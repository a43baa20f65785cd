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
from edgeseg.mask_crop import MaskCrop
from edgeseg.postprocess import num_content_cells
from edgeseg.run_lengths import encode_crop
from edgeseg.runtime.asking import Asked, ask
from edgeseg.runtime.candidates import Quality, Window, grid_points, without_equal_masks
from edgeseg.runtime.segmenter import Segmenter


def label_image(
    segmenter: Segmenter, image: NDArray[np.uint8], settings: LabelSettings
) -> list[tuple[MaskCrop, float]]:
    """Find what the teacher sees in an image.

    Args:
        segmenter: The teacher.
        image: (H, W, 3) uint8 RGB.
        settings: What to keep.

    Returns:
        Masks with their predicted scores, best first; there may be none.
    """
    encoded = segmenter.encode(image)
    window = Window.whole(encoded.frame)
    rows, cols = num_content_cells(encoded.frame, encoded.frame.image_size // 4)
    least = settings.min_area_share * rows * cols
    points = grid_points(window.image_hw, settings.points_per_side)
    quality = Quality(settings.min_score, settings.min_stability)
    answers = ask(segmenter, encoded, Asked.points(points), window, quality)
    found = [candidate for candidate in answers if candidate.num_cells >= least]
    kept = without_equal_masks(found, settings.max_overlap)[: settings.max_masks]
    masks = [(candidate.crop(), candidate.score) for candidate in kept]
    return [(crop, score) for crop, score in masks if crop.pixels.size]


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
    masks = label_image(segmenter, image, settings)
    layout = {
        "image": {"image_id": record.name, "height": image.shape[0], "width": image.shape[1]},
        "annotations": [
            {
                "id": number,
                "segmentation": encode_crop(crop),
                "area": crop.area_px,
                "predicted_iou": score,
            }
            for number, (crop, score) in enumerate(masks)
        ],
    }
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(layout), "utf-8"))

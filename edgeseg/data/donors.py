"""Where pasted objects come from: other images of the domain, and which of their masks will do."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.records import ImageRecord
from edgeseg.data.segmentations import CocoRle

_PART_SHARE = 0.8
"""An object is a part of another one when more than this share of it lies in that one."""
_PIECE_SHARE = 0.9
"""An object is in one piece when at least this share of it is connected."""


class DonorPool:
    """Finds images whose objects may be pasted: the annotated ones of the same domain.

    Args:
        records: Every image that may be one.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self._records = records
        numbers: dict[str, list[int]] = {}
        for number, record in enumerate(records):
            if record.annotations is not None:
                numbers.setdefault(record.domain, []).append(number)
        self._numbers = {name: np.array(of, np.uint32) for name, of in numbers.items()}

    def sample(self, record: ImageRecord, rng: np.random.Generator) -> ImageRecord | None:
        """Draw another image of a record's domain, or None when there is none.

        Args:
            record: Onto which is pasted.
            rng: Source of randomness.
        """
        pool = self._numbers.get(record.domain)
        if pool is None:
            return None
        place = int(rng.integers(len(pool)))
        donor = self._records[pool[place]]
        if donor.name == record.name:
            donor = self._records[pool[(place + 1) % len(pool)]]
        return None if donor.name == record.name else donor


def is_part(rle: CocoRle, larger: list[CocoRle]) -> bool:
    """Return whether nearly all of an object lies in one of several larger ones."""
    if not larger:
        return False
    # Against a "crowd" pycocotools gives the intersection over the object's own area.
    inside = coco_mask.iou([rle], larger, [1] * len(larger))
    return bool(inside.max() > _PART_SHARE)


def is_one_piece(patch: MaskPatch) -> bool:
    """Return whether nearly all of an object is connected, as what an occluder cuts up is not."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(patch.pixels, connectivity=8)
    return bool(stats[1:, cv2.CC_STAT_AREA].max() >= _PIECE_SHARE * patch.area_px)


def border_share(patch: MaskPatch) -> float:
    """Return how long the image's edge touches an object, in sides of a square with its area."""
    rows, cols = patch.pixels.shape
    height, width = patch.image_hw
    edges = [
        (patch.left == 0, patch.pixels[:, 0]),
        (patch.top == 0, patch.pixels[0]),
        (patch.left + cols == width, patch.pixels[:, -1]),
        (patch.top + rows == height, patch.pixels[-1]),
    ]
    border_px = sum(np.count_nonzero(pixels) for touches, pixels in edges if touches)
    return float(border_px / np.sqrt(patch.area_px))

"""Records to objects: which images and masks are measured, and their first prompts."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.prompt_sampling import box_of_mask, center_point
from edgeseg.errors import DataError
from edgeseg.evaluation.config import EvaluationConfig, Start
from edgeseg.mask_crop import MaskCrop, crop_mask, joint_window
from edgeseg.metrics import crop_boundary
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import decode_rle


class Record(Protocol):
    """What is needed of a record; `edgeseg.data.records.ImageRecord` has it."""

    @property
    def name(self) -> str:
        """Name of the record, unique within its domain."""

    @property
    def domain(self) -> str:
        """What kind of image it is."""

    def read_image(self) -> NDArray[np.uint8]:
        """Return the image, (H, W, 3) uint8 RGB."""

    def read_masks(self, image_hw: tuple[int, int]) -> Sequence[Mapping[str, Any]]:
        """Return the masks as COCO run lengths."""


@dataclass(frozen=True, eq=False)
class TargetObject:
    """One object with the truth to compare with.

    Attributes:
        mask: The ground truth.
        boundary: Its inner boundary, or None when that is not measured.
        box_xyxy: (4,) float32, the box around it, in pixels of the image.
        center_xy: (2,) float32, its point farthest from the border, in pixels of the image.
    """

    mask: MaskCrop
    boundary: MaskCrop | None
    box_xyxy: NDArray[np.float32]
    center_xy: NDArray[np.float32]

    def first_prompt(self, start: Start) -> Prompt:
        """Return the prompt an evaluation starts from; that of "click" is the model's business."""
        if start == "box":
            return Prompt(box_xyxy=self.box_xyxy)
        return Prompt(points_xy=self.center_xy[None])


def select_records(records: Iterable[Record], config: EvaluationConfig) -> list[Record]:
    """Draw the images of every domain, in random order within a domain.

    The draw of a domain depends on its own records and the seed only.
    """
    domains: dict[str, list[Record]] = {}
    for record in records:
        domains.setdefault(record.domain, []).append(record)
    selected = []
    for domain, members in domains.items():
        order = _generator(config.seed, domain).permutation(len(members))
        selected += [members[index] for index in order[: config.max_images_a_domain]]
    return selected


def read_objects(
    record: Record, config: EvaluationConfig
) -> tuple[NDArray[np.uint8], list[TargetObject]]:
    """Read an image and draw the objects in it.

    Returns:
        The image, (H, W, 3) uint8 RGB, and at most `max_objects_an_image` objects in the order of
        the record.

    Raises:
        DataError: A mask is damaged or has another size than the image. Reading itself may raise
            what the record raises.
    """
    image = record.read_image()
    height, width = image.shape[:2]
    crops = []
    for rle in record.read_masks((height, width)):
        mask = decode_rle(rle)
        if mask.shape != (height, width):
            raise DataError(
                f"a mask of {record.name} is {mask.shape} (height, width) but its image is "
                f"{(height, width)}; the annotation belongs to another image"
            )
        crops.append(crop_mask(mask))
    crops = [crop for crop in crops if crop.area_px >= config.min_area_px]
    limit = config.max_objects_an_image
    if limit is not None and len(crops) > limit:
        drawn = _generator(config.seed, record.name).choice(len(crops), limit, replace=False)
        crops = [crops[index] for index in sorted(drawn)]
    return image, [_target(crop, config.boundary) for crop in crops]


def _target(crop: MaskCrop, with_boundary: bool) -> TargetObject:
    # One pixel around the object tells the image border from the border of the crop.
    window, _, offset_xy = joint_window(crop, crop, margin_px=1)
    shift = np.array(offset_xy, np.float32)
    return TargetObject(
        mask=crop,
        boundary=crop_boundary(crop) if with_boundary else None,
        box_xyxy=box_of_mask(window) + np.tile(shift, 2),
        center_xy=center_point(window) + shift,
    )


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])

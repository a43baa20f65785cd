"""One record becomes one training sample: image, chosen objects, and a prompt for each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.augmentation import AugmentationConfig, View
from edgeseg.data.chosen_objects import choose_objects, paste_among
from edgeseg.data.copy_paste import Paste, PasteConfig, sample_paste
from edgeseg.data.donors import DonorPool
from edgeseg.data.learned_objects import MASK_STRIDE, LearnedObject
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.prompt_sampling import center_point, draw_point, jitter_box
from edgeseg.data.records import ImageRecord
from edgeseg.errors import ConfigError, DataError, ImageError
from edgeseg.preprocess import preprocess, resize_longest_side


@dataclass(frozen=True)
class SampleSettings:
    """How a sample is made.

    Attributes:
        student_size: Side S of the student's square input, in pixels; a multiple of 4.
        teacher_size: Side T of the teacher's input, in pixels, or None to make none.
        with_instances: Whether objects and prompts are wanted, or images alone.
        max_instances: Most objects of one image; drawn at random when it has more.
        box_share: Chance that an object starts from its box rather than from its point.
        box_jitter: Largest shift of a box's edge as a share of its side, below 0.5.
        center_share: Chance that an object's point is its centre, where people click, rather than
            any of its pixels.
        augmentation: What may happen to the image, or None.

    Raises:
        ConfigError: A setting is out of range.
    """

    student_size: int
    teacher_size: int | None = None
    with_instances: bool = True
    max_instances: int = 16
    box_share: float = 0.5
    box_jitter: float = 0.1
    center_share: float = 0.0
    augmentation: AugmentationConfig | None = None

    def __post_init__(self) -> None:
        if self.student_size < MASK_STRIDE or self.student_size % MASK_STRIDE:
            raise ConfigError(
                f"student_size must be a positive multiple of {MASK_STRIDE}, "
                f"got {self.student_size}"
            )
        if self.teacher_size is not None and self.teacher_size < 1:
            raise ConfigError(f"teacher_size must be positive, got {self.teacher_size}")
        if self.max_instances < 1:
            raise ConfigError(f"max_instances must be at least 1, got {self.max_instances}")
        for name in ("box_share", "center_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.box_jitter < 0.5:
            raise ConfigError(f"box_jitter must be from 0 to below 0.5, got {self.box_jitter}")

    @property
    def paste(self) -> PasteConfig | None:
        """How other images' objects are pasted; None when they are not or none are learned."""
        return self.augmentation.paste if self.augmentation and self.with_instances else None


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """One image with its objects; N objects, N may be 0.

    Attributes:
        name: Name of the record.
        domain: Domain of the record.
        student_image: (3, S, S) float32, normalised, padded right and bottom with zeros.
        teacher_image: (3, T, T) float32, or None; the same array when T == S.
        teacher_embedding: (C, h, w) float, or None.
        image_hw: Height and width of the augmented image, in pixels.
        masks: (N, S/4, S/4) bool, in the student's frame.
        boxes_xyxy: (N, 4) float32, jittered, in pixels of the augmented image.
        points_xy: (N, 2) float32, in pixels of the augmented image.
        use_box: (N,) bool, true where the object starts from its box.
        broken: Messages of the records that could not be used: tried before this one, or to be
            pasted onto it.
    """

    name: str
    domain: str
    student_image: NDArray[np.float32]
    teacher_image: NDArray[np.float32] | None
    teacher_embedding: NDArray[np.floating] | None
    image_hw: tuple[int, int]
    masks: NDArray[np.bool_]
    boxes_xyxy: NDArray[np.float32]
    points_xy: NDArray[np.float32]
    use_box: NDArray[np.bool_]
    broken: tuple[str, ...] = ()


def build_sample(
    record: ImageRecord,
    settings: SampleSettings,
    rng: np.random.Generator,
    donors: DonorPool | None = None,
    fixed_view: View | None = None,
) -> TrainingSample:
    """Read, vary and prompt one record.

    Args:
        record: What to read.
        settings: What to make of it.
        rng: Source of all randomness; an equal generator gives an equal sample.
        donors: Where pasted objects come from; None pastes nothing. A donor that cannot be used is
            reported in the sample, and nothing is pasted.
        fixed_view: A view that was drawn before: only objects and prompts are drawn then.

    Raises:
        DataError: The image or an annotation cannot be read or used.
        ImageError: The image cannot be decoded.
    """
    image = record.read_image()
    image_hw = (image.shape[0], image.shape[1])
    rles = record.read_masks(image_hw) if settings.with_instances else []
    size, augmentation = settings.student_size, settings.augmentation
    view, objects = choose_objects(
        rles, size, settings.max_instances, augmentation, image_hw, rng, fixed_view
    )
    seen = view.of_image(image)
    seen_hw = (seen.shape[0], seen.shape[1])
    paste, broken = _sample_paste(record, settings, donors, seen, rng)
    if paste is not None:
        seen = paste.image
        objects = paste_among(objects, paste, settings.student_size, settings.max_instances)
    student_image = view_pixels(seen, view, settings.student_size)
    patches = [one.patch for one in objects]
    return TrainingSample(
        name=record.name,
        domain=record.domain,
        student_image=student_image,
        teacher_image=_teacher_image(seen, view, settings, student_image),
        teacher_embedding=None,
        image_hw=seen_hw,
        masks=_stack_masks(objects, settings.student_size),
        boxes_xyxy=_stack(
            [jitter_box(patch.box_xyxy, seen_hw, rng, settings.box_jitter) for patch in patches], 4
        ),
        points_xy=_stack([_click(patch, settings.center_share, rng) for patch in patches], 2),
        use_box=rng.random(len(patches)) < settings.box_share,
        broken=broken,
    )


def _sample_paste(
    record: ImageRecord,
    settings: SampleSettings,
    donors: DonorPool | None,
    seen: NDArray[np.uint8],
    rng: np.random.Generator,
) -> tuple[Paste | None, tuple[str, ...]]:
    """Return what is pasted, if anything, and the messages of donors that cannot be used."""
    config = settings.paste
    if config is None or donors is None or rng.random() >= config.probability:
        return None, ()
    donor = donors.sample(record, rng)
    if donor is None:
        return None, ()
    try:
        return sample_paste(donor, config, seen, settings.student_size, rng), ()
    except (DataError, ImageError) as error:
        return None, (str(error),)


def _click(patch: MaskPatch, center_share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    if center_share and rng.random() < center_share:
        return center_point(patch)
    return draw_point(patch, rng)


def view_pixels(seen: NDArray[np.uint8], view: View, size: int) -> NDArray[np.float32]:
    """Return the (3, size, size) float32 model input of an image of which `seen` is the view.

    Colours change after the resize, where pixels are few.
    """
    return preprocess(view.recolor(resize_longest_side(seen, size)), size)[0]


def _teacher_image(
    seen: NDArray[np.uint8],
    view: View,
    settings: SampleSettings,
    student_image: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    if settings.teacher_size is None:
        return None
    if settings.teacher_size == settings.student_size:
        return student_image
    return view_pixels(seen, view, settings.teacher_size)


def _stack(rows: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(len(rows), width)


def _stack_masks(objects: list[LearnedObject], student_size: int) -> NDArray[np.bool_]:
    side = student_size // MASK_STRIDE
    return np.array([one.mask for one in objects], np.bool_).reshape(len(objects), side, side)

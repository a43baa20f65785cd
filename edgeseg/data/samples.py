"""One record becomes one training sample: image, chosen objects, and a prompt for each."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.augmentation import AugmentationConfig, View, sample_view
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.prompt_sampling import center_point, draw_point, jitter_box
from edgeseg.data.records import ImageRecord
from edgeseg.data.segmentations import CocoRle
from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.preprocess import preprocess, resize_longest_side

MASK_STRIDE = 4
"""Model pixels per pixel of a low-res mask, along either side."""
_NUM_WINDOWS = 4
"""Windows tried for one that shows an object, before the whole image is taken."""


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
        broken: Messages of the records that were tried before this one and could not be used.
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
    record: ImageRecord, settings: SampleSettings, rng: np.random.Generator
) -> TrainingSample:
    """Read, vary and prompt one record.

    Args:
        record: What to read.
        settings: What to make of it.
        rng: Source of all randomness; an equal generator gives an equal sample.

    Raises:
        DataError: The image or an annotation cannot be read or used.
        ImageError: The image cannot be decoded.
    """
    image = record.read_image()
    image_hw = (image.shape[0], image.shape[1])
    rles = record.read_masks(image_hw) if settings.with_instances else []
    view, patches, masks = _choose_instances(rles, settings, image_hw, rng)
    seen = view.of_image(image)
    seen_hw = (seen.shape[0], seen.shape[1])
    student_image = _model_input(seen, view, settings.student_size)
    return TrainingSample(
        name=record.name,
        domain=record.domain,
        student_image=student_image,
        teacher_image=_teacher_image(seen, view, settings, student_image),
        teacher_embedding=None,
        image_hw=seen_hw,
        masks=masks,
        boxes_xyxy=_stack(
            [jitter_box(patch.box_xyxy, seen_hw, rng, settings.box_jitter) for patch in patches], 4
        ),
        points_xy=_stack([_click(patch, settings.center_share, rng) for patch in patches], 2),
        use_box=rng.random(len(patches)) < settings.box_share,
    )


def _click(patch: MaskPatch, center_share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    if center_share and rng.random() < center_share:
        return center_point(patch)
    return draw_point(patch, rng)


def _choose_instances(
    rles: list[CocoRle],
    settings: SampleSettings,
    image_hw: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[View, list[MaskPatch], NDArray[np.bool_]]:
    """Draw a view that shows at least one object, if there is any, and the objects to learn.

    Returns:
        The view; up to `max_instances` objects as they are seen; (N, S/4, S/4) bool.
    """
    order = rng.permutation(len(rles)).tolist()
    decoded: dict[int, MaskPatch] = {}  # a second window needs no second decoding
    for view in _candidate_views(settings.augmentation, image_hw, rng):
        patches, masks = _visible(rles, order, decoded, view, settings)
        if patches or not rles:
            return view, patches, _stack_masks(masks, settings.student_size)
    raise AssertionError("the whole image shows every mask, and none is empty")


def _candidate_views(
    config: AugmentationConfig | None, image_hw: tuple[int, int], rng: np.random.Generator
) -> Iterator[View]:
    """Yield views to try in turn; the last one shows the whole image."""
    view = View.plain(image_hw)
    for _ in range(_NUM_WINDOWS if config else 0):
        assert config is not None
        view = sample_view(config, image_hw, rng)
        yield view
    yield view.without_crop()


def _visible(
    rles: list[CocoRle],
    order: list[int],
    decoded: dict[int, MaskPatch],
    view: View,
    settings: SampleSettings,
) -> tuple[list[MaskPatch], list[NDArray[np.bool_]]]:
    """Take objects in order until there are enough.

    An object too thin or small to leave a trace in the low-res mask gives no target to learn, so it
    is used only when the image has no other.
    """
    grid_size = settings.student_size // MASK_STRIDE
    kept: list[tuple[MaskPatch, NDArray[np.bool_]]] = []
    vanished: list[tuple[MaskPatch, NDArray[np.bool_]]] = []
    for index in order:
        if index not in decoded:
            decoded[index] = MaskPatch.of_rle(rles[index])
        patch = view.of_mask(decoded[index])
        if patch is None:
            continue
        mask = patch.on_grid(ModelFrame(patch.image_hw, settings.student_size), grid_size)
        (kept if mask.any() else vanished).append((patch, mask))
        if len(kept) == settings.max_instances:
            break
    chosen = kept or vanished[: settings.max_instances]
    return [patch for patch, _ in chosen], [mask for _, mask in chosen]


def _model_input(seen: NDArray[np.uint8], view: View, size: int) -> NDArray[np.float32]:
    """Return (3, size, size) float32; colours change after the resize, where pixels are few."""
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
    return _model_input(seen, view, settings.teacher_size)


def _stack(rows: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(len(rows), width)


def _stack_masks(masks: list[NDArray[np.bool_]], student_size: int) -> NDArray[np.bool_]:
    side = student_size // MASK_STRIDE
    return np.array(masks, np.bool_).reshape(len(masks), side, side)

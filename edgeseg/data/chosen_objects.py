"""Which objects of an image are learned: a view that shows some, and their masks in it."""

from collections.abc import Iterator, Sequence

import numpy as np

from edgeseg.data.augmentation import AugmentationConfig, View, sample_view
from edgeseg.data.copy_paste import Paste
from edgeseg.data.learned_objects import LearnedObject
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.region_unions import RegionUnions, UnionConfig
from edgeseg.data.segmentations import CocoRle

_NUM_WINDOWS = 4
"""Windows tried for one that shows an object, before the whole image is taken."""


def choose_objects(
    rles: list[CocoRle],
    student_size: int,
    max_instances: int,
    augmentation: AugmentationConfig | None,
    image_hw: tuple[int, int],
    rng: np.random.Generator,
    fixed_view: View | None = None,
) -> tuple[View, list[LearnedObject]]:
    """Draw a view that shows at least one object, if there is any, and the objects to learn.

    Args:
        rles: All masks of the image.
        student_size: Side S of the student's square input, in pixels; a multiple of 4.
        max_instances: Most objects; drawn at random when there are more.
        augmentation: What may happen to the image, or None.
        image_hw: Height and width of the image, in pixels.
        rng: Source of randomness.
        fixed_view: A view that was drawn before, for the same student size: only the objects are
            drawn then.
    """
    order = rng.permutation(len(rles)).tolist()
    decoded: dict[int, MaskPatch] = {}  # a second window needs no second decoding
    unions = augmentation.union if augmentation else None
    drawn = _candidate_views(augmentation, image_hw, rng)
    for view in drawn if fixed_view is None else [fixed_view]:
        masks = _ViewedMasks(rles, decoded, view)
        objects = _visible(masks, order, student_size, max_instances, unions, rng)
        if objects or not rles:
            return view, objects
    if fixed_view is not None:
        return fixed_view, []
    raise AssertionError("the whole image shows every mask, and none is empty")


def paste_among(
    objects: Sequence[LearnedObject], paste: Paste, student_size: int, max_instances: int
) -> list[LearnedObject]:
    """Return the objects to learn once others are pasted: those first, then what is left.

    Args:
        objects: What was chosen before, in random order.
        paste: What is pasted onto the image as it is seen.
        student_size: Side S of the student's square input, in pixels; a multiple of 4.
        max_instances: Most objects.
    """
    all_objects = [LearnedObject.of_patch(patch, student_size) for patch in paste.objects()]
    for one in objects:
        patch = paste.under(one.patch)
        if patch is not None:
            is_whole = patch is one.patch
            all_objects.append(one if is_whole else LearnedObject.of_patch(patch, student_size))
    clear = [one for one in all_objects if one.leaves_trace]
    return (clear or all_objects)[:max_instances]


class _ViewedMasks:
    """The masks of an image as a view shows them, decoded when they are asked for."""

    def __init__(self, rles: list[CocoRle], decoded: dict[int, MaskPatch], view: View) -> None:
        self.rles = rles
        self._decoded = decoded
        self._view = view

    def patch(self, index: int) -> MaskPatch | None:
        """Return a mask as it is seen, or None when too little of it is."""
        if index not in self._decoded:
            self._decoded[index] = MaskPatch.of_rle(self.rles[index])
        return self._view.of_mask(self._decoded[index])


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
    masks: _ViewedMasks,
    order: list[int],
    student_size: int,
    max_instances: int,
    union_config: UnionConfig | None,
    rng: np.random.Generator,
) -> list[LearnedObject]:
    """Take objects in order until there are enough.

    An object too thin or small to leave a trace in the low-res mask is used only when the image has
    no other.
    """
    unions = RegionUnions(masks.rles, masks.patch, union_config, rng) if union_config else None
    kept: list[LearnedObject] = []
    vanished: list[LearnedObject] = []
    for index in order:
        patch = masks.patch(index)
        if patch is None:
            continue
        target = unions.vary(index, patch) if unions else patch
        one = LearnedObject.of_patch(target, student_size)
        (kept if one.leaves_trace else vanished).append(one)
        if len(kept) == max_instances:
            break
    return kept or vanished[:max_instances]

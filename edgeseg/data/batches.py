"""Samples joined into one batch of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.data.samples import TrainingSample


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B images and all their objects; the objects of an image follow one another.

    Attributes:
        names: Names of the records.
        domains: Domains of the records.
        student_images: (B, 3, S, S) float32, normalised, padded right and bottom with zeros.
        teacher_images: (B, 3, T, T) float32, or None; the same tensor when T == S.
        teacher_embedding: (B, C, h, w) float32, or None.
        image_hw: (B, 2) int64, height and width of the augmented images, in pixels.
        counts: Objects of each image; may hold zeros.
        masks: (sum(counts), S/4, S/4) bool, ground truth in the student's frame; padding is false.
        boxes_xyxy: (sum(counts), 4) float32, jittered, in pixels of the augmented image.
        points_xy: (sum(counts), 2) float32, drawn in the mask, in pixels of the augmented image.
        use_box: (sum(counts),) bool, true where the object starts from its box, false where from
            its point.
        broken: Messages of the records that were skipped for this batch.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    student_images: Tensor
    teacher_images: Tensor | None
    teacher_embedding: Tensor | None
    image_hw: Tensor
    counts: tuple[int, ...]
    masks: Tensor
    boxes_xyxy: Tensor
    points_xy: Tensor
    use_box: Tensor
    broken: tuple[str, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TrainingBatch":
        """Return the batch with its tensors on a device."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TrainingBatch":
        """Return the batch in page-locked memory; torch's loader calls this when asked to pin."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> "TrainingBatch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        if self.teacher_images is self.student_images:  # moved once, still one tensor
            changed["teacher_images"] = changed["student_images"]
        return replace(self, **changed)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Join samples into a batch.

    Args:
        samples: At least one, all made with the same settings.
    """
    student_images = _stack([sample.student_image for sample in samples])
    return TrainingBatch(
        names=tuple(sample.name for sample in samples),
        domains=tuple(sample.domain for sample in samples),
        student_images=student_images,
        teacher_images=_teacher_images(samples, student_images),
        teacher_embedding=_teacher_embedding(samples),
        image_hw=torch.tensor([sample.image_hw for sample in samples], dtype=torch.int64),
        counts=tuple(len(sample.use_box) for sample in samples),
        masks=_concatenate([sample.masks for sample in samples]),
        boxes_xyxy=_concatenate([sample.boxes_xyxy for sample in samples]),
        points_xy=_concatenate([sample.points_xy for sample in samples]),
        use_box=_concatenate([sample.use_box for sample in samples]),
        broken=tuple(message for sample in samples for message in sample.broken),
    )


def _teacher_images(samples: Sequence[TrainingSample], student_images: Tensor) -> Tensor | None:
    if all(sample.teacher_image is sample.student_image for sample in samples):
        return student_images
    images = [sample.teacher_image for sample in samples if sample.teacher_image is not None]
    return _stack(images) if images else None


def _teacher_embedding(samples: Sequence[TrainingSample]) -> Tensor | None:
    embeddings = [
        sample.teacher_embedding for sample in samples if sample.teacher_embedding is not None
    ]
    return torch.from_numpy(np.stack(embeddings).astype(np.float32)) if embeddings else None


def _stack(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _concatenate(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))

"""A teacher that encodes the images of a step once, however often the student comes back to them.

A sharpness-aware step visits the same images at several weights of the student. The teacher does
not change, and its image encoder is usually the dearest part of a step.
"""

from collections import deque

from torch import Tensor

from edgeseg.distill.teachers import FeatureShapes, Teacher
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures


class RememberingTeacher:
    """Answers like another teacher and keeps the features of the last batches.

    Batches are told apart by their tensor, not by its values: a step passes the same one again. A
    cast that the precision makes is the same each time.

    Args:
        teacher: Who answers.
        num_batches: How many batches to keep, those of one step.
    """

    def __init__(self, teacher: Teacher, num_batches: int) -> None:
        self._teacher = teacher
        self._kept: deque[tuple[Tensor, ImageFeatures]] = deque(maxlen=num_batches)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._teacher.name

    @property
    def image_size(self) -> int:
        """Side T of its square input, in pixels."""
        return self._teacher.image_size

    @property
    def fingerprint(self) -> str:
        """Hash of its weights."""
        return self._teacher.fingerprint

    def embed(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, T, T) float32 normalised, padded images, or remember their features."""
        for known, features in self._kept:
            if known is images:
                return features
        features = self._teacher.embed(images)
        self._kept.append((images, features))
        return features

    def answer(self, features: ImageFeatures, prompts: PromptBatch) -> DecoderOutput:
        """Decode prompts in the teacher's frame."""
        return self._teacher.answer(features, prompts)

    def feature_shapes(self) -> FeatureShapes:
        """Return the shapes of one image's features."""
        return self._teacher.feature_shapes()

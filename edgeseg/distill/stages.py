"""The stages as the loop sees them: a batch in, named losses out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from edgeseg.data.batches import TrainingBatch
from edgeseg.distill.encoder_losses import encoder_losses
from edgeseg.distill.losses import Mean
from edgeseg.distill.prompt_losses import model_frame, prompt_losses
from edgeseg.distill.proposal_losses import click_losses, proposal_losses
from edgeseg.distill.stage_config import (
    EncoderStageConfig,
    PromptStageConfig,
    ProposalStageConfig,
    ScheduleConfig,
)
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import Teacher
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.modeling.proposal_head import level_cells

_SharedNorm = nn.SyncBatchNorm


class Stage(Protocol):
    """One stage of a run."""

    @property
    def student(self) -> PromptableNet:
        """The network being trained."""

    @property
    def follows_teacher(self) -> bool:
        """Whether it needs to know what the teacher makes of an image."""

    def learning_parts(self) -> Iterator[nn.Module]:
        """Yield what learns."""

    @property
    def name(self) -> str:
        """Name in files and messages."""

    @property
    def config(self) -> ScheduleConfig:
        """Its schedule."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each part of the loss; the parts' names are known before any batch."""

    @property
    def extra(self) -> nn.Module | None:
        """Layers that learn in this stage and are thrown away after it."""

    def losses(self, batch: TrainingBatch, random: StepRandom) -> dict[str, Mean]:
        """Return the parts of the loss that this batch has something to say about."""


def _teacher_features(teacher: Teacher, batch: TrainingBatch) -> ImageFeatures:
    if batch.teacher_embedding is not None:
        return teacher.feature_shapes().unpack(batch.teacher_embedding)
    assert batch.teacher_images is not None
    return teacher.embed(batch.teacher_images)


def channels_last(images: Tensor) -> Tensor:
    """Return the images in channels-last memory.

    Depthwise convolutions run their backward pass several times faster that way on CPUs.
    """
    return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class EncoderStage:
    """Stage 1.

    Attributes:
        student: The network being trained; only its image encoder and skips learn.
        teacher: Whose features are followed.
        config: Settings.
        extra: 1x1 convolution from the student's embedding width to the teacher's, if they differ.
    """

    student: PromptableNet
    teacher: Teacher
    config: EncoderStageConfig
    extra: nn.Module | None = None
    name = "encoder"
    follows_teacher = True

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each part of the loss."""
        return {"embedding": 1.0, "high_res": self.config.high_res_weight}

    def learning_parts(self) -> Iterator[nn.Module]:
        """Yield what learns: the image encoder and the projections of its finer levels."""
        yield self.student.image_encoder
        for skip in (self.student.mask_decoder.high_res_s8, self.student.mask_decoder.high_res_s4):
            if skip is not None:
                yield skip

    def losses(self, batch: TrainingBatch, random: StepRandom) -> dict[str, Mean]:
        """Compare the features of a batch; see `encoder_losses`."""
        wanted = _teacher_features(self.teacher, batch)
        frame = model_frame(batch.image_hw, self.student.image_size)
        return encoder_losses(
            self.student.encode(channels_last(batch.student_images)),
            wanted,
            frame.content_hw,
            frame.image_size,
            self.config.grid,
            self.extra,
        )


@dataclass(frozen=True)
class PromptStage:
    """Stage 2.

    Attributes:
        student: The network being trained.
        teacher: Who answers the same prompts, or None for ground truth alone.
        config: Settings.
    """

    student: PromptableNet
    teacher: Teacher | None
    config: PromptStageConfig
    name = "prompt"
    extra: nn.Module | None = None

    @property
    def follows_teacher(self) -> bool:
        """Whether it needs to know what the teacher makes of an image."""
        return self.config.targets.teacher > 0

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each part of the loss."""
        targets, score = self.config.targets, self.config.score_weight
        return {
            "teacher_mask": targets.teacher,
            "teacher_score": targets.teacher * score,
            "truth_mask": targets.ground_truth,
            "truth_score": targets.ground_truth * score,
        }

    def learning_parts(self) -> Iterator[nn.Module]:
        """Yield what learns."""
        for part, learns in self.config.train.model_dump().items():
            if learns:
                yield getattr(self.student, part)

    def losses(self, batch: TrainingBatch, random: StepRandom) -> dict[str, Mean]:
        """Decode the prompts of a batch; see `prompt_losses`."""
        if not sum(batch.counts):
            return self._without_prompts(batch)
        wanted = None
        teacher = self.teacher if self.config.targets.teacher else None
        if teacher is not None:
            wanted = _teacher_features(teacher, batch)
        # A frozen image encoder keeps no history by itself; the decoder's skips may still learn.
        features = self.student.encode(channels_last(batch.student_images))
        return prompt_losses(self.student, features, teacher, wanted, batch, self.config, random)

    def _without_prompts(self, batch: TrainingBatch) -> dict[str, Mean]:
        """Return nothing; norms shared by all processes wait for the images all the same."""
        shared = (m for m in self.student.image_encoder.modules() if isinstance(m, _SharedNorm))
        if not any(norm.training for norm in shared):
            return {}
        embedding = self.student.encode(channels_last(batch.student_images)).embedding
        nothing = 0 * embedding.sum()
        name = next(name for name, weight in self.weights.items() if weight)
        return {name: Mean(nothing, nothing.detach())}


@dataclass(frozen=True)
class ProposalStage:
    """Stage 3.

    Attributes:
        student: The network being trained; it has a proposal head.
        config: Settings.
    """

    student: PromptableNet
    config: ProposalStageConfig
    name = "proposal"
    extra: nn.Module | None = None
    follows_teacher = False

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each part of the loss."""
        config = self.config
        return {
            "center": 1.0,
            "box": config.box_weight,
            "iou": config.iou_weight,
            "click_level": config.click_weight,
            "click_box": config.click_weight * config.box_weight,
        }

    def learning_parts(self) -> Iterator[nn.Module]:
        """Yield what learns."""
        assert self.student.proposal_head is not None
        yield self.student.proposal_head
        if self.config.train_image_encoder:
            yield self.student.image_encoder

    def losses(self, batch: TrainingBatch, random: StepRandom) -> dict[str, Mean]:
        """Compare proposals with all objects of a batch and with clicks on them."""
        features = self.student.encode(channels_last(batch.student_images))
        output = self.student.propose(features)
        size = self.student.image_size
        centers_xy, strides = level_cells(size)
        device = output.boxes_xyxy.device
        scale_xy = model_frame(batch.image_hw, size).scale_xy  # (B, 2)
        boxes, points = (
            [of_image * scale for of_image, scale in zip(split, scales, strict=True)]
            for split, scales in (
                (batch.boxes_xyxy.split(batch.counts), scale_xy.repeat(1, 2)),
                (batch.points_xy.split(batch.counts), scale_xy),
            )
        )
        return proposal_losses(
            output, centers_xy.to(device), strides.to(device), boxes
        ) | click_losses(output, size, boxes, points)

"""Networks that answer what they are told to and remember what they were asked."""

import torch

from edgeseg.data.batches import TrainingBatch
from edgeseg.distill.prompt_losses import prompt_losses
from edgeseg.distill.stage_config import PromptStageConfig
from edgeseg.distill.step_random import StepRandom
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures

IMAGE_HW = (33, 50)
"""Height and width of the picture of `clicked_batch`: 42 x 64 px in a 64 px input."""


def prompts_on(image_hw, counts, use_box, boxes_xyxy, points_xy, masks=None, student_size=64):
    """Build a batch of prompts in image pixels; the pictures get brighter to the right."""
    side, total = student_size // 4, sum(counts)
    return TrainingBatch(
        names=tuple(f"i{k}" for k in range(len(counts))),
        domains=("d",) * len(counts),
        student_images=ramps(len(counts), student_size),
        teacher_images=None,
        teacher_embedding=None,
        image_hw=torch.tensor(image_hw),
        counts=tuple(counts),
        masks=torch.zeros(total, side, side, dtype=torch.bool) if masks is None else masks,
        boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(total, 4),
        points_xy=torch.tensor(points_xy, dtype=torch.float32).reshape(total, 2),
        use_box=torch.tensor(use_box, dtype=torch.bool),
        broken=(),
    )


def ramps(num_images, size):
    """Return (num_images, 3, size, size) pictures that get brighter to the right."""
    return torch.linspace(-1, 2, size).expand(num_images, 3, size, size).contiguous()


class ScriptedNet:
    """Student or teacher with given answers, one a round; the last one is repeated.

    Args:
        image_size: Side of its input in pixels.
        answers: Pairs of (T, 4, h, w) logits and (T, 4) scores.
    """

    name = "scripted"
    fingerprint = "0"

    def __init__(self, image_size, *answers):
        self.image_size = image_size
        self.answers = [(logits.float(), scores.float()) for logits, scores in answers]
        self.asked = []

    def features(self):
        """Return features with the grid of the input size."""
        cells = self.image_size // 16
        return ImageFeatures(torch.zeros(1, 8, cells, cells))

    def decode(self, features, prompts):
        """Answer as a student."""
        logits, scores = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(prompts)
        return DecoderOutput(logits, scores)

    answer = decode  # as a teacher


def painted(total, side, rows=slice(None), cols=slice(None), logit=20.0):
    """Return (total, 4, side, side) logits, above zero in a rectangle, in all four masks."""
    logits = torch.full((total, 4, side, side), -logit)
    logits[:, :, rows, cols] = logit
    return logits


def scores(total, best=0):
    """Return (total, 4) scores that prefer one token."""
    found = torch.full((total, 4), 0.25)
    found[:, best] = 0.75
    return found


def config(**settings):
    """Return the settings of stage 2 with some changed."""
    return PromptStageConfig(steps=1, **settings)


def losses_of(student, teacher, batch, settings, seed=3):
    """Return the parts of the loss of scripted networks."""
    return prompt_losses(
        student,
        student.features(),
        teacher,
        None if teacher is None else teacher.features(),
        batch,
        settings,
        StepRandom(seed, range(len(batch.counts)), batch.counts),
    )


def clicked_batch(total=1, **settings):
    """One image with equal point prompts."""
    boxes, points = [[0, 0, 1, 1]] * total, [[10, 20]] * total
    return prompts_on([IMAGE_HW], [total], [False] * total, boxes, points, **settings)


def value(mean):
    """Divide a sum by its count."""
    return (mean.total / mean.count).item()

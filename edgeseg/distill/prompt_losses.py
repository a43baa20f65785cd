"""Stage 2, prompts in the loop: the losses of one batch.

Source: Zhou et al. 2023, EdgeSAM, arXiv:2312.06660: student and teacher decode the same prompts,
the student's masks follow the teacher's, then a point is drawn where the two disagree and both
decode again. What is added here: ground truth as a further or the only target, scores as a target,
clicks that correct towards ground truth, masks fed back as prompts, losses on uncertain points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.data.batches import TrainingBatch
from edgeseg.distill.losses import (
    MaskLossWeights,
    Mean,
    content_mask,
    distilled_masks,
    ground_truth_masks,
    mask_losses,
    score_error,
    true_iou,
    uncertain_points,
)
from edgeseg.distill.stage_config import PromptStageConfig, UncertainPointsConfig
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import Teacher
from edgeseg.geometry import content_size_hw
from edgeseg.modeling.prompt_batch import PromptBatch, PromptGroups, box_or_point_prompts
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures, PromptableNet
from edgeseg.prompts import ABSENT


@dataclass(frozen=True)
class Frame:
    """The batch's images in the square input of one network.

    Attributes:
        image_size: Side of the square input, in pixels.
        content_hw: (B, 2) int64, unpadded height and width in model pixels.
        scale_xy: (B, 2) float32, model pixels per image pixel along x and y.
    """

    image_size: int
    content_hw: Tensor
    scale_xy: Tensor


def model_frame(image_hw: Tensor, image_size: int) -> Frame:
    """Place images of (B, 2) int64 height and width in a square input."""
    sizes = [content_size_hw((int(h), int(w)), image_size) for h, w in image_hw.tolist()]
    content_hw = torch.tensor(sizes, device=image_hw.device)
    return Frame(image_size, content_hw, (content_hw / image_hw).flip(1).float())


@dataclass(frozen=True)
class RoundTargets:
    """What the masks of one round are compared with, in the student's low resolution.

    Attributes:
        teacher_masks: (T, 4, h, w) bool, or None without a teacher.
        teacher_scores: (T, 4) float, or None.
        true_masks: (T, 1, h, w) bool, or None.
    """

    teacher_masks: Tensor | None
    teacher_scores: Tensor | None
    true_masks: Tensor | None

    def wanted(self, output: DecoderOutput) -> tuple[Tensor, Tensor]:
        """Return the student's mask a click corrects, and the mask it should be; (T, h, w) bool.

        With a teacher it is the mask the teacher's scores prefer; else the one the student's do.
        """
        scores = output.iou_scores if self.teacher_scores is None else self.teacher_scores
        best = scores.detach().argmax(dim=1)[:, None, None, None]
        shape = (-1, 1, *output.low_res_logits.shape[2:])
        mine = output.low_res_logits.detach().gather(1, best.expand(shape)) > 0
        if self.teacher_masks is None:
            assert self.true_masks is not None
            return mine[:, 0], self.true_masks[:, 0]
        return mine[:, 0], self.teacher_masks.gather(1, best.expand(shape))[:, 0]


def prompt_losses(
    student: PromptableNet,
    features: ImageFeatures,
    teacher: Teacher | None,
    teacher_features: ImageFeatures | None,
    batch: TrainingBatch,
    config: PromptStageConfig,
    random: StepRandom,
) -> dict[str, Mean]:
    """Decode a batch's prompts for some rounds and return the parts of the loss.

    Args:
        student: The network being trained.
        features: Its features of the batch's images.
        teacher: Who answers the same prompts, or None for ground truth alone.
        teacher_features: The teacher's features of the same images.
        batch: Images with prompts and true masks; at least one prompt.
        config: Of the stage.
        random: Random numbers that depend on seed, step and image only.

    Returns:
        Sums and counts by name: "teacher_mask", "teacher_score", "truth_mask", "truth_score".
    """
    frame = model_frame(batch.image_hw, student.image_size)
    groups = PromptGroups(batch.counts)
    in_image = box_or_point_prompts(batch.boxes_xyxy, batch.points_xy, batch.use_box, batch.counts)
    prompts = in_image.scaled(frame.scale_xy)
    grid = 4 * features.embedding.shape[-1]
    valid = groups.expand(content_mask(frame.content_hw, frame.image_size, (grid, grid)))

    teaching = None
    if teacher is not None:
        assert teacher_features is not None
        teacher_frame = model_frame(batch.image_hw, teacher.image_size)
        teaching = _Teaching(teacher, teacher_features, teacher_frame.scale_xy, in_image, grid)

    parts: list[dict[str, Mean]] = []
    for round_index in range(1 + config.refinement_rounds):
        output = student.decode(features, prompts)
        targets = _targets(teaching, batch, config)
        parts.append(_round_losses(output, targets, valid, config, random, round_index))
        if round_index == config.refinement_rounds:
            break
        mine, wanted = targets.wanted(output)
        truly = random.uniform("truth", round_index, groups) < config.truth_click_share
        wanted = torch.where(truly[:, None, None], batch.masks, wanted)
        cells, labels = disagreement_clicks(
            mine, wanted, valid[:, 0], random.uniform("clicks", round_index, groups)
        )
        clicks = (cells + 0.5) * (frame.image_size / grid)  # student pixels
        fed = random.uniform("masks", round_index, groups) < config.mask_prompt_share
        prompts = _feed(prompts.with_points(clicks[:, None], labels[:, None]), output, fed)
        if teaching is not None:
            teaching.click(clicks / groups.expand(frame.scale_xy), labels, fed)
    return _join(parts)


class _Teaching:
    """The teacher's side of the rounds: its prompts, in its own frame, and its last answer."""

    def __init__(
        self,
        teacher: Teacher,
        features: ImageFeatures,
        scale_xy: Tensor,
        in_image: PromptBatch,
        grid: int,
    ) -> None:
        self._teacher = teacher
        self._features = features
        self._scale_xy = scale_xy
        self._prompts = in_image.scaled(scale_xy)
        self._grid = grid
        self._last: DecoderOutput | None = None

    def answer(self) -> tuple[Tensor, Tensor]:
        """Return (T, 4, h, w) bool masks at the student's resolution and (T, 4) scores."""
        self._last = self._teacher.answer(self._features, self._prompts)
        logits = self._last.low_res_logits.float()
        if logits.shape[-1] != self._grid:
            shrinks = logits.shape[-1] > self._grid
            logits = F.interpolate(
                logits, size=(self._grid, self._grid), mode="bilinear", antialias=shrinks
            )
        return logits > 0, self._last.iou_scores.float()

    def click(self, points_xy: Tensor, labels: Tensor, fed: Tensor) -> None:
        """Add one click a prompt, (T, 2) in image pixels, and feed back the last mask."""
        assert self._last is not None
        scaled = points_xy * self._prompts.groups.expand(self._scale_xy)
        prompts = self._prompts.with_points(scaled[:, None], labels[:, None])
        self._prompts = _feed(prompts, self._last, fed)


def _feed(prompts: PromptBatch, output: DecoderOutput, fed: Tensor) -> PromptBatch:
    """Give the best-scored mask of an answer back as a mask prompt, where `fed` is true."""
    if not bool(fed.any()):
        return prompts.with_masks(None)
    best = output.iou_scores.argmax(dim=1)[:, None, None, None]
    shape = (-1, 1, *output.low_res_logits.shape[2:])
    logits = output.low_res_logits.detach().gather(1, best.expand(shape))
    return PromptBatch(
        prompts.points_xy, prompts.point_labels, prompts.counts, logits.clamp(-32, 32), fed
    )


def _targets(
    teaching: _Teaching | None, batch: TrainingBatch, config: PromptStageConfig
) -> RoundTargets:
    masks, scores = teaching.answer() if teaching is not None else (None, None)
    true_masks = batch.masks.unsqueeze(1) if config.targets.ground_truth else None
    return RoundTargets(masks, scores, true_masks)


def _round_losses(
    output: DecoderOutput,
    targets: RoundTargets,
    valid: Tensor,
    config: PromptStageConfig,
    random: StepRandom,
    round_index: int,
) -> dict[str, Mean]:
    logits = output.low_res_logits.float().flatten(2)  # (T, 4, N)
    inside = valid.flatten(2)  # (T, 1, N)
    balance = random.progress < config.balanced_share
    weights = MaskLossWeights(config.bce_weight, config.dice_weight, balance)
    compare = _pixel_comparison(logits, inside, weights)
    if config.uncertain_points is not None:
        draw = random.uniform("points", round_index, PromptGroups(random.counts), logits.shape[2])
        compare = _point_comparison(logits, inside, weights, config.uncertain_points, draw)
    losses: dict[str, Mean] = {}
    if targets.teacher_masks is not None and config.targets.teacher:
        assert targets.teacher_scores is not None
        losses["teacher_mask"] = distilled_masks(compare(targets.teacher_masks.flatten(2)))
        losses["teacher_score"] = score_error(output.iou_scores.float(), targets.teacher_scores)
    if targets.true_masks is not None:
        true_masks = targets.true_masks.flatten(2)
        losses["truth_mask"] = ground_truth_masks(compare(true_masks))
        wanted = true_iou(logits, true_masks, inside)
        losses["truth_score"] = score_error(output.iou_scores.float(), wanted)
    return losses


def _pixel_comparison(
    logits: Tensor, inside: Tensor, weights: MaskLossWeights
) -> Callable[[Tensor], Tensor]:
    return lambda targets: mask_losses(logits, targets, inside, weights)


def _point_comparison(
    logits: Tensor,
    inside: Tensor,
    weights: MaskLossWeights,
    config: UncertainPointsConfig,
    uniform: Tensor,
) -> Callable[[Tensor], Tensor]:
    """Compare at chosen points: each mask token at the points its own first logits ask for."""
    num_masks = logits.shape[1]
    flat = logits.flatten(0, 1)
    allowed = inside.expand(-1, num_masks, -1).flatten(0, 1)
    draw = uniform[:, None].expand(-1, num_masks, -1).flatten(0, 1)
    points = uncertain_points(flat, allowed, draw, config.num_points, config.uncertain_share)
    points = points.unflatten(0, (-1, num_masks))  # (T, M, K)

    def compare(targets: Tensor) -> Tensor:
        chosen = targets.expand(-1, num_masks, -1).gather(2, points)
        valid = inside.expand(-1, num_masks, -1).gather(2, points)
        return mask_losses(logits.gather(2, points), chosen, valid, weights)

    return compare


def disagreement_clicks(
    mine: Tensor, wanted: Tensor, valid: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw one pixel a prompt where two masks differ, each with equal chance.

    Args:
        mine: (T, h, w) bool, the mask to correct.
        wanted: (T, h, w) bool, the mask it should be.
        valid: (T, h, w) bool, false on padding.
        uniform: (T,) float in [0, 1), one random number a prompt.

    Returns:
        (T, 2) float32 column and row, and (T,) int64 labels: 1 where the wanted mask has the
        pixel, 0 where it has not, -2 (no point) where the masks agree everywhere.
    """
    wrong = ((mine != wanted) & valid).flatten(1)
    reached = wrong.cumsum(1)
    pick = (uniform * reached[:, -1]).floor()[:, None]
    index = (reached > pick).int().argmax(dim=1)  # the first pixel past `pick` wrong ones
    label = wanted.flatten(1).gather(1, index[:, None])[:, 0].long()
    label = torch.where(reached[:, -1] > 0, label, ABSENT)
    width = mine.shape[2]
    return torch.stack([index % width, index // width], dim=1).float(), label


def _join(parts: list[dict[str, Mean]]) -> dict[str, Mean]:
    """Add up the rounds; counts add up too, so the joined loss is the mean over rounds."""
    return {
        name: Mean(
            torch.stack([part[name].total for part in parts]).sum(),
            torch.stack([part[name].count for part in parts]).sum(),
        )
        for name in parts[0]
    }

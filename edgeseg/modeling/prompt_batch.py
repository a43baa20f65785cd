"""Prompts of several images in one batch, and the bookkeeping of which belongs to which.

Prompts stand one after another in the order of their images: T = sum of the images' numbers of
prompts. Nothing is padded to the largest image, and nothing is gathered by index: gathering is slow
in the backward pass (an accumulating scatter), expanding is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgeseg.errors import PromptError
from edgeseg.prompts import ABSENT


@dataclass(frozen=True)
class PromptGroups:
    """How many prompts each image of a batch has.

    Attributes:
        counts: Prompts of each image, B numbers; zeros are allowed.
    """

    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of prompts T of the whole batch."""
        return sum(self.counts)

    @property
    def even(self) -> int | None:
        """Prompts of each image when all have the same number, else None."""
        first, *rest = self.counts or (None,)
        return first if all(count == first for count in rest) else None

    def expand(self, per_image: Tensor) -> Tensor:
        """Repeat (B, ...) for every prompt: (T, ...)."""
        if self.even == 1:
            return per_image
        shape = per_image.shape[1:]
        if self.even is not None:
            grouped = per_image.unsqueeze(1).expand(-1, self.even, *shape)
            return grouped.reshape(self.total, *shape)
        rows = zip(per_image.split(1), self.counts, strict=True)
        return torch.cat([row.expand(count, *shape) for row, count in rows])

    def spread(self, per_image: Tensor) -> Tensor:
        """Return (B, ...) in a form that broadcasts with (T, ...): of one image, itself."""
        return per_image if len(self.counts) == 1 else self.expand(per_image)

    def product(self, per_prompt: Tensor, per_image: Tensor) -> Tensor:
        """Multiply the (T, m, k) rows of each prompt with the (B, k, n) of its image: (T, m, n)."""
        if len(self.counts) == 1:
            return per_prompt @ per_image[0]
        if self.even is not None:  # the prompts of an image are more rows of one product
            rows = per_prompt.unflatten(0, (len(self.counts), self.even)).flatten(1, 2)
            product = (rows @ per_image).unflatten(1, (self.even, per_prompt.shape[1]))
            return product.flatten(0, 1)
        parts = zip(per_prompt.split(list(self.counts)), per_image, strict=True)
        return torch.cat([rows @ matrix for rows, matrix in parts])

    def add(self, per_prompt: Tensor, per_image: Tensor) -> Tensor:
        """Add (B, ...) to the (T, ...) of its prompts."""
        if len(self.counts) == 1:
            return per_prompt + per_image
        if self.even is None:
            return per_prompt + self.expand(per_image)
        grouped = per_prompt.unflatten(0, (len(self.counts), self.even))
        return (grouped + per_image.unsqueeze(1)).flatten(0, 1)


@dataclass(frozen=True)
class PromptBatch:
    """Prompts for a batch of images, in the frame of the model input.

    Attributes:
        points_xy: (T, P, 2) float32, x then y in model pixels; the centre of the top left pixel is
            (0.5, 0.5).
        point_labels: (T, P) int64: 1 object, 0 not object, 2 and 3 the corners of a box, -1 SAM's
            padding point, -2 no point.
        counts: Prompts of each image, B numbers; they sum to T.
        mask_logits: (T, 1, S/4, S/4) float32, mask prompts, or None.
        has_mask: (T,) bool, which rows of `mask_logits` count; None means all.

    Raises:
        PromptError: The shapes do not fit together.
    """

    points_xy: Tensor
    point_labels: Tensor
    counts: tuple[int, ...]
    mask_logits: Tensor | None = None
    has_mask: Tensor | None = None

    def __post_init__(self) -> None:
        shape, total = tuple(self.points_xy.shape), sum(self.counts)
        if len(shape) != 3 or shape[0] != total or shape[2] != 2:
            raise PromptError(
                f"points_xy must be (T, P, 2) with T = {total}, the sum of counts, got {shape}; "
                "give every image of the batch its number of prompts"
            )
        if tuple(self.point_labels.shape) != shape[:2]:
            raise PromptError(
                f"point_labels must be {shape[:2]} like points_xy, got "
                f"{tuple(self.point_labels.shape)}; fill empty slots with the label {ABSENT}"
            )
        self._check_rows("mask_logits", self.mask_logits, "(T, 1, S/4, S/4)")
        self._check_rows("has_mask", self.has_mask, "(T,)")

    def _check_rows(self, name: str, tensor: Tensor | None, wanted: str) -> None:
        total, ndim = sum(self.counts), wanted.count(" ") + 1
        if tensor is not None and (tensor.ndim != ndim or tensor.shape[0] != total):
            raise PromptError(
                f"{name} must be {wanted} with T = {total}, the sum of counts, got "
                f"{tuple(tensor.shape)}; give one row a prompt"
            )

    @property
    def groups(self) -> PromptGroups:
        """Which image each prompt belongs to."""
        return PromptGroups(self.counts)

    def with_points(self, points_xy: Tensor, point_labels: Tensor) -> "PromptBatch":
        """Append (T, K, 2) points with (T, K) labels, one step of refinement."""
        return replace(
            self,
            points_xy=torch.cat([self.points_xy, points_xy], dim=1),
            point_labels=torch.cat([self.point_labels, point_labels], dim=1),
        )

    def with_masks(self, mask_logits: Tensor | None) -> "PromptBatch":
        """Return the same prompts with (T, 1, S/4, S/4) mask prompts for all of them."""
        return replace(self, mask_logits=mask_logits, has_mask=None)

    def scaled(self, factor_xy: Tensor) -> "PromptBatch":
        """Move the points to another frame.

        Args:
            factor_xy: (B, 2) float32, pixels of the other frame per pixel of this one, for each
                image. Mask prompts do not travel and are dropped.
        """
        factors = self.groups.expand(factor_xy)[:, None]  # (T, 1, 2)
        return PromptBatch(self.points_xy * factors, self.point_labels, self.counts)


def box_or_point_prompts(
    boxes_xyxy: Tensor, points_xy: Tensor, use_box: Tensor, counts: Sequence[int]
) -> PromptBatch:
    """Build prompts that start from a box or from one positive point.

    Args:
        boxes_xyxy: (T, 4) float32, x0 y0 x1 y1.
        points_xy: (T, 2) float32, x then y.
        use_box: (T,) bool, true where the box is the prompt.
        counts: Prompts of each image.

    Returns:
        A batch with two slots a prompt, in the frame of the arguments.
    """
    corners = boxes_xyxy.unflatten(1, (2, 2))  # (T, 2 corners, 2)
    clicks = torch.stack([points_xy, torch.zeros_like(points_xy)], dim=1)
    corner_labels = torch.tensor([2, 3], device=boxes_xyxy.device)
    click_labels = torch.tensor([1, ABSENT], device=boxes_xyxy.device)
    return PromptBatch(
        torch.where(use_box[:, None, None], corners, clicks),
        torch.where(use_box[:, None], corner_labels, click_labels),
        tuple(counts),
    )

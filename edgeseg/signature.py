"""Names, shapes and dtypes of the tensors of every exported graph: one place for all programs.

A name says its frame: `_model` is in pixels of the square model input, `_image` in pixels of the
original image. S is the side of the model input, D the width of the embedding, N the number of
prompts, P the slots of a prompt. A size is written as a number when it is fixed and as a letter
when the graph takes any.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]
Dim = int | str

IMAGE = "image"
"""Encoder input, (1, 3, S, S) float32: normalised, padded with zeros at the right and bottom."""
IMAGE_RGB = "image_rgb"
"""Encoder input of graphs that normalise themselves, (S, S, 3) uint8, padded with PADDING_RGB."""
IMAGE_EMBEDDING = "image_embedding"
HIGH_RES_S8 = "high_res_s8"
HIGH_RES_S4 = "high_res_s4"
POINTS_XY_MODEL = "points_xy_model"
POINTS_XY_IMAGE = "points_xy_image"
POINT_LABELS = "point_labels"
MASK_LOGITS = "mask_logits"
HAS_MASK = "has_mask"
IMAGE_HW = "image_hw"
LOW_RES_LOGITS = "low_res_logits"
IOU_SCORES = "iou_scores"
PROPOSAL_BOXES_XYXY_MODEL = "proposal_boxes_xyxy_model"
PROPOSAL_SCORES = "proposal_scores"
PROPOSAL_CLICK_LOGITS = "proposal_click_logits"

PROPOSAL_STRIDES = (8, 16, 32, 64)
"""Model pixels a cell of each level that proposes boxes, in the order of the proposals."""

PADDING_RGB = (124, 116, 104)
"""The colour that pads an image whose normalisation happens inside the graph: the mean, rounded."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: As the graph calls it.
        shape: Sizes; a letter stands for any size, the same for all tensors of the graph.
        dtype: Element type.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: Precision = "float32"

    @property
    def is_fixed(self) -> bool:
        """Whether no size is left open."""
        return all(isinstance(size, int) for size in self.shape)


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelShape:
    """What the shapes of a model's graphs depend on.

    Attributes:
        image_size: Side S of the model input, in pixels.
        embed_dim: Width D of the embedding.
        has_high_res: Whether the encoder also gives features at strides 8 and 4.
    """

    image_size: int
    embed_dim: int
    has_high_res: bool

    @property
    def num_proposals(self) -> int:
        """Number A of boxes that are proposed: one by every cell of every level.

        >>> ModelShape(64, 32, True).num_proposals
        85
        """
        return sum((self.image_size // stride) ** 2 for stride in PROPOSAL_STRIDES)

    @property
    def features(self) -> tuple[TensorSpec, ...]:
        """What the encoder gives and the decoder takes.

        >>> [spec.shape for spec in ModelShape(64, 32, True).features]
        [(1, 32, 4, 4), (1, 8, 8, 8), (1, 4, 16, 16)]
        """
        grid, width = self.image_size // 16, self.embed_dim
        embedding = TensorSpec(IMAGE_EMBEDDING, (1, width, grid, grid))
        if not self.has_high_res:
            return (embedding,)
        return (
            embedding,
            TensorSpec(HIGH_RES_S8, (1, width // 4, 2 * grid, 2 * grid)),
            TensorSpec(HIGH_RES_S4, (1, width // 8, 4 * grid, 4 * grid)),
        )


@dataclass(frozen=True)
class PromptSlots:
    """How many prompts a decoder takes in one call; None leaves a number open.

    Attributes:
        num_prompts: N.
        num_points: P, points and box corners of each prompt; empty slots have the label -2.
    """

    num_prompts: int | None = None
    num_points: int | None = None


def encoder_spec(shape: ModelShape, normalises: bool = False) -> GraphSpec:
    """Return the encoder's tensors: image in, features out."""
    size = shape.image_size
    image = TensorSpec(IMAGE, (1, 3, size, size))
    if normalises:
        image = TensorSpec(IMAGE_RGB, (size, size, 3), "uint8")
    return GraphSpec((image,), shape.features)


def decoder_spec(
    shape: ModelShape, slots: PromptSlots, label_dtype: Precision = "int64"
) -> GraphSpec:
    """Return the decoder's tensors: features and prompts in, logits and scores out.

    Points are in the model frame. `has_mask` is 1.0 where a row of `mask_logits` counts and 0.0
    where it is to be ignored. SAM's padding point is added inside the graph.
    """
    prompts = _prompt_specs(shape, slots, label_dtype, POINTS_XY_MODEL)
    return GraphSpec(shape.features + prompts, _answer_specs(shape, slots))


def proposals_spec(shape: ModelShape) -> GraphSpec:
    """Return the tensors of region proposals: features in, what every cell says out.

    Cells are those of `PROPOSAL_STRIDES`, finest level first, row by row. Boxes are x0 y0 x1 y1 in
    the frame of the model and may reach beyond the image. A score is the chance of an object times
    the IoU its box should have. The softmax of the click logits over the cells that hold a click,
    one of each level, is the chance of each of their boxes to be meant.
    """
    cells = (1, shape.num_proposals)
    return GraphSpec(
        shape.features[:2],
        (
            TensorSpec(PROPOSAL_BOXES_XYXY_MODEL, (*cells, 4)),
            TensorSpec(PROPOSAL_SCORES, cells),
            TensorSpec(PROPOSAL_CLICK_LOGITS, cells),
        ),
    )


def fused_spec(
    shape: ModelShape,
    slots: PromptSlots,
    normalises: bool = False,
    label_dtype: Precision = "int64",
) -> GraphSpec:
    """Return the tensors of encoder and decoder in one file, for apps with one prompt an image.

    Points are in pixels of the original image, whose height and width come as `image_hw`, a
    (2,) float32 input; there are no mask prompts.
    """
    image = encoder_spec(shape, normalises).inputs
    points, labels, *_ = _prompt_specs(shape, slots, label_dtype, POINTS_XY_IMAGE)
    size = TensorSpec(IMAGE_HW, (2,))
    return GraphSpec((*image, size, points, labels), _answer_specs(shape, slots))


def _prompt_specs(
    shape: ModelShape, slots: PromptSlots, label_dtype: Precision, points_name: str
) -> tuple[TensorSpec, ...]:
    num: Dim = "N" if slots.num_prompts is None else slots.num_prompts
    points: Dim = "P" if slots.num_points is None else slots.num_points
    side = shape.image_size // 4
    return (
        TensorSpec(points_name, (num, points, 2)),
        TensorSpec(POINT_LABELS, (num, points), label_dtype),
        TensorSpec(MASK_LOGITS, (num, 1, side, side)),
        TensorSpec(HAS_MASK, (num,)),
    )


def _answer_specs(shape: ModelShape, slots: PromptSlots) -> tuple[TensorSpec, ...]:
    num: Dim = "N" if slots.num_prompts is None else slots.num_prompts
    side = shape.image_size // 4
    return (
        TensorSpec(LOW_RES_LOGITS, (num, 4, side, side)),
        TensorSpec(IOU_SCORES, (num, 4)),
    )

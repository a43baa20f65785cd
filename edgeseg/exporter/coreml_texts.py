"""What a Core ML package tells the developer who opens it in Xcode."""

from edgeseg.exporter.targets import ExportTarget
from edgeseg.signature import (
    HAS_MASK,
    HIGH_RES_S4,
    HIGH_RES_S8,
    IMAGE,
    IMAGE_EMBEDDING,
    IMAGE_HW,
    IMAGE_RGB,
    IOU_SCORES,
    LOW_RES_LOGITS,
    MASK_LOGITS,
    PADDING_RGB,
    POINT_LABELS,
    POINTS_XY_IMAGE,
    POINTS_XY_MODEL,
    PROPOSAL_BOXES_XYXY_MODEL,
    PROPOSAL_CLICK_LOGITS,
    PROPOSAL_SCORES,
    GraphSpec,
    TensorSpec,
)

_PLACE = (
    "scaled so that its longest side has {side} pixels, in the top left corner of the square, the "
    "rest filled with {filling}"
)
_POINTS = (
    "Points and corners of a box, x then y, in pixels of {frame}; the centre of the top left pixel "
    "is (0.5, 0.5). Slots with the label -2 are ignored."
)
_TEXTS = {
    IMAGE_RGB: f"RGB image, {_PLACE.format(side='{side}', filling=f'the colour {PADDING_RGB}')}.",
    IMAGE: (
        "RGB image with the ImageNet mean taken off and divided by the ImageNet deviation, "
        f"{_PLACE.format(side='{side}', filling='zeros')}."
    ),
    IMAGE_EMBEDDING: "Image embedding at a sixteenth of the resolution, from encoder to decoder.",
    HIGH_RES_S8: "Features at an eighth of the resolution, from encoder to decoder.",
    HIGH_RES_S4: "Features at a quarter of the resolution, from encoder to decoder.",
    POINTS_XY_MODEL: _POINTS.format(frame="the scaled image"),
    POINTS_XY_IMAGE: _POINTS.format(frame="the original image"),
    POINT_LABELS: (
        "What each slot holds: 1 point on the object, 0 point off the object, 2 top left and 3 "
        "bottom right corner of a box, -2 nothing. SAM's padding point is added by the model."
    ),
    MASK_LOGITS: (
        "A mask to start from, as low_res_logits gave it: above zero is object. Any numbers where "
        "has_mask is 0."
    ),
    HAS_MASK: "1 if the prompt's row of mask_logits counts, else 0.",
    IMAGE_HW: "Height and width of the original image in pixels.",
    LOW_RES_LOGITS: (
        "Four masks a prompt in the frame of the model input at a quarter of its side, above zero "
        "is object. The first is the single answer, the others answer ambiguous prompts. Cut off "
        "the padding, enlarge the logits to the size of the image, then compare with zero."
    ),
    PROPOSAL_BOXES_XYXY_MODEL: (
        "Boxes that may hold an object, left, top, right and bottom edge in pixels of the scaled "
        "image; they overlap, and most have a score near zero."
    ),
    PROPOSAL_SCORES: "How likely each box holds an object and fits it, 0 to 1.",
    PROPOSAL_CLICK_LOGITS: (
        "Which box a click means: take the cell of each level that holds it; the softmax over "
        "these four numbers is the chance of each of their boxes."
    ),
    IOU_SCORES: "How well each mask is expected to fit: its IoU with the object, 0 to 1.",
}
_ROLES = {
    "encoder": "image encoder: run it once an image",
    "decoder": "prompt decoder: run it for every prompt on what the encoder gave",
    "proposals": "region proposals: run it once an image on what the encoder gave",
    "fused": "encoder and decoder in one, for one call an image",
}
_WEIGHTS = {
    "linear8": "8-bit linear weights",
    "palette6": "weights from palettes of 64 values",
    "palette4": "weights from palettes of 16 values",
}


def describe_model(model: str, role: str, target: ExportTarget) -> str:
    """Return one sentence about a package."""
    weights = "" if target.compression is None else f", {_WEIGHTS[target.compression.kind]}"
    return (
        f"EdgeSeg model {model}, {_ROLES[role]} (promptable segmentation, {target.precision} "
        f"arithmetic{weights})."
    )


def describe_tensor(spec: TensorSpec, graph: GraphSpec) -> str:
    """Return what a tensor of a graph holds, with its frame and unit.

    Raises:
        KeyError: The name is not one of `edgeseg.signature`.
    """
    side = next((s.shape[-2] for s in graph.inputs if s.name in (IMAGE_RGB, IMAGE)), "")
    return _TEXTS[spec.name].replace("{side}", str(side))

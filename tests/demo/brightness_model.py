"""An exported folder whose masks follow the picture, made in milliseconds and without PyTorch.

Logits are a mix of the colours of each low-res cell, raised around positive points and box corners
and lowered around negative points, so one wrong pixel, channel or coordinate changes the mask.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from edgeseg.export_manifest import ExportManifest, write_export
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.signature import (
    HAS_MASK,
    HIGH_RES_S4,
    HIGH_RES_S8,
    IMAGE,
    IMAGE_EMBEDDING,
    IMAGE_RGB,
    IOU_SCORES,
    LOW_RES_LOGITS,
    MASK_LOGITS,
    POINT_LABELS,
    POINTS_XY_MODEL,
    PROPOSAL_BOXES_XYXY_MODEL,
    PROPOSAL_CLICK_LOGITS,
    PROPOSAL_SCORES,
    PROPOSAL_STRIDES,
)

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import GraphBuilder, describe  # noqa: E402  # shared with other tests

SIZE = 128
CELLS = SIZE // 4
MIX = np.float32([1.5, 0.5, -1.2]).reshape(1, 3, 1, 1)
"""How much red, green and blue, normalised, add to a logit."""
STRIDES = {IMAGE_EMBEDDING: 16, HIGH_RES_S8: 8, HIGH_RES_S4: 4}
WEIGHTS = np.float32([0, 0, -8, 8, 6, 6])
"""Of points with the labels -2 to 3."""


def write_brightness_model(folder, normalises=True):
    """Write encoder, decoder, proposals and manifest, and return the folder."""
    folder.mkdir(parents=True)
    graphs = {"encoder": _encoder(normalises), "decoder": _decoder(), "proposals": _proposals()}
    for role, graph in graphs.items():
        onnx.save(graph, folder / f"{role}.onnx")
    manifest = ExportManifest(
        model="brightness",
        target="web",
        format="onnx",
        precision="float32",
        image_size=SIZE,
        normalises=normalises,
        pixel_mean=tuple(PIXEL_MEAN.tolist()),
        pixel_std=tuple(PIXEL_STD.tolist()),
        padding="RGB (124, 116, 104), at the right and bottom",
        files=tuple(describe(folder / f"{role}.onnx", role) for role in graphs),
        versions={"onnx": onnx.__version__},
        weights_sha256="0" * 64,
        licence="Apache-2.0",
    )
    write_export(folder, manifest)
    return folder


def _encoder(normalises):
    graph = GraphBuilder()
    if normalises:
        graph.input(IMAGE_RGB, "uint8", (SIZE, SIZE, 3))
        pixels = graph.node("Cast", IMAGE_RGB, to=TensorProto.FLOAT)
        pixels = graph.node("Sub", pixels, graph.constant(PIXEL_MEAN))
        pixels = graph.node("Div", pixels, graph.constant(PIXEL_STD))
        pixels = graph.node("Transpose", pixels, perm=[2, 0, 1])
        pixels = graph.node("Unsqueeze", pixels, graph.constant(np.int64([0])))
    else:
        graph.input(IMAGE, "float32", (1, 3, SIZE, SIZE))
        pixels = IMAGE
    for name, stride in STRIDES.items():
        means = graph.node("AveragePool", pixels, kernel_shape=[stride] * 2, strides=[stride] * 2)
        graph.output(name, "float32", (1, 3, SIZE // stride, SIZE // stride), means)
    return graph.model()


def _decoder():
    graph = GraphBuilder()
    for name, stride in STRIDES.items():
        graph.input(name, "float32", (1, 3, SIZE // stride, SIZE // stride))
    graph.input(POINTS_XY_MODEL, "float32", ("N", "P", 2))
    graph.input(POINT_LABELS, "int64", ("N", "P"))
    graph.input(MASK_LOGITS, "float32", ("N", 1, CELLS, CELLS))
    graph.input(HAS_MASK, "float32", ("N",))
    rows = graph.node("Add", POINT_LABELS, graph.constant(np.int64(2)))
    weights = graph.node("Gather", graph.constant(WEIGHTS), rows)  # (N, P)
    weights = graph.node("Unsqueeze", weights, graph.constant(np.int64([2, 3])))

    centres = 4 * np.arange(CELLS, dtype=np.float32) + 2
    squares = []
    for axis, shape in ((0, (1, 1, 1, CELLS)), (1, (1, 1, CELLS, 1))):
        place = graph.node(
            "Slice",
            POINTS_XY_MODEL,
            *(graph.constant(np.int64([value])) for value in (axis, axis + 1, 2)),
        )
        place = graph.node("Unsqueeze", place, graph.constant(np.int64([3])))  # (N, P, 1, 1)
        apart = graph.node("Sub", graph.constant(centres.reshape(shape)), place)
        squares.append(graph.node("Mul", apart, apart))
    squared = graph.node("Div", graph.node("Add", *squares), graph.constant(np.float32(150)))
    near = graph.node("Reciprocal", graph.node("Add", squared, graph.constant(np.float32(1))))
    pull = graph.sum(graph.node("Mul", near, weights), (1,), keepdims=1)  # (N, 1, h, w)

    colours = graph.node("Conv", HIGH_RES_S4, graph.constant(MIX))
    ignored = graph.sum(graph.sum(IMAGE_EMBEDDING, (1, 2, 3)), (0,))
    ignored = graph.node("Add", ignored, graph.sum(graph.sum(HIGH_RES_S8, (1, 2, 3)), (0,)))
    ignored = graph.node("Mul", ignored, graph.constant(np.float32(0)))
    masks = graph.node("Unsqueeze", HAS_MASK, graph.constant(np.int64([1, 2, 3])))
    masks = graph.node("Mul", MASK_LOGITS, masks)
    logits = graph.node("Add", graph.node("Add", colours, pull), masks)
    logits = graph.node("Add", logits, ignored)
    tokens = np.arange(4, dtype=np.float32)
    logits = graph.node("Sub", logits, graph.constant(4 + tokens.reshape(1, 4, 1, 1)))
    logits = graph.node("Mul", logits, graph.constant(np.float32(3)))  # less close to the edge
    graph.output(LOW_RES_LOGITS, "float32", ("N", 4, CELLS, CELLS), logits)

    total = graph.sum(graph.node("Mul", pull, graph.constant(np.float32(1e-4))), (1, 2, 3), 0)
    total = graph.node("Sigmoid", graph.node("Unsqueeze", total, graph.constant(np.int64([1]))))
    scores = graph.node("Add", total, graph.constant(tokens.reshape(1, 4) / 20))
    graph.output(IOU_SCORES, "float32", ("N", 4), scores)
    return graph.model()


def _proposals():
    graph = GraphBuilder()
    for name in (IMAGE_EMBEDDING, HIGH_RES_S8):
        side = SIZE // STRIDES[name]
        graph.input(name, "float32", (1, 3, side, side))
    levels, boxes = [], []
    for stride in PROPOSAL_STRIDES:
        size = stride // 8
        means = graph.node("AveragePool", HIGH_RES_S8, kernel_shape=[size] * 2, strides=[size] * 2)
        means = graph.node("Conv", means, graph.constant(MIX))
        levels.append(graph.node("Reshape", means, graph.constant(np.int64([1, -1]))))
        places = (np.arange(SIZE // stride, dtype=np.float32) + 0.5) * stride
        x, y = (grid.ravel() for grid in np.meshgrid(places, places))
        boxes.append(np.stack([x - stride, y - stride, x + 1.5 * stride, y + stride], axis=1))
    logits = graph.node("Concat", *levels, axis=1)  # (1, A)
    ignored = graph.sum(graph.sum(IMAGE_EMBEDDING, (1, 2, 3)), (0,))
    ignored = graph.node("Mul", ignored, graph.constant(np.float32(0)))
    logits = graph.node("Add", logits, ignored)
    fixed = graph.node("Add", graph.constant(np.concatenate(boxes)[None]), ignored)
    num_cells = sum(len(level) for level in boxes)
    graph.output(PROPOSAL_BOXES_XYXY_MODEL, "float32", (1, num_cells, 4), fixed)
    graph.output(PROPOSAL_SCORES, "float32", (1, num_cells), graph.node("Sigmoid", logits))
    graph.output(PROPOSAL_CLICK_LOGITS, "float32", (1, num_cells), logits)
    return graph.model()

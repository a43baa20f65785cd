"""Exported folders of a network so small that its answers can be computed by hand.

The encoder averages the pixels of 16 x 16 squares. With the weight w = label + 2 of a slot, so that
an absent slot counts nothing, the decoder answers prompt n, token t at the cell (row r, column c)
whose centre is X = 4c + 2, Y = 4r + 2 in model pixels with

    logits = sum(w x) - 3 X + 7 (sum(w y) - 3 Y) + has_mask * mask + embedding / 8 + t / 4
    scores = sum(w) + t / 10

With high-resolution features logits grow by mean(high_res_s8) + 3 mean(high_res_s4). The mask of
one positive point (w = 3) is what lies above the line through it that falls 1 in 7.
"""

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    hash_of,
    size_of,
    write_export,
)
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
    PromptSlots,
)

DYNAMIC = PromptSlots()


def expected_answers(features, points_xy, point_labels, mask_logits=None, has_mask=None):
    """The formulas above in numpy; `features` is the embedding alone, (1, 3, g, g)."""
    weights = point_labels[..., None].astype(np.float32) + 2  # (N, P, 1)
    sums = (weights * points_xy).sum(axis=1)  # (N, 2)
    cells = features.sum(axis=1)[0].astype(np.float32).repeat(4, axis=0).repeat(4, axis=1) / 8
    center = 4 * np.arange(len(cells), dtype=np.float32) + 2
    plane = cells - 3 * center[None, :] - 21 * center[:, None]
    logits = (sums[:, 0] + 7 * sums[:, 1])[:, None, None] + plane
    if mask_logits is not None:
        logits = logits + has_mask[:, None, None] * mask_logits[:, 0]
    tokens = np.arange(4, dtype=np.float32)
    return logits[:, None] + tokens[:, None, None] / 4, weights.sum(axis=1) + tokens / 10


def write_folder(
    folder,
    image_size=64,
    slots=DYNAMIC,
    dtype="float32",
    label_dtype="int64",
    normalises=False,
    high_res=False,
    one_answer=False,
    **changes,
):
    """Write the pair and its manifest, changed as told, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = encoder_model(image_size, dtype, normalises, high_res)
    decoder = decoder_model(image_size, slots, dtype, label_dtype, high_res, one_answer)
    onnx.save(encoder, folder / "encoder.onnx")
    onnx.save(decoder, folder / "decoder.onnx")
    files = [describe(folder / f"{role}.onnx", role) for role in ("encoder", "decoder")]
    values = {
        "model": "tiny_pair",
        "target": "onnx_fp32",
        "format": "onnx",
        "precision": dtype,
        "image_size": image_size,
        "normalises": normalises,
        "pixel_mean": tuple(PIXEL_MEAN.tolist()),
        "pixel_std": tuple(PIXEL_STD.tolist()),
        "padding": "zeros at the right and bottom",
        "files": tuple(files),
        "versions": {"onnx": onnx.__version__},
        "weights_sha256": hashlib.sha256(b"").hexdigest(),
        "licence": "Apache-2.0",
    }
    write_export(folder, ExportManifest(**(values | changes)))
    return folder


def describe(path, role):
    """Return the manifest's entry of a file as it is now."""
    graph = onnx.load(path).graph
    return ExportedFile(
        path=path.name,
        role=role,
        sha256=hash_of(path),
        size_bytes=size_of(path),
        inputs=tuple(map(exported_tensor, graph.input)),
        outputs=tuple(map(exported_tensor, graph.output)),
    )


def exported_tensor(value):
    tensor = value.type.tensor_type
    sizes = tuple(size.dim_param or size.dim_value for size in tensor.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return ExportedTensor(name=value.name, shape=sizes, dtype=dtype)


def encoder_model(image_size, dtype, normalises, high_res):
    graph = GraphBuilder()
    side = image_size
    if normalises:
        graph.input(IMAGE_RGB, "uint8", (side, side, 3))
        pixels = graph.node("Cast", IMAGE_RGB, to=TensorProto.FLOAT)
        pixels = graph.node("Sub", pixels, graph.constant(PIXEL_MEAN))
        pixels = graph.node("Div", pixels, graph.constant(PIXEL_STD))
        pixels = graph.node("Transpose", pixels, perm=[2, 0, 1])
        pixels = graph.node("Unsqueeze", pixels, graph.constant(np.int64([0])))
    else:
        graph.input(IMAGE, dtype, (1, 3, side, side))
        pixels = graph.node("Cast", IMAGE, to=TensorProto.FLOAT)
    strides = {IMAGE_EMBEDDING: 16} | ({HIGH_RES_S8: 8, HIGH_RES_S4: 4} if high_res else {})
    for name, stride in strides.items():
        square = [stride, stride]
        means = graph.node("AveragePool", pixels, kernel_shape=square, strides=square)
        graph.output(name, dtype, (1, 3, side // stride, side // stride), means)
    return graph.model()


def decoder_model(image_size, slots, dtype, label_dtype, high_res, one_answer):
    graph = GraphBuilder()
    quarter = image_size // 4
    num = "N" if slots.num_prompts is None else slots.num_prompts
    points = "P" if slots.num_points is None else slots.num_points
    strides = {IMAGE_EMBEDDING: 16} | ({HIGH_RES_S8: 8, HIGH_RES_S4: 4} if high_res else {})
    for name, stride in strides.items():
        graph.input(name, dtype, (1, 3, image_size // stride, image_size // stride))
    graph.input(POINTS_XY_MODEL, dtype, (num, points, 2))
    graph.input(POINT_LABELS, label_dtype, (num, points))
    graph.input(MASK_LOGITS, dtype, (num, 1, quarter, quarter))
    graph.input(HAS_MASK, dtype, (num,))
    features, points_xy, labels, masks, has_mask = (
        graph.node("Cast", name, to=TensorProto.FLOAT)
        for name in (IMAGE_EMBEDDING, POINTS_XY_MODEL, POINT_LABELS, MASK_LOGITS, HAS_MASK)
    )

    weights = graph.node("Add", labels, graph.constant(np.float32(2)))
    weights = graph.node("Unsqueeze", weights, graph.constant(np.int64([2])))  # (N, P, 1)
    factors = graph.constant(np.float32([1, 7]))
    offset = graph.node("Mul", graph.node("Mul", points_xy, weights), factors)
    offset = graph.sum(offset, (1, 2))  # (N,)
    offset = graph.node("Unsqueeze", offset, graph.constant(np.int64([1, 2, 3])))

    cells = graph.sum(features, (1,), keepdims=1)
    cells = graph.node(
        "Resize",
        cells,
        "",
        graph.constant(np.float32([1, 1, 4, 4])),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    cells = graph.node("Mul", cells, graph.constant(np.float32(1 / 8)))
    center = 4 * np.arange(quarter, dtype=np.float32) + 2
    plane = -3 * center[None, :] - 21 * center[:, None]
    plane = graph.node("Add", cells, graph.constant(plane[None, None]))
    for name, factor in ((HIGH_RES_S8, 1), (HIGH_RES_S4, 3)) if high_res else ():
        level = graph.node("ReduceMean", graph.node("Cast", name, to=TensorProto.FLOAT), keepdims=1)
        level = graph.node("Mul", level, graph.constant(np.float32(factor)))
        plane = graph.node("Add", plane, level)
    has_mask = graph.node("Unsqueeze", has_mask, graph.constant(np.int64([1, 2, 3])))
    logits = graph.node("Add", graph.node("Mul", masks, has_mask), plane)
    logits = graph.node("Add", logits, offset)
    tokens = np.arange(4, dtype=np.float32)
    logits = graph.node("Add", logits, graph.constant(tokens[None, :, None, None] / 4))
    scores = graph.node("Add", graph.sum(weights, (1,)), graph.constant(tokens / 10))
    if one_answer:  # a decoder for one prompt that takes many
        ends = graph.constant(np.int64([0])), graph.constant(np.int64([1]))
        logits = graph.node("Slice", logits, *ends)
        num = 1
    graph.output(LOW_RES_LOGITS, dtype, (num, 4, quarter, quarter), logits)
    graph.output(IOU_SCORES, dtype, ("N" if one_answer else num, 4), scores)
    return graph.model()


class GraphBuilder:
    """Nodes and tensors under names of their own."""

    def __init__(self):
        self._nodes, self._inputs, self._outputs, self._constants = [], [], [], []

    def input(self, name, dtype, shape):
        self._inputs.append(helper.make_tensor_value_info(name, _element(dtype), shape))

    def output(self, name, dtype, shape, value):
        self._nodes.append(helper.make_node("Cast", [value], [name], to=_element(dtype)))
        self._outputs.append(helper.make_tensor_value_info(name, _element(dtype), shape))

    def constant(self, value):
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operation, *inputs, **attributes):
        name = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def sum(self, value, axes, keepdims=0):
        return self.node("ReduceSum", value, self.constant(np.int64(axes)), keepdims=keepdims)

    def model(self):
        graph = helper.make_graph(self._nodes, "tiny", self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def _element(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

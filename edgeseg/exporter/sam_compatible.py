"""A pair of ONNX files with the tensors of SAM's own export, for programs that users already have.

Source: the decoder's contract is that of the ONNX export in segment-anything (Kirillov et al. 2023,
arXiv:2304.02643); the encoder's, and the names of the files, are those of the tool samexporter,
since SAM exports no encoder. Written from these contracts. Unlike that export, ours crops the
padding of every image as its size says, instead of that of the recorded example.

Two habits differ from our own graphs: points are counted from pixel centres, half a pixel less than
ours, and the program appends the padding point (0, 0) with label -1 itself.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.exporter.graphs import DecoderGraph, EncoderGraph, Normalisation
from edgeseg.exporter.onnx_files import OLDEST_OPSET, OnnxExport, convert, write_onnx
from edgeseg.exporter.onnx_inputs import Arrays
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.signature import GraphSpec, TensorSpec

SAM_IMAGE_SIZE = 1024
"""The input size that programs for SAM assume."""
SAM_EMBED_DIM = 256
"""The width of the image embedding that programs for SAM assume."""


class SamEncoderGraph(nn.Module):
    """An image with its longest side scaled to S to its embedding.

    Args:
        net: The network; it is copied and left as it was.
    """

    def __init__(self, net: PromptableNet) -> None:
        super().__init__()
        self.encoder = EncoderGraph(net)
        self.normalisation = Normalisation()
        self.image_size = net.image_size

    def forward(self, input_image: Tensor) -> Tensor:
        """Normalise (h, w, 3) float32 RGB in 0..255, pad it to S x S and encode it."""
        pixels = self.normalisation(input_image)  # (1, 3, h, w)
        down, right = self.image_size - pixels.shape[2], self.image_size - pixels.shape[3]
        return self.encoder(F.pad(pixels, (0, right, 0, down)))[0]


class SamDecoderGraph(nn.Module):
    """An embedding and one prompt to masks at the size of the image, as SAM's export answers.

    Args:
        net: The network; it is copied and left as it was.
        return_single_mask: Return one mask: the single answer if there are three points or more,
            the padding point and box corners counted, else the best of the other three.
    """

    def __init__(self, net: PromptableNet, return_single_mask: bool = False) -> None:
        super().__init__()
        self.net = DecoderGraph(net).net
        self.return_single_mask = return_single_mask

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one prompt; `sam_decoder_spec` says what the tensors are."""
        prompts = PromptBatch(point_coords + 0.5, point_labels, (1,), mask_input, has_mask_input)
        features = ImageFeatures(image_embeddings)
        output = self.net.decode(features, prompts, add_padding_point=False)
        logits, scores = output.low_res_logits, output.iou_scores
        if self.return_single_mask:
            best = _favoured(scores, point_labels).argmax(dim=1)
            logits, scores = logits.index_select(1, best), scores.index_select(1, best)
        return _at_image_size(logits, orig_im_size, self.net.image_size), scores, logits


def _favoured(scores: Tensor, point_labels: Tensor) -> Tensor:
    """Return (1, 4) scores that put token 0 first from three points on, and last below."""
    num_points = torch.ones_like(point_labels).sum(dim=1, keepdim=True)
    is_single = torch.eye(1, scores.shape[1])  # 1, 0, 0, 0
    return scores + (num_points - 2.5) * 1000 * is_single


def _at_image_size(logits: Tensor, image_hw: Tensor, image_size: int) -> Tensor:
    """Enlarge (1, M, S/4, S/4) logits to the model input, crop the padding, scale: (1, M, H, W)."""
    square = F.interpolate(logits, (image_size, image_size), mode="bilinear", align_corners=False)
    scaled_hw = image_size / image_hw.max() * image_hw
    content_h, content_w = torch.floor(scaled_hw + 0.5).to(torch.int64).tolist()
    height, width = image_hw.to(torch.int64).tolist()
    for size in (content_h, content_w, height, width):
        torch._check(size >= 1)
    torch._check(content_h <= image_size)
    torch._check(content_w <= image_size)
    content = square[..., :content_h, :content_w]
    return F.interpolate(content, (height, width), mode="bilinear", align_corners=False)


def sam_encoder_spec(net: PromptableNet) -> GraphSpec:
    """Return the encoder's tensors: an RGB image of at most S x S in, its embedding out."""
    grid = net.image_size // 16
    image = TensorSpec("input_image", ("image_height", "image_width", 3))
    return GraphSpec((image,), (TensorSpec("image_embeddings", (1, net.embed_dim, grid, grid)),))


def sam_decoder_spec(net: PromptableNet, return_single_mask: bool = False) -> GraphSpec:
    """Return the decoder's tensors.

    `point_coords` are x, y in pixels of the image scaled to a longest side of S, counted from pixel
    centres; `point_labels` 1 on the object, 0 off it, 2 and 3 box corners, -1 padding;
    `has_mask_input` 1 if `mask_input` counts, else 0; `orig_im_size` height and width.
    """
    grid, masks = net.image_size // 16, 1 if return_single_mask else 4
    inputs = (
        TensorSpec("image_embeddings", (1, net.embed_dim, grid, grid)),
        TensorSpec("point_coords", (1, "num_points", 2)),
        TensorSpec("point_labels", (1, "num_points")),
        TensorSpec("mask_input", (1, 1, 4 * grid, 4 * grid)),
        TensorSpec("has_mask_input", (1,)),
        TensorSpec("orig_im_size", (2,)),
    )
    outputs = (
        TensorSpec("masks", (1, masks, "image_height", "image_width")),
        TensorSpec("iou_predictions", (1, masks)),
        TensorSpec("low_res_masks", (1, masks, 4 * grid, 4 * grid)),
    )
    return GraphSpec(inputs, outputs)


def convert_sam_encoder(net: PromptableNet, opset: int = OLDEST_OPSET) -> OnnxExport:
    """Turn the image encoder into a model with the tensors of `sam_encoder_spec`."""
    spec, size = sam_encoder_spec(net), net.image_size
    sizes_hw = [(size - 7, size - 5), (size // 2, size)]  # the first: no side full, none equal
    generator = np.random.default_rng(0)
    images = [generator.uniform(0, 255, (*hw, 3)).astype(np.float32) for hw in sizes_hw]
    return convert(SamEncoderGraph(net), spec, opset, [{"input_image": image} for image in images])


def convert_sam_decoder(
    net: PromptableNet, return_single_mask: bool = False, opset: int = OLDEST_OPSET
) -> OnnxExport:
    """Turn prompt encoder and mask decoder into a model with the tensors of `sam_decoder_spec`."""
    prompts = ([1, 0, -1], (48, 64)), ([1, -1], (90, 31)), ([2, 3], (7, 9)), ([1] * 7, (50, 50))
    inputs = [_example(net, labels, hw, seed) for seed, (labels, hw) in enumerate(prompts)]
    spec = sam_decoder_spec(net, return_single_mask)
    return convert(SamDecoderGraph(net, return_single_mask), spec, opset, inputs)


def _example(net: PromptableNet, labels: list[int], image_hw: tuple[int, int], seed: int) -> Arrays:
    generator, grid = np.random.default_rng(seed), net.image_size // 16
    arrays = {
        "image_embeddings": generator.standard_normal((1, net.embed_dim, grid, grid)),
        "point_coords": generator.uniform(0, net.image_size, (1, len(labels), 2)),
        "point_labels": np.array([labels]),
        "mask_input": generator.standard_normal((1, 1, 4 * grid, 4 * grid)),
        "has_mask_input": np.array([seed % 2]),
        "orig_im_size": np.array(image_hw),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def export_sam_compatible(
    net: PromptableNet,
    folder: Path,
    return_single_mask: bool = False,
    opset: int = OLDEST_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write NAME.encoder.onnx and NAME.decoder.onnx, both or neither.

    Args:
        net: A network with the shapes of SAM, such as edgesam.
        folder: Where the files belong.
        return_single_mask: See `SamDecoderGraph`.
        opset: ONNX operator set.
        metadata: Facts stored in the files.

    Raises:
        ExportError: The network has other shapes than SAM, or a file is not equal to PyTorch.
    """
    check_sam_compatible(net)
    encoder = convert_sam_encoder(net, opset)
    decoder = convert_sam_decoder(net, return_single_mask, opset)
    paths = folder / f"{net.name}.encoder.onnx", folder / f"{net.name}.decoder.onnx"
    for path, export in zip(paths, (encoder, decoder), strict=True):
        write_onnx(export.model, path, metadata)
    return paths


def check_sam_compatible(net: PromptableNet) -> None:
    """Raise unless programs written for SAM can run the network.

    Raises:
        ExportError: With what does not fit, and what would.
    """
    if net.mask_decoder.high_res_s8 is not None:
        raise ExportError(
            f"{net.name} hands features at strides 8 and 4 to its decoder, for which SAM's decoder "
            "has no inputs; use another ONNX target, or a model without them, such as edgesam"
        )
    if net.embed_dim != SAM_EMBED_DIM:
        raise ExportError(
            f"{net.name} has an embedding {net.embed_dim} wide and programs for SAM expect "
            f"{SAM_EMBED_DIM}; use another ONNX target"
        )
    if net.image_size != SAM_IMAGE_SIZE:
        raise ExportError(
            f"{net.name} has {net.image_size} pixel input and programs for SAM scale images and "
            f"points to {SAM_IMAGE_SIZE}; load it with image_size={SAM_IMAGE_SIZE}, which a "
            "convolutional encoder takes, or use another ONNX target"
        )

"""The package `segment_anything` is the oracle: same weights, same prompts, same masks."""

import numpy as np
import pytest
import torch
from random_networks import randomised
from segment_anything import modeling as sam
from segment_anything.modeling.common import LayerNorm2d as SamLayerNorm2d
from torch import nn

from edgeseg.modeling import ImageFeatures, PromptableNet, PromptBatch, build_model
from edgeseg.modeling.checkpoints import load_strict
from edgeseg.modeling.layers import LayerNorm2d
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD, preprocess

WIDTH = 256

# Prompts of two objects a kind, in pixels of a 64 pixel input, whole pixels as SAM counts them.
POINT = torch.tensor([[[40.0, 9.0]], [[3.0, 50.0]]])
POINTS = torch.tensor([[[40.0, 9.0], [8.0, 30.0], [60.0, 61.0]], [[3.0, 50], [4, 2], [33, 9]]])
LABELS = torch.tensor([[1, 0, 1], [0, 1, 1]])
BOXES = torch.tensor([[4.0, 20.0, 50.0, 33.0], [7.0, 1.0, 12.0, 60.0]])
MASKS = 5 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def sam_parts(grid, width=WIDTH, mlp_dim=2048):
    transformer = sam.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=mlp_dim, num_heads=8)
    return nn.ModuleDict(
        {
            "prompt_encoder": sam.PromptEncoder(
                embed_dim=width,
                image_embedding_size=(grid, grid),
                input_image_size=(16 * grid, 16 * grid),
                mask_in_chans=16,
            ),
            "mask_decoder": sam.MaskDecoder(
                transformer_dim=width,
                transformer=transformer,
                num_multimask_outputs=3,
                iou_head_depth=3,
                iou_head_hidden_dim=256,
            ),
        }
    )


def both(grid):
    """SAM's prompt encoder and mask decoder, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = randomised(sam_parts(grid)).eval()
    parts = PromptEncoder(WIDTH), MaskDecoder(WIDTH)
    ours = PromptableNet(nn.Identity(), *parts, 16 * grid, "ours").eval()
    load_strict(ours, theirs.state_dict(), "SAM's weights")
    return theirs, ours


def their_answer(theirs, embedding, points, boxes, masks):
    sparse, dense = theirs["prompt_encoder"](points, boxes, masks)
    return theirs["mask_decoder"].predict_masks(
        image_embeddings=embedding,
        image_pe=theirs["prompt_encoder"].get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


def our_answer(ours, embedding, points, boxes, masks):
    rows = [torch.zeros(2, 0, 2)], [torch.zeros(2, 0, dtype=torch.int64)]
    if points is not None:
        rows[0].append(points[0] + 0.5)  # SAM counts from pixel centres, we from their edges
        rows[1].append(points[1])
    if boxes is not None:
        rows[0].append(boxes.reshape(2, 2, 2) + 0.5)
        rows[1].append(torch.tensor([[2, 3]] * 2))
    prompts = PromptBatch(torch.cat(rows[0], 1), torch.cat(rows[1], 1), (2,), masks)
    output = ours.decode(ImageFeatures(embedding), prompts)
    return output.low_res_logits, output.iou_scores


@pytest.fixture(scope="module")
def small():
    return both(grid=4)


@pytest.mark.parametrize(
    ("points", "boxes", "masks"),
    [
        pytest.param((POINT, LABELS[:, :1]), None, None, id="one point"),
        pytest.param((POINTS, LABELS), None, None, id="points of both labels"),
        pytest.param(None, BOXES, None, id="box"),
        pytest.param((POINT, LABELS[:, :1]), BOXES, None, id="box and point"),
        pytest.param(None, None, MASKS, id="mask"),
        pytest.param((POINT, LABELS[:, :1]), None, MASKS, id="mask and point"),
        pytest.param((POINTS, LABELS), BOXES, MASKS, id="everything"),
    ],
)
@torch.no_grad()
def test_masks_and_scores_are_those_of_sam(small, points, boxes, masks):
    theirs, ours = small
    embedding = torch.randn(1, WIDTH, 4, 4, generator=torch.Generator().manual_seed(1))

    expected_logits, expected_scores = their_answer(theirs, embedding, points, boxes, masks)
    logits, scores = our_answer(ours, embedding, points, boxes, masks)

    assert expected_logits.std() > 0.5  # or the comparison would say little
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)


@torch.no_grad()
def test_masks_are_those_of_sam_at_its_full_size():
    theirs, ours = both(grid=64)
    embedding = torch.randn(1, WIDTH, 64, 64, generator=torch.Generator().manual_seed(1))
    arguments = (POINTS * 16, LABELS), None, None

    expected_logits, expected_scores = their_answer(theirs, embedding, *arguments)
    logits, scores = our_answer(ours, embedding, *arguments)

    assert logits.shape == (2, 4, 256, 256)
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_whole_network_answers_like_sam_on_an_image_that_is_not_square():
    torch.manual_seed(0)
    ours = randomised(build_model("vit_tiny")).eval()
    their_encoder = sam.ImageEncoderViT(
        img_size=128,
        embed_dim=64,
        depth=2,
        num_heads=2,
        out_chans=32,
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    parts = sam_parts(8, width=32)
    mean, std = PIXEL_MEAN.tolist(), PIXEL_STD.tolist()
    theirs = sam.Sam(their_encoder, parts["prompt_encoder"], parts["mask_decoder"], mean, std)
    theirs.eval().load_state_dict(ours.state_dict(), strict=True)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)

    (expected,) = theirs(
        [
            {
                "image": torch.from_numpy(image).permute(2, 0, 1).float(),
                "original_size": (96, 128),
                "point_coords": torch.tensor([[[100.0, 20.0]]]),
                "point_labels": torch.tensor([[1]]),
            }
        ],
        multimask_output=True,
    )
    prompts = PromptBatch(torch.tensor([[[100.5, 20.5]]]), torch.tensor([[1]]), (1,))
    output = ours(torch.from_numpy(preprocess(image, 128)), prompts)

    torch.testing.assert_close(
        output.low_res_logits[:, 1:], expected["low_res_logits"], rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        output.iou_scores[:, 1:], expected["iou_predictions"], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_channel_norm_is_that_of_sam(memory_format):
    theirs = randomised(SamLayerNorm2d(5))
    ours = LayerNorm2d(5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(ours(x.contiguous(memory_format=memory_format)), theirs(x))


def test_the_channel_norm_keeps_channels_last_memory():
    x = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)

    assert LayerNorm2d(5)(x).is_contiguous(memory_format=torch.channels_last)


def test_the_embedding_of_a_position_is_that_of_sam():
    theirs, ours = sam.prompt_encoder.PositionEmbeddingRandom(8), PromptEncoder(16).pe_layer
    ours.load_state_dict(theirs.state_dict())
    expected = theirs((3, 5)).permute(1, 2, 0).reshape(1, 15, 16)  # 3 rows, 5 columns

    np.testing.assert_allclose(ours.grid((3, 5)).numpy(), expected.numpy(), atol=1e-5)

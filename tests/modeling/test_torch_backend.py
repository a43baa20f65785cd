import numpy as np
import pytest
import torch
from random_networks import randomised

from edgeseg.modeling import PromptBatch, build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.preprocess import preprocess
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import Segmenter

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)  # content 64 x 128
MASK = np.random.default_rng(1).normal(size=(32, 32)).astype(np.float32)
PROMPTS = [
    Prompt(points_xy=[(60, 15)]),
    Prompt(points_xy=[(90, 3), (9, 40)], point_labels=[0, 1], box_xyxy=[3, 6, 30, 45]),
    Prompt(points_xy=[(30, 30)], mask_logits=MASK),
]


@pytest.fixture(scope="module", params=["edgeseg_tiny", "vit_tiny"])
def net(request):
    return randomised(build_model(request.param, image_size=128)).eval()


@torch.inference_mode()
def direct(net):
    """The same prompts through the network alone; 4/3 model pixels an image pixel."""
    points_xy = torch.zeros(3, 4, 2)
    points_xy[0, :1] = torch.tensor([[80.0, 20.0]])
    points_xy[1] = torch.tensor([[120.0, 4.0], [12.0, 160 / 3], [4.0, 8.0], [40.0, 60.0]])
    points_xy[2, :1] = torch.tensor([[40.0, 40.0]])
    labels = torch.tensor([[1, -2, -2, -2], [0, 1, 2, 3], [1, -2, -2, -2]])
    masks = torch.from_numpy(MASK).expand(3, 1, 32, 32)
    has_mask = torch.tensor([False, False, True])
    prompts = PromptBatch(points_xy, labels, (3,), masks, has_mask)
    return net(torch.from_numpy(preprocess(IMAGE, 128)), prompts)


@pytest.mark.parametrize("fused", [False, True])
def test_the_segmenter_answers_as_the_network_itself(net, fused):
    segmenter = Segmenter(TorchBackend(net, fused=fused))

    logits, scores = segmenter.predict_logits(segmenter.encode(IMAGE), PROMPTS)

    expected = direct(net)
    assert logits.dtype == scores.dtype == np.float32
    assert expected.low_res_logits.std() > 0.1
    np.testing.assert_allclose(logits, expected.low_res_logits.numpy(), atol=2e-4)
    np.testing.assert_allclose(scores, expected.iou_scores.numpy(), atol=2e-4)


def test_masks_have_the_size_of_an_image_that_is_not_square(net):
    segmenter = Segmenter(TorchBackend(net))

    masks = segmenter.segment(segmenter.encode(IMAGE), PROMPTS)

    assert masks.masks.shape == (3, 48, 96)


def test_the_backend_carries_name_and_size(net):
    backend = TorchBackend(net)

    assert (backend.name, backend.image_size) == (net.name, 128)


def test_a_network_in_training_is_put_into_eval_mode():
    net = randomised(build_model("edgeseg_tiny", image_size=128)).train()
    expected = direct(randomised(build_model("edgeseg_tiny", image_size=128)).eval())

    segmenter = Segmenter(TorchBackend(net))
    logits, _ = segmenter.predict_logits(segmenter.encode(IMAGE), PROMPTS)

    assert not net.mask_decoder.training
    np.testing.assert_allclose(logits, expected.low_res_logits.numpy(), atol=2e-4)


def test_features_that_were_stored_read_only_can_be_used(net):
    backend = TorchBackend(net)
    features = backend.encode(preprocess(IMAGE, 128))
    for feature in features:
        feature.flags.writeable = False
    point, label = np.float32([[[80, 20]]]), np.array([[1]])

    logits, scores = backend.decode(features, point, label, None, None)

    assert logits.shape == (1, 4, 32, 32)
    assert scores.shape == (1, 4)
    assert len(features) == (1 if net.name == "vit_tiny" else 3)


def test_no_prompts_get_no_answers(net):
    backend = TorchBackend(net)
    none = np.zeros((0, 1, 2), np.float32), np.zeros((0, 1), np.int64)

    logits, scores = backend.decode(backend.encode(preprocess(IMAGE, 128)), *none, None, None)

    assert logits.shape == (0, 4, 32, 32)
    assert scores.shape == (0, 4)

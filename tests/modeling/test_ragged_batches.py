import pytest
import torch
from random_networks import decoding_net, mixed_prompts, one_by_one, random_features

from edgeseg.errors import PromptError
from edgeseg.modeling import ImageFeatures, PromptBatch
from edgeseg.prompts import ABSENT

EVEN = [(5,), (1, 1, 1), (5, 5)]
UNEVEN = [(3, 0, 2), (0, 5), (1, 4)]


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "map and skips"])
@pytest.mark.parametrize("masks", [False, True], ids=["no masks", "masks for some"])
@pytest.mark.parametrize("counts", EVEN + UNEVEN, ids=str)
@torch.no_grad()
def test_one_call_answers_like_a_call_for_each_prompt(counts, masks, extras):
    net, prompts = decoding_net(extras), mixed_prompts(counts, masks)
    features = random_features(len(counts), extras)

    together = net.decode(features, prompts)

    alone = list(one_by_one(net, features, prompts))
    logits = torch.cat([output.low_res_logits for output in alone])
    scores = torch.cat([output.iou_scores for output in alone])
    assert logits.std() > 0.1
    torch.testing.assert_close(together.low_res_logits, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.iou_scores, scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "map and skips"])
@pytest.mark.parametrize("counts", [(2, 2), (3, 0, 2)], ids=str)
def test_gradients_are_those_of_a_call_for_each_prompt(counts, extras):
    net, prompts = decoding_net(extras), mixed_prompts(counts)
    features = random_features(len(counts), extras)
    inputs = [features.embedding, *(features.high_res or ())]
    for tensor in inputs:
        tensor.requires_grad_(True)
    weighting = torch.randn(sum(counts), 4, 16, 16, generator=torch.Generator().manual_seed(9))

    def gradients(logits, scores):
        wanted = [*net.parameters(), *inputs]
        loss = (logits * weighting).mean() + scores.square().sum()
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        return [torch.zeros(1) if grad is None else grad for grad in grads]

    output = net.decode(features, prompts)
    together = gradients(output.low_res_logits, output.iou_scores)
    outputs = list(one_by_one(net, features, prompts))
    alone = gradients(
        torch.cat([o.low_res_logits for o in outputs]), torch.cat([o.iou_scores for o in outputs])
    )

    assert sum(grad.abs().max() > 1e-4 for grad in together) > 0.9 * len(together)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "map and skips"])
@torch.no_grad()
def test_absent_slots_change_nothing_wherever_they_stand(extras):
    net, features = decoding_net(extras), random_features(1, extras)
    xy, labels = torch.tensor([[[9.0, 50.0], [30.0, 7.0]]]), torch.tensor([[1, 0]])
    full_xy = torch.full((1, 5, 2), 33.0)
    full_labels = torch.full((1, 5), ABSENT)
    full_xy[:, 1::2], full_labels[:, 1::2] = xy, labels

    plain = net.decode(features, PromptBatch(xy, labels, (1,)))
    padded = net.decode(features, PromptBatch(full_xy, full_labels, (1,)))

    torch.testing.assert_close(padded.low_res_logits, plain.low_res_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(padded.iou_scores, plain.iou_scores, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_mask_that_does_not_count_changes_nothing():
    net, features = decoding_net(extras=False), random_features(1, extras=False)
    prompts = mixed_prompts((2,))
    without = net.decode(features, mixed_prompts((2,), masks=False))

    output = net.decode(features, prompts)

    assert prompts.has_mask.tolist() == [False, True]
    difference = (output.low_res_logits - without.low_res_logits).abs().amax((1, 2, 3))
    assert difference[0] < 1e-5
    assert difference[1] > 1e-2


@pytest.mark.parametrize("counts", [(0,), (0, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "map and skips"])
@torch.no_grad()
def test_images_may_have_no_prompt_at_all(counts, extras):
    net, features = decoding_net(extras), random_features(len(counts), extras)
    total = sum(counts)
    labels = torch.ones(total, 2, dtype=torch.int64)

    output = net.decode(features, PromptBatch(torch.ones(total, 2, 2), labels, counts))

    assert output.low_res_logits.shape == (total, 4, 16, 16)
    assert output.iou_scores.shape == (total, 4)


@torch.no_grad()
def test_the_padding_point_may_come_from_the_caller():
    net, features = decoding_net(extras=True), random_features(2, extras=True)
    prompts = PromptBatch(torch.tensor([[[9.0, 50.0]]] * 2), torch.tensor([[1], [0]]), (1, 1))
    padded = prompts.with_points(torch.zeros(2, 1, 2), torch.full((2, 1), -1))

    ours = net.decode(features, prompts)
    theirs = net.decode(features, padded, add_padding_point=False)
    neither = net.decode(features, prompts, add_padding_point=False)

    torch.testing.assert_close(ours.low_res_logits, theirs.low_res_logits, rtol=0, atol=1e-5)
    assert (ours.low_res_logits - neither.low_res_logits).abs().max() > 1e-3


@pytest.mark.parametrize("counts", [(1,), (1, 1, 1), (3,)], ids=str)
def test_prompts_of_another_number_of_images_are_refused(counts):
    net, prompts = decoding_net(extras=False), mixed_prompts(counts)

    with pytest.raises(PromptError, match=r"one number an image, got \(.*\) for 2 images; give"):
        net.decode(random_features(2, extras=False), prompts)


def test_mask_prompts_of_another_size_are_refused():
    net, prompts = decoding_net(extras=False), mixed_prompts((2,))
    wrong = prompts.with_masks(torch.zeros(2, 1, 8, 8))

    with pytest.raises(PromptError, match=r"must be \(T, 1, 16, 16\) .* got \(2, 1, 8, 8\); pass"):
        net.decode(random_features(1, extras=False), wrong)


@torch.no_grad()
def test_the_first_layers_image_side_is_computed_once_an_image():
    net = decoding_net(extras=False)
    rows = []
    layer = net.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    layer.k_proj.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    features = random_features(2, extras=False)

    net.decode(features, mixed_prompts((3, 3), masks=False))
    net.decode(features, mixed_prompts((1, 4), masks=False))

    assert rows == [2, 2]  # images, not prompts


@torch.no_grad()
def test_features_can_be_taken_out_of_a_batch():
    net, features = decoding_net(extras=True), random_features(2, extras=True)
    prompts = mixed_prompts((2, 2))
    both = net.decode(features, prompts).low_res_logits

    last = ImageFeatures(features.embedding[1:], tuple(part[1:] for part in features.high_res))
    second = PromptBatch(
        prompts.points_xy[2:],
        prompts.point_labels[2:],
        (2,),
        prompts.mask_logits[2:],
        prompts.has_mask[2:],
    )

    torch.testing.assert_close(net.decode(last, second).low_res_logits, both[2:], rtol=0, atol=1e-5)

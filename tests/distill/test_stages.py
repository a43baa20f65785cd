from dataclasses import replace

import pytest
import torch
from scripted_nets import prompts_on, ramps
from torch import nn

from edgeseg.distill.encoder_losses import encoder_losses
from edgeseg.distill.stage_config import EncoderStageConfig, PromptStageConfig
from edgeseg.distill.stages import EncoderStage, PromptStage
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import NetTeacher
from edgeseg.modeling.registry import build_model

WIDE = (20, 40)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    return NetTeacher(build_model("vit_tiny"))


@pytest.fixture
def student():
    torch.manual_seed(2)
    return build_model("edgeseg_tiny").eval()


def batch_for(teacher, counts=(1,), cached=False):
    total = sum(counts)
    boxes, points = [[2, 2, 30, 18]] * total, [[9, 9]] * total
    batch = prompts_on([WIDE] * len(counts), counts, [True] * total, boxes, points)
    images = ramps(len(counts), teacher.image_size)
    if cached:
        packed = teacher.feature_shapes().pack(teacher.embed(images))
        return replace(batch, teacher_embedding=packed[:, :, None, None].half().float())
    return replace(batch, teacher_images=images)


def no_random(batch):
    return StepRandom(0, range(len(batch.counts)), batch.counts)


def test_encoder_stage_compares_features_on_the_content_of_the_students_input(student, teacher):
    batch = batch_for(teacher)
    stage = EncoderStage(student, teacher, EncoderStageConfig(steps=1, grid="teacher"))

    losses = stage.losses(batch, no_random(batch))

    expected = encoder_losses(
        student.encode(batch.student_images),
        teacher.embed(batch.teacher_images),
        torch.tensor([[32, 64]]),  # 20 x 40 px in a 64 px input
        64,
        "teacher",
    )
    assert losses["embedding"].count.item() == 32  # the upper half of the teacher's 8 x 8 cells
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("stage_class", [EncoderStage, PromptStage])
def test_cached_features_give_the_losses_of_fresh_ones(student, teacher, stage_class):
    settings = EncoderStageConfig if stage_class is EncoderStage else PromptStageConfig
    stage = stage_class(student, teacher, settings(steps=1))

    fresh, cached = (
        stage.losses(batch, no_random(batch))
        for batch in (batch_for(teacher), batch_for(teacher, cached=True))
    )

    for name, mean in fresh.items():  # a teacher in float16 has 11 bits: 5e-4
        torch.testing.assert_close(cached[name].total, mean.total, rtol=2e-3, atol=1e-3)


def test_encoder_stage_trains_the_encoder_and_the_projections_of_its_finer_levels(student, teacher):
    stage = EncoderStage(student, teacher, EncoderStageConfig(steps=1))

    decoder = student.mask_decoder
    assert list(stage.learning_parts()) == [
        student.image_encoder,
        decoder.high_res_s8,
        decoder.high_res_s4,
    ]


def test_prompt_stage_trains_the_parts_it_is_told_to(student):
    train = {"image_encoder": False, "prompt_encoder": True, "mask_decoder": True}
    stage = PromptStage(student, None, PromptStageConfig(steps=1, train=train))

    assert list(stage.learning_parts()) == [student.prompt_encoder, student.mask_decoder]


def test_published_recipe_freezes_the_prompt_encoder(student, teacher):
    stage = PromptStage(student, teacher, PromptStageConfig(steps=1))

    assert list(stage.learning_parts()) == [student.image_encoder, student.mask_decoder]


def test_weights_of_the_prompt_losses_follow_the_targets(student, teacher):
    targets = {"teacher": 0.5, "ground_truth": 2.0}
    settings = PromptStageConfig(steps=1, targets=targets, score_weight=0.25)

    assert PromptStage(student, teacher, settings).weights == {
        "teacher_mask": 0.5,
        "teacher_score": 0.125,
        "truth_mask": 2.0,
        "truth_score": 0.5,
    }


def test_a_batch_without_prompts_has_nothing_to_say(student, teacher):
    batch = batch_for(teacher, counts=(0, 0))

    assert PromptStage(student, teacher, PromptStageConfig(steps=1)).losses(batch, None) == {}


def test_norms_shared_by_all_processes_see_images_without_prompts(student, teacher, monkeypatch):
    # SyncBatchNorm waits for every process, so none may skip the encoder. It takes a GPU; here a
    # plain norm stands in for it.
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    monkeypatch.setattr("edgeseg.distill.stages._SharedNorm", type(norms[0]))
    stage = PromptStage(student, teacher, PromptStageConfig(steps=1))
    batch = batch_for(teacher, counts=(0,))

    assert stage.losses(batch, None) == {}  # in eval mode they wait for nobody
    student.train()
    losses = stage.losses(batch, None)
    losses["teacher_mask"].total.backward()

    assert (losses["teacher_mask"].total.item(), losses["teacher_mask"].count.item()) == (0, 0)
    assert not student.image_encoder.neck[0].weight.grad.any()


def test_the_decoders_skips_learn_beside_a_frozen_encoder(student, teacher):
    train = {"image_encoder": False, "mask_decoder": True}
    student.requires_grad_(False)
    student.mask_decoder.requires_grad_(True)
    batch = batch_for(teacher)
    stage = PromptStage(student, teacher, PromptStageConfig(steps=1, train=train))

    stage.losses(batch, no_random(batch))["teacher_mask"].total.backward()

    assert student.mask_decoder.high_res_s4.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in student.image_encoder.parameters())


def test_a_teacher_without_a_say_is_not_asked(student, teacher):
    batch = replace(batch_for(teacher), teacher_images=None)
    settings = PromptStageConfig(steps=1, targets={"teacher": 0, "ground_truth": 1})

    losses = PromptStage(student, teacher, settings).losses(batch, no_random(batch))

    assert losses.keys() == {"truth_mask", "truth_score"}

import torch
from scripted_nets import scores

from edgeseg.distill.prompt_losses import (
    RoundTargets,
    disagreement_clicks,
)
from edgeseg.modeling.promptable import DecoderOutput
from edgeseg.prompts import ABSENT


def test_a_click_is_the_wrong_pixel_its_random_number_points_at():
    mine = torch.zeros(5, 2, 3, dtype=torch.bool)
    wanted = torch.tensor([[[1, 0, 0], [0, 1, 1]]], dtype=torch.bool).expand(5, -1, -1)
    valid = torch.ones(5, 2, 3, dtype=torch.bool)
    uniform = torch.tensor([0.0, 0.33, 0.34, 0.66, 0.999])  # thirds: three pixels are wrong

    cells, labels = disagreement_clicks(mine, wanted, valid, uniform)

    assert cells.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 1]]  # column, then row
    assert labels.tolist() == [1] * 5


def test_a_click_off_the_wanted_mask_is_negative_and_padding_is_never_clicked():
    mine = torch.ones(1, 2, 2, dtype=torch.bool)
    wanted = torch.zeros(1, 2, 2, dtype=torch.bool)
    valid = torch.tensor([[[False, False], [True, False]]])

    for uniform in (0.0, 0.5, 0.999):
        cells, labels = disagreement_clicks(mine, wanted, valid, torch.tensor([uniform]))
        assert cells.tolist() == [[0, 1]]
        assert labels.tolist() == [0]


def test_masks_that_differ_on_padding_only_get_no_click():
    mine = torch.tensor([[[True, False]]])

    _, labels = disagreement_clicks(
        mine, ~mine, torch.zeros(1, 1, 2, dtype=torch.bool), torch.tensor([0.5])
    )

    assert labels.tolist() == [ABSENT]


def test_wanted_mask_is_chosen_for_each_prompt_by_itself():
    logits = torch.full((2, 4, 1, 1), -1.0)
    logits[0, 3] = logits[1, 1] = 1.0
    teacher_masks = torch.zeros(2, 4, 1, 1, dtype=torch.bool)
    teacher_masks[0, 3] = True
    preferred = torch.stack([scores(1, best=3)[0], scores(1, best=1)[0]])

    mine, wanted = RoundTargets(teacher_masks, preferred, None).wanted(
        DecoderOutput(logits, scores(2, best=0))
    )

    assert mine.flatten().tolist() == [True, True]
    assert wanted.flatten().tolist() == [True, False]

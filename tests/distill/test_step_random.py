import pytest
import torch

from edgeseg.distill.step_random import StepRandom
from edgeseg.modeling.prompt_batch import PromptGroups

COUNTS = (2, 0, 3, 1)
POSITIONS = range(8, 12)  # step 2 of batches of 4


def drawn(positions, counts, purpose="clicks", round_index=0, width=None, seed=7):
    random = StepRandom(seed, positions, counts)
    return random.uniform(purpose, round_index, PromptGroups(counts), width)


@pytest.mark.parametrize("width", [None, 5])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_numbers_are_the_same_for_any_split_over_processes(cut, width):
    whole = drawn(POSITIONS, COUNTS, width=width)

    parts = [
        drawn(POSITIONS[part], COUNTS[part], width=width)
        for part in (slice(0, cut), slice(cut, None))
    ]

    assert torch.equal(torch.cat(parts), whole)


def test_there_is_one_number_or_one_row_a_prompt():
    assert drawn(POSITIONS, COUNTS).shape == (6,)
    assert drawn(POSITIONS, COUNTS, width=5).shape == (6, 5)
    assert drawn(POSITIONS, (0, 0, 0, 0), width=5).shape == (0, 5)


def test_numbers_are_float32_below_one():
    numbers = drawn([3], (1,), width=10_000)

    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.02)  # 0.29 / sqrt(10,000) = 0.003


@pytest.mark.parametrize(
    "change",
    [{"purpose": "masks"}, {"round_index": 1}, {"seed": 8}, {"positions": range(12, 16)}],
)
def test_another_purpose_round_seed_or_step_draws_other_numbers(change):
    settings = {"positions": POSITIONS, "counts": COUNTS}

    assert not torch.isin(drawn(**settings), drawn(**settings | change)).any()


def test_an_images_numbers_do_not_depend_on_the_prompts_of_the_others():
    assert torch.equal(drawn([4, 5], (1, 2))[1:], drawn([4, 5], (3, 2))[3:])

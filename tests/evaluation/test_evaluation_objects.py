import numpy as np
import pytest
from known_answers import KnownRecord, rectangle
from pydantic import ValidationError

from edgeseg.evaluation.config import EvaluationConfig, num_clicks_of, start_of
from edgeseg.evaluation.objects import read_objects, select_records
from edgeseg.metrics import inner_boundary

SMALL = [rectangle(x, 0, x + 1, 1 + x) for x in range(12)]  # areas 1, 2, ... 12


def test_image_border_does_not_pull_the_centre_or_the_boundary():
    mask = rectangle(0, 0, 9, 24)  # touches three borders; the middle column is 4

    _, (target,) = read_objects(KnownRecord("one", [mask]), EvaluationConfig())

    assert target.box_xyxy.tolist() == [0, 0, 9, 24]
    assert target.center_xy[0] == 4.5
    np.testing.assert_array_equal(target.boundary.to_mask(), inner_boundary(mask, 1))
    np.testing.assert_array_equal(target.mask.to_mask(), mask)


def test_objects_below_the_area_are_left_out():
    _, targets = read_objects(KnownRecord("one", SMALL), EvaluationConfig(min_area_px=10))

    assert [target.mask.area_px for target in targets] == [10, 11, 12]


def test_drawn_objects_keep_their_order_and_depend_on_seed_and_name_only():
    def areas(name, seed):
        settings = EvaluationConfig(max_objects_an_image=5, seed=seed)
        _, targets = read_objects(KnownRecord(name, SMALL), settings)
        return [target.mask.area_px for target in targets]

    first = areas("one", 0)
    assert len(set(first)) == 5
    assert first == sorted(first)
    assert areas("one", 0) == first
    assert areas("one", 1) != first
    assert areas("two", 0) != first


def test_drawn_images_of_a_domain_do_not_depend_on_other_domains():
    cats = [KnownRecord(f"cat{number}", [], "cats") for number in range(20)]
    dogs = [KnownRecord(f"dog{number}", [], "dogs") for number in range(20)]
    settings = EvaluationConfig(max_images_a_domain=4)

    both = select_records([*dogs, *cats], settings)
    alone = select_records(cats, settings)

    assert len(both) == 8
    assert [record for record in both if record.domain == "cats"] == alone
    other_seed = select_records(cats, EvaluationConfig(max_images_a_domain=4, seed=1))
    assert [record.name for record in other_seed] != [record.name for record in alone]


def test_all_images_are_taken_without_a_limit():
    records = [KnownRecord(f"{number}", []) for number in range(9)]

    selected = select_records(iter(records), EvaluationConfig())

    assert sorted(record.name for record in selected) == [f"{number}" for number in range(9)]


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_sets": ("circle",)},
        {"prompt_sets": ("box+",)},
        {"prompt_sets": ("box+10",)},
        {"prompt_sets": ()},
        {"max_images_a_domain": 0},
        {"max_objects_an_image": -1},
        {"min_area_px": 0},
        {"seed": -1},
        {"bundary": True},
        {"grabcut": {"iterations": 0}},
        {"grabcut": {"speed": 1}},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError, match=f"(?s){next(iter(settings))}"):
        EvaluationConfig(**settings)


def test_prompt_sets_are_taken_apart():
    assert (start_of("box"), num_clicks_of("box")) == ("box", 0)
    assert (start_of("center+3"), num_clicks_of("center+3")) == ("center", 3)
    assert EvaluationConfig(prompt_sets=("box+2", "center", "box")).starts() == {
        "box": 2,
        "center": 0,
    }


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        EvaluationConfig().seed = 3

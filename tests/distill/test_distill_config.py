import pytest

from edgeseg.distill.config import parse_config
from edgeseg.distill.stage_config import EncoderStageConfig, PromptStageConfig
from edgeseg.errors import ConfigError

DATA = {"train": [{"format": "sa1b", "path": "photos"}]}
TRUTH = {"steps": 5, "targets": {"teacher": 0, "ground_truth": 1}}


def parse(**tables):
    """Parse the smallest run with some tables replaced; None takes one away."""
    minimal = {"student": {"model": "edgeseg_s"}, "data": DATA, "prompt_stage": TRUTH}
    wanted = {name: table for name, table in (minimal | tables).items() if table is not None}
    return parse_config(wanted, "run.toml")


# What the recipe says.


def test_defaults_of_the_stages_are_the_published_recipe():
    first, second = EncoderStageConfig(epochs=10), PromptStageConfig(epochs=5)

    assert (first.batch_size, first.learning_rate, first.final_learning_rate) == (
        64,
        1.25e-2,
        6.25e-7,
    )
    assert (second.batch_size, second.learning_rate, second.final_learning_rate) == (
        16,
        1e-4,
        1e-5,
    )
    assert (second.max_grad_norm, second.max_instances, second.box_share) == (0.01, 16, 0.5)
    assert (second.refinement_rounds, second.bce_weight, second.dice_weight) == (1, 5.0, 5.0)
    assert second.train.model_dump() == {
        "image_encoder": True,
        "prompt_encoder": False,
        "mask_decoder": True,
    }


def test_epochs_become_steps():
    assert EncoderStageConfig(epochs=10).num_steps(640) == 100
    assert EncoderStageConfig(epochs=0.5, batch_size=4).num_steps(13) == 2  # 1.625
    assert EncoderStageConfig(epochs=0.1).num_steps(3) == 1
    assert EncoderStageConfig(steps=7).num_steps(1_000_000) == 7


@pytest.mark.parametrize("length", [{}, {"steps": 3, "epochs": 1.0}])
@pytest.mark.parametrize("stage", ["encoder_stage", "prompt_stage"])
def test_a_stage_has_exactly_one_length(stage, length):
    with pytest.raises(ConfigError, match=f"^run.toml: {stage}: give either steps or epochs$"):
        parse(teacher={"weights": "vit_b.pth"}, **{stage: length})


# Unknown keys.


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sede": 1}, "sede is unknown; known here are augmentation, data, encoder_stage, engine"),
        (
            {"student": {"model": "edgeseg_s", "sizes": 1}},
            "student.sizes is unknown; known here are decoder, image_size, imagenet, model, wei",
        ),
        (
            {"prompt_stage": TRUTH | {"targets": {"truth": 1}}},
            "prompt_stage.targets.truth is unknown; known here are ground_truth, teacher",
        ),
        (
            {"prompt_stage": TRUTH | {"uncertain_points": {"points": 4096}}},
            "uncertain_points.points is unknown; known here are num_points, uncertain_share",
        ),
        (
            {"augmentation": {"color": {"hue": 1}}},
            "augmentation.color.hue is unknown; known here are brightness, contrast, grey_",
        ),
        (
            {"data": {"train": [DATA["train"][0], {"format": "sa1b", "path": "p", "splt": "a"}]}},
            "data.train.1.splt is unknown; known here are annotations, domain, format, images, ",
        ),
    ],
)
def test_an_unknown_key_is_refused_and_the_known_ones_are_named(tables, message):
    with pytest.raises(ConfigError) as error:
        parse(**tables)

    assert str(error.value).startswith("run.toml: ")
    assert message in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError, match=r"seed: .*; student\.modell is unknown.*"):
        parse(seed=-1, student={"model": "edgeseg_s", "modell": "x"})


# Values out of range.


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("student", "image_size", 96),
        ("student", "image_size", 0),
        ("data", "max_broken_share", 1.5),
        ("data", "workers", -1),
        ("data", "train", []),
        ("engine", "ema_decay", 1.0),
        ("engine", "precision", "16"),
        ("engine", "log_every_steps", 0),
        ("prompt_stage", "steps", 0),
        ("prompt_stage", "batch_size", 0),
        ("prompt_stage", "learning_rate", 0.0),
        ("prompt_stage", "max_grad_norm", 0.0),
        ("prompt_stage", "box_share", 1.1),
        ("prompt_stage", "box_jitter", 0.5),
        ("prompt_stage", "refinement_rounds", 9),
        ("prompt_stage", "mask_prompt_share", -0.1),
        ("prompt_stage", "uncertain_points", {"num_points": 15}),
        ("prompt_stage", "lora", {"rank": 0}),
        ("prompt_stage", "lora", {"parts": []}),
        ("prompt_stage", "lora", {"parts": ["image_encoder"]}),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(table, key, value):
    tables = {"student": {"model": "edgeseg_s"}, "data": DATA, "prompt_stage": TRUTH}

    with pytest.raises(ConfigError, match=rf"^run\.toml: {table}\.{key}"):
        parse(**{table: tables.get(table, {}) | {key: value}})


# Contradictions.


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"prompt_stage": None}, r"give \[encoder_stage\], \[prompt_stage\] or \[pr"),
        ({"encoder_stage": {"steps": 1}}, r"\[encoder_stage\] follows a teacher, so give"),
        ({"prompt_stage": {"steps": 1}}, r"prompt_stage.targets.teacher is above zero, so give"),
        (
            {"student": {"model": "edgeseg_s", "decoder": "teacher"}},
            r'student.decoder = "teacher" needs \[teacher\]',
        ),
        (
            {"teacher": {"weights": "t.pth", "cache": "c"}, "augmentation": {}},
            r"cached teacher embeddings belong to images as they are; remove \[augmentation\]",
        ),
        ({"evaluation": {}}, r"\[evaluation\] needs data.validation"),
        (
            {"prompt_stage": {"steps": 1, "targets": {"teacher": 0}}},
            "prompt_stage.targets: give teacher or ground_truth a weight above zero",
        ),
        (
            {"prompt_stage": TRUTH | {"lora": {}}},
            "prompt_stage: lora updates mask_decoder, so set train.mask_decoder = false",
        ),
        (
            {"prompt_stage": TRUTH | {"train": {"image_encoder": False, "mask_decoder": False}}},
            r"prompt_stage: nothing learns; set one of train.\* to true or give lora",
        ),
        (
            {"data": {"train": [{"format": "coco", "path": "a.json"}]}},
            "data.train.0: format 'coco' needs 'images'",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tables, message):
    with pytest.raises(ConfigError, match=f"^run.toml: .*{message}"):
        parse(**tables)


def test_low_rank_updates_take_the_place_of_training_a_part():
    train = {"image_encoder": False, "mask_decoder": False}

    stage = parse(prompt_stage=TRUTH | {"train": train, "lora": {}}).prompt_stage

    assert stage.lora.parts == ("mask_decoder",)


def test_a_teacher_only_for_agreement_and_labels_is_allowed():
    assert parse(teacher={"weights": "t.pth"}).prompt_stage.targets.teacher == 0

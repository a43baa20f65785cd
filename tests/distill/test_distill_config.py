from pathlib import Path

import pytest

from edgeseg.data.sources import expand_path
from edgeseg.distill.config import parse_config, read_config
from edgeseg.distill.recipes import find_recipe, recipe_names
from edgeseg.distill.stage_config import EncoderStageConfig, PromptStageConfig
from edgeseg.errors import ConfigError, DataError
from edgeseg.modeling.registry import MODELS

DATA = {"train": [{"format": "sa1b", "path": "photos"}]}
TRUTH = {"steps": 5, "targets": {"teacher": 0, "ground_truth": 1}}
MINIMAL = """
[student]
model = "edgeseg_s"

[data]
train = [{ format = "sa1b", path = "photos" }]

[prompt_stage]
steps = 5
targets = { teacher = 0, ground_truth = 1 }
"""


def parse(**tables):
    """Parse the smallest run with some tables replaced; None takes one away."""
    minimal = {"student": {"model": "edgeseg_s"}, "data": DATA, "prompt_stage": TRUTH}
    wanted = {name: table for name, table in (minimal | tables).items() if table is not None}
    return parse_config(wanted, "run.toml")


def read(tmp_path, *overrides, text=MINIMAL):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_config(path, overrides)


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
        ({"prompt_stage": None}, r"give \[encoder_stage\], \[prompt_stage\] or both"),
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


# Files and overrides.


def test_a_file_is_read_and_what_is_absent_is_off(tmp_path):
    config = read(tmp_path)

    assert config.student.model == "edgeseg_s"
    assert config.prompt_stage.steps == 5
    assert (
        config.teacher is config.augmentation is config.evaluation is config.encoder_stage is None
    )


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=3", lambda c: c.seed == 3),
        ("engine.ema_decay=0.5", lambda c: c.engine.ema_decay == 0.5),
        ("prompt_stage.learning_rate=2e-3", lambda c: c.prompt_stage.learning_rate == 2e-3),
        ("prompt_stage.balanced_share=1", lambda c: c.prompt_stage.balanced_share == 1),
        ('engine.norms="batch"', lambda c: c.engine.norms == "batch"),
        ("engine.norms=batch", lambda c: c.engine.norms == "batch"),
        (" student.decoder = a = b.pth ", lambda c: c.student.decoder == "a = b.pth"),
        (
            "prompt_stage.lora={ rank = 2, parts = ['prompt_encoder'] }",
            lambda c: (
                (c.prompt_stage.lora.rank, c.prompt_stage.lora.parts) == (2, ("prompt_encoder",))
            ),
        ),
        (
            "data.train=[{ format = 'images', path = 'x' }]",
            lambda c: c.data.train[0].format == "images",
        ),
        ("prompt_stage.targets.ground_truth=4", lambda c: c.prompt_stage.targets.teacher == 0),
        ("teacher.weights=vit_b.pth", lambda c: c.teacher.weights == "vit_b.pth"),
    ],
)
def test_an_override_sets_a_value_of_any_type(tmp_path, override, value):
    assert value(read(tmp_path, override))


def test_the_last_override_wins(tmp_path):
    assert read(tmp_path, "seed=3", "seed=4").seed == 4


def test_an_override_of_one_length_by_the_other_is_a_contradiction(tmp_path):
    with pytest.raises(ConfigError, match="prompt_stage: give either steps or epochs"):
        read(tmp_path, "prompt_stage.epochs=1")


@pytest.mark.parametrize("override", ["seed", "=3", " =3"])
def test_an_override_without_key_or_value_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="an override must be table.key=value, got '"):
        read(tmp_path, override)


@pytest.mark.parametrize("override", ["seed.x=3", "data.train.0.path=x", "student.model.x.y=1"])
def test_an_override_below_a_value_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match=r"cannot set \S+: \w+ is not a table"):
        read(tmp_path, "seed=1", override)


def test_an_override_of_an_unknown_key_is_refused_like_one_of_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"run.toml: engine.speed is unknown; known here are acc"):
        read(tmp_path, "engine.speed=3")


def test_a_file_that_is_absent_or_not_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none.toml: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"run.toml is not valid TOML: .*line 1"):
        read(tmp_path, text="seed = = 1")


# Paths.


def test_paths_keep_their_variables_until_they_are_used(tmp_path, monkeypatch):
    text = MINIMAL.replace('"photos"', '"$PHOTOS/a"')
    monkeypatch.delenv("PHOTOS", raising=False)

    path = read(tmp_path, text=text).data.train[0].path

    assert path == Path("$PHOTOS/a")
    with pytest.raises(DataError, match="variable PHOTOS of the path .* is not set"):
        expand_path(path)
    monkeypatch.setenv("PHOTOS", str(tmp_path))
    assert expand_path(path) == tmp_path / "a"


def test_relative_paths_stay_relative_and_absolute_ones_absolute(tmp_path):
    config = read(tmp_path, 'teacher={ weights = "t.pth", cache = "/cache" }')

    assert config.data.train[0].path == Path("photos")  # to the working directory, not the file
    assert config.teacher.cache == Path("/cache")


def test_resolved_settings_read_back_as_the_same_ones():
    config = parse(
        teacher={"weights": "t.pth", "cache": "$CACHE/x"},
        encoder_stage={"epochs": 0.5},
        prompt_stage={"steps": 3, "lora": {}, "train": {"mask_decoder": False}},
        data=DATA | {"validation": DATA["train"]},
        evaluation={"prompt_sets": ["box", "center+2"], "grabcut": {}},
        engine={"ema_decay": 0.99},
    )

    assert parse_config(config.model_dump(mode="json"), "config.json") == config


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid(name):
    assert read_config(find_recipe(name)).student.model in MODELS


def test_a_recipe_is_found_by_name_and_a_file_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)

    assert find_recipe(str(path)) == path
    assert find_recipe("distill_s").name == "distill_s.toml"
    with pytest.raises(ConfigError, match="no file and no recipe 'distill_q'; recipes are distill"):
        find_recipe("distill_q")

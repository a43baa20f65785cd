from pathlib import Path

import pytest

from edgeseg.data.sources import expand_path
from edgeseg.distill.config import parse_config, read_config
from edgeseg.distill.recipes import find_recipe, recipe_names
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

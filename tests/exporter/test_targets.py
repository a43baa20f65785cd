import pytest

from edgeseg.errors import ConfigError
from edgeseg.exporter.targets import find_target, read_target, target_names

COREML = """
description = "phones"
format = "coreml"
precision = "float16"
[slots]
num_prompts = 1
num_points = 6
[tolerance]
min_mask_iou = 0.99
"""


def written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", target_names())
def test_every_released_target_is_valid_and_named_after_its_file(name):
    assert find_target(name).name == name


def test_the_formats_the_project_promises_are_released():
    targets = [find_target(name) for name in target_names()]

    assert {target.format for target in targets} == {"onnx", "onnx_sam_compatible", "coreml"}
    precisions = {target.precision for target in targets if target.format == "onnx"}
    assert precisions == {"float32", "float16", "int8_dynamic", "int8"}
    kinds = {target.compression.kind for target in targets if target.compression}
    assert kinds == {"linear8", "palette6", "palette4"}


def test_a_target_of_ones_own_is_read_from_its_path(tmp_path):
    path = written(tmp_path / "my_phone.toml", COREML)

    target = find_target(str(path))

    assert target.name == "my_phone"
    assert (target.slots.slots.num_prompts, target.slots.slots.num_points) == (1, 6)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"phones"', '"phones"\nsped = 1', "sped: unknown; known here are name, description"),
        ("num_points = 6", "", "needs slots.num_prompts and slots.num_points"),
        ('"float16"', '"int8_dynamic"', "compressed by \\[compression\\], not by precision"),
        ("0.99", "1.5", "tolerance.min_mask_iou: Input should be less than or equal to 1"),
        ('"coreml"', '"onnx"\nruns_on = ["neural_engine"]', "only Core ML packages run on"),
        ('"coreml"', '"onnx"\n[compression]\nkind = "linear8"', "is no valid target"),
        (
            '"coreml"\nprecision = "float16"',
            '"onnx"\nprecision = "int8"',
            "precision int8 and \\[calibration\\] belong together",
        ),
        ("description", "descr|iption", "is no TOML file"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(tmp_path, old, new, reason):
    path = written(tmp_path / "mine.toml", COREML.replace(old, new, 1))

    with pytest.raises(ConfigError, match=reason):
        read_target(path)


def test_an_unknown_name_lists_the_released_targets(tmp_path):
    with pytest.raises(ConfigError, match="no target 'onnx'; targets are coreml_fp16, "):
        find_target("onnx")
    with pytest.raises(ConfigError, match=r"cannot read the target .*none\.toml"):
        find_target(str(tmp_path / "none.toml"))

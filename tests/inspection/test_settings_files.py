from pathlib import Path

import pytest

from edgeseg.errors import ConfigError
from edgeseg.inspection.settings_files import describe_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((path, "recipe") for path in (ROOT / "edgeseg/distill/recipes").glob("*.toml")),
        *((path, "export target") for path in (ROOT / "export/targets").glob("*.toml")),
        *((path, "benchmark suite") for path in (ROOT / "benchmarks/suites").glob("*.toml")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_every_settings_file_that_comes_along_is_recognised(path, kind):
    facts = describe_settings(path)

    assert facts.kind == kind
    assert facts.summary


def test_a_recipe_tells_student_teacher_and_stages():
    facts = describe_settings(ROOT / "edgeseg/distill/recipes/distill_s.toml")

    assert facts.settings.student == "edgeseg_s"
    assert facts.settings.teacher == "edgeseg_m"
    assert list(facts.settings.stages) == ["encoder", "prompt"]
    assert facts.summary.startswith("recipe for `edgeseg distill`: `edgeseg_s` at ")


def test_a_recipe_with_a_wrong_key_is_refused_as_the_command_would(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[student]\nmodle = 's'\n[data]\ntrain = []")

    with pytest.raises(ConfigError, match=r"student\.modle is unknown; known here are"):
        describe_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n[y]", r"its keys are x, y; a recipe has \[student\] and \[data\]"),
        ("", r"its keys are \(none\)"),
        ("x = ", "is no TOML file: .*; correct it"),
        ("a = " + "[" * 100_000, "is no TOML file"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "a.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        describe_settings(path)

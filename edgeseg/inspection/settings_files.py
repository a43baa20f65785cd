"""TOML files of EdgeSeg: recipes, export targets, suites of benchmarks."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import ConfigError
from edgeseg.inspection.description import Facts
from edgeseg.inspection.limits import check_text_size
from edgeseg.inspection.settings_facts import SettingsFacts, settings_facts


@dataclass(frozen=True)
class RecipeFacts:
    """The settings of a training, found valid.

    Attributes:
        settings: What is trained, on what, for how long.
    """

    settings: SettingsFacts

    kind = "recipe"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        return f"recipe for `edgeseg distill`: {self.settings.sentence}"


@dataclass(frozen=True)
class TargetFacts:
    """An export target, found valid.

    Attributes:
        target: All its settings.
    """

    target: dict[str, Any]

    kind = "export target"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        name = self.target["name"]
        return f"target `{name}` for `edgeseg export`: {self.target['description']}"


@dataclass(frozen=True)
class SuiteFacts:
    """A suite of benchmarks, found valid.

    Attributes:
        suite: All its settings.
    """

    suite: dict[str, Any]

    kind = "benchmark suite"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        parts, contenders = self.suite["parts"], self.suite["contender"]
        return (
            f"suite for `edgeseg bench run --suite`: {', '.join(parts)} of {len(contenders)} "
            "contenders"
        )


def describe_settings(path: Path) -> Facts:
    """Return what a TOML file is for, and read it as the command would that takes it.

    Raises:
        ConfigError: It is none of ours, or a setting is unknown or out of range.
        MissingExtraError: Reading a recipe takes a package that is not installed.
    """
    check_text_size(path)
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}; correct it") from error
    if {"student", "data"} <= tables.keys():
        from edgeseg.distill.config import read_config

        return RecipeFacts(settings_facts(read_config(path).model_dump(mode="json")))
    if {"format", "tolerance"} <= tables.keys():
        from edgeseg.exporter.targets import read_target

        return TargetFacts(read_target(path).model_dump(mode="json", exclude_none=True))
    if "contender" in tables:
        from edgeseg.bench.suite import SuiteConfig

        return SuiteFacts(SuiteConfig.read(path).model_dump(mode="json", exclude_none=True))
    raise ConfigError(
        f"{path} is for no command of ours: its keys are {', '.join(tables) or '(none)'}; a recipe "
        "has [student] and [data], an export target format and [tolerance], a suite [[contender]]"
    )

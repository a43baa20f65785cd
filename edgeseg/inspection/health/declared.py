"""What EdgeSeg declares to need: Python, packages and their ranges, read and never repeated here.

A source checkout states it in `pyproject.toml`; an installation in the metadata that was made from
that file, which for an editable install is as old as the last `pip install -e`.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "edgeseg"
_PYTHON = "Programming Language :: Python :: "


@dataclass(frozen=True)
class Declared:
    """What is declared.

    Attributes:
        requires_python: Versions of Python that are accepted, such as ">=3.11".
        tested_pythons: Versions of Python that are tested, such as "3.11".
        base: Packages that running a model needs on this platform.
        extras: Name of an extra -> its packages on this platform; "all" is left out, since it holds
            only what the others hold.
    """

    requires_python: str
    tested_pythons: tuple[str, ...]
    base: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]

    def differences(self, other: "Declared") -> list[str]:
        """Return the packages, by name, that the two declare differently."""
        own, others = self._ranges(), other._ranges()
        return sorted({name for _, name, _ in own ^ others})

    def _ranges(self) -> set[tuple[str, str, str]]:
        groups = {"": self.base, **self.extras}
        return {
            (extra, canonicalize_name(each.name), str(each.specifier))
            for extra, requirements in groups.items()
            for each in requirements
        }


def read_metadata() -> Declared:
    """Return what the installed distribution declares.

    Raises:
        importlib.metadata.PackageNotFoundError: EdgeSeg is not installed.
        packaging.requirements.InvalidRequirement: Its metadata is damaged.
    """
    found = metadata.metadata(NAME)
    requirements = [Requirement(text) for text in found.get_all("Requires-Dist") or ()]
    return Declared(
        requires_python=str(found.get_all("Requires-Python", [""])[0]),
        tested_pythons=_tested(found.get_all("Classifier") or ()),
        base=tuple(each for each in requirements if _is_wanted(each, "")),
        extras={
            extra: tuple(
                each
                for each in requirements
                if _is_wanted(each, extra) and not _is_wanted(each, "")
            )
            for extra in found.get_all("Provides-Extra") or ()
            if extra != "all"
        },
    )


def read_pyproject(checkout: Path) -> Declared | None:
    """Return what a source checkout declares; None if the folder is none.

    Raises:
        ValueError: Its pyproject.toml is damaged.
    """
    try:
        text = (checkout / "pyproject.toml").read_text("utf-8")
    except OSError:
        return None
    project: dict[str, Any] = tomllib.loads(text).get("project", {})
    if project.get("name") != NAME:
        return None
    extras = project.get("optional-dependencies", {})
    return Declared(
        requires_python=project.get("requires-python", ""),
        tested_pythons=_tested(project.get("classifiers", ())),
        base=_requirements(project.get("dependencies", ())),
        extras={name: _requirements(each) for name, each in extras.items() if name != "all"},
    )


def _requirements(texts: Iterable[str]) -> tuple[Requirement, ...]:
    return tuple(each for each in map(Requirement, texts) if _is_wanted(each, ""))


def _is_wanted(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _tested(classifiers: Iterable[str]) -> tuple[str, ...]:
    versions = (text.removeprefix(_PYTHON) for text in classifiers if text.startswith(_PYTHON))
    return tuple(version for version in versions if "." in version)

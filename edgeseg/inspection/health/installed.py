"""Checks of versions: EdgeSeg itself, Python, and every package against its declared range."""

import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import edgeseg
from edgeseg.inspection.health.declared import NAME, Declared, read_metadata, read_pyproject
from edgeseg.inspection.health.findings import Finding
from edgeseg.versions import installed_versions

CHECKOUT = Path(edgeseg.__file__).parents[1]
"""The folder above the package: the checkout, or wherever packages are installed."""

STAND_INS = {
    "onnxruntime": (
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
    ),
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}
"""Package -> others that bring the same module, and would overwrite each other's files."""

_DAMAGED = ""
"""Stands for the version of a package whose metadata states none."""
_LOWER_BOUNDS = (">=", ">", "==", "~=", "===")


def read_declared(checkout: Path = CHECKOUT) -> tuple[Declared, Finding]:
    """Return what the running code declares to need, and how EdgeSeg is installed.

    Raises:
        RuntimeError: Neither an installation nor a checkout declares anything.
    """
    stated = read_pyproject(checkout)
    found = f"{edgeseg.__version__} in {checkout / NAME}"
    again = f"python -m pip install -e {shlex.quote(f'{checkout}[all]')}"
    try:
        installed = read_metadata()
    except metadata.PackageNotFoundError:
        if stated is None:
            raise RuntimeError(
                f"{checkout / NAME} has neither metadata nor a pyproject.toml, so its "
                "requirements are not known; install EdgeSeg with pip"
            ) from None
        return stated, Finding(NAME, "warning", f"{found}, not installed", again)
    if stated is None:
        return installed, Finding(NAME, "ok", found)
    changed = stated.differences(installed)
    if changed:
        found += f"; its pyproject.toml has changed since it was installed: {', '.join(changed)}"
        return stated, Finding(NAME, "warning", found, again)
    return stated, Finding(NAME, "ok", found)


def check_python(declared: Declared, version: str | None = None) -> Finding:
    """Compare the running Python with the versions that are accepted and tested.

    Args:
        declared: What EdgeSeg needs.
        version: Of Python; default: the running one.
    """
    version = version or platform.python_version()
    found = f"{version} ({platform.system()} {platform.machine()}), {sys.executable}"
    tested = declared.tested_pythons
    if not SpecifierSet(declared.requires_python).contains(version, prereleases=True):
        advice = f"make a virtual environment with Python {tested[-1] if tested else ''}".strip()
        return Finding("Python", "problem", f"{found}; must be {declared.requires_python}", advice)
    release = Version(version).release
    if tested and f"{release[0]}.{release[1]}" not in tested:
        advice = f"should anything fail, try Python {tested[-1]}"
        return Finding("Python", "warning", f"{found}; tested are {', '.join(tested)}", advice)
    return Finding("Python", "ok", found)


def check_packages(declared: Declared) -> Iterator[Finding]:
    """Compare every package with its range, each once; an extra's missing ones are one finding."""
    for requirement in declared.base:
        advice = f"python -m pip install {_asked(requirement)}"
        missing = Finding(requirement.name, "problem", "not installed", advice)
        yield _look_at(requirement) or missing
    seen = {canonicalize_name(each.name) for each in declared.base}
    for extra, requirements in declared.extras.items():
        absent = []
        for requirement in requirements:
            found = _look_at(requirement)
            if found is None:
                absent.append(requirement.name)
            elif canonicalize_name(requirement.name) not in seen:
                yield found
            seen.add(canonicalize_name(requirement.name))
        if absent:
            advice = f"python -m pip install '{NAME}[{extra}]'"
            text = f"not installed, optional: {', '.join(absent)}"
            yield Finding(f"extra {extra}", "warning", text, advice)


def reinstall(requirement: Requirement) -> str:
    """Return the command that installs a package again, in its range."""
    return f"python -m pip install --force-reinstall {_asked(requirement)}"


def ordered(specifier: SpecifierSet) -> str:
    """Return a range as people write it, the lower bound first.

    >>> ordered(SpecifierSet("<3,>=1.26"))
    '>=1.26,<3'
    """
    parts = sorted(specifier, key=lambda each: (each.operator not in _LOWER_BOUNDS, str(each)))
    return ",".join(map(str, parts))


def _look_at(requirement: Requirement) -> Finding | None:
    """Compare what is installed of a package, or in its place, with its range; None if nothing."""
    names = (requirement.name, *STAND_INS.get(canonicalize_name(requirement.name), ()))
    versions = _versions(names)
    if not versions:
        return None
    if len(versions) > 1:
        others = ", ".join(f"{name} {version}" for name, version in versions.items())
        keep = _asked(requirement, list(versions)[-1])  # a stand-in is there because it was wanted
        return Finding(
            requirement.name,
            "warning",
            f"several packages bring the same module: {others}; the last one installed wins",
            f"python -m pip uninstall -y {' '.join(versions)} && python -m pip install {keep}",
        )
    ((name, version),) = versions.items()
    return _compare(name, version, requirement)


def _compare(name: str, version: str, requirement: Requirement) -> Finding:
    allowed = requirement.specifier
    repair = f"python -m pip install {_asked(requirement, name)}"
    try:
        parsed = Version(version)
    except InvalidVersion:
        text = f"installed, but its metadata states {version or 'no version'}"
        again = repair.replace("install", "install --force-reinstall --no-deps", 1)
        return Finding(requirement.name, "problem", text, again)
    stand_in = "" if name == requirement.name else f"{name} "
    if allowed.contains(parsed, prereleases=True):
        return Finding(requirement.name, "ok", f"{stand_in}{version} ({ordered(allowed) or 'any'})")
    lower = SpecifierSet(",".join(str(e) for e in allowed if e.operator in _LOWER_BOUNDS))
    if lower.contains(parsed, prereleases=True):
        text = f"{stand_in}{version} is newer than the tested {ordered(allowed)}"
        return Finding(requirement.name, "warning", text, f"should anything fail: {repair}")
    text = f"{stand_in}{version} is too old, needed is {ordered(allowed)}"
    return Finding(requirement.name, "problem", text, repair)


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found |= {
                key: version or _DAMAGED for key, version in installed_versions([name]).items()
            }
        except Exception:  # metadata can be damaged in any way
            found[name] = _DAMAGED
    return found


def _asked(requirement: Requirement, name: str = "") -> str:
    return shlex.quote(f"{name or requirement.name}{ordered(requirement.specifier)}")

"""All checks together, packages that load meanwhile."""

import importlib.util
import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgeseg.inspection.health import places, probes, resources
from edgeseg.inspection.health.findings import Finding, guarded

QUICK_WAIT_S = 3.0
"""Seconds that a package may take to load; PyTorch takes 1 to 8."""
THOROUGH_WAIT_S = 300.0

MODULE_OF = {
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
}
"""Package -> its module, where the two are called differently."""

LOADED_ALWAYS = ("opencv-python-headless", "onnxruntime", "safetensors", "torch", "openvino")
"""Packages with libraries that break, or with devices; all others are loaded if it is thorough."""

_WITHOUT_DEVELOPMENT = "dev"


def examine(thorough: bool = False, wait_s: float | None = None) -> list[Finding]:
    """Look at everything.

    Args:
        thorough: Load every package and compare all models with their hashes, however long it
            takes.
        wait_s: Seconds a package may take to load; default: 3, or 300 if it is thorough.

    Returns:
        A finding a check; none of them raises.
    """
    limit_s = wait_s or (THOROUGH_WAIT_S if thorough else QUICK_WAIT_S)
    commands = dict.fromkeys(LOADED_ALWAYS, "")
    findings = guarded("packages", lambda: _check_versions(commands))
    with ThreadPoolExecutor(1) as pool:
        chosen = {name: commands[name] for name in commands if thorough or name in LOADED_ALWAYS}
        loading = pool.submit(_load, chosen, limit_s, thorough)
        elsewhere = guarded("this machine", _check_machine)
        elsewhere += guarded("models", lambda: places.check_models(thorough))
        findings += guarded("packages that load", lambda: _judge(loading, chosen, limit_s))
    return findings + elsewhere


def _check_versions(commands: dict[str, str]) -> Iterator[Finding]:
    """Check versions, and note the command that installs each package again."""
    from edgeseg.inspection.health import installed  # needs packaging, which may be what is broken

    declared, about_edgeseg = installed.read_declared()
    yield about_edgeseg
    yield installed.check_python(declared)
    yield from installed.check_packages(declared)
    for extra, requirements in {"": declared.base, **declared.extras}.items():
        if extra != _WITHOUT_DEVELOPMENT:
            commands.update({each.name: installed.reinstall(each) for each in requirements})


def _check_machine() -> Iterator[Finding]:
    group = resources.read_control_group()
    yield resources.check_cores(*resources.usable_cores(), group)
    yield resources.check_memory(group=group)
    yield places.check_disk("working folder", Path.cwd(), "runs and exports")
    yield places.check_temporary_files()
    yield places.check_data()


def _load(commands: Mapping[str, str], wait_s: float, thorough: bool) -> dict[str, probes.Loaded]:
    """Load the packages that are there, by package."""
    modules = {name: MODULE_OF.get(name, name.replace("-", "_")) for name in commands}
    present = {name: module for name, module in modules.items() if _is_there(module)}
    at_once = resources.usable_cores()[0] if thorough else max(1, len(present))
    loaded = probes.load_all(list(present.values()), wait_s, at_once)
    return dict(zip(present, loaded, strict=True))


def _judge(
    loading: "Future[dict[str, probes.Loaded]]", commands: Mapping[str, str], wait_s: float
) -> Iterator[Finding]:
    for package, loaded in loading.result().items():
        by_name = f"python -m pip install --force-reinstall {shlex.quote(package)}"
        yield probes.judge(loaded, package, commands[package] or by_name, wait_s)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package above it is absent, or half imported
        return False

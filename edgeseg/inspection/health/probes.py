"""Packages loaded in processes of their own, with a time limit: do they work, and on what?"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgeseg.inspection.health.findings import Finding
from edgeseg.inspection.health.import_probe import MARK

NVIDIA_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
"""Files of NVIDIA's driver for Linux, on servers and on Jetson."""

_PROGRAM = Path(__file__).with_name("import_probe.py")


@dataclass(frozen=True)
class Loaded:
    """What became of loading one package.

    Attributes:
        module: Its name.
        error: Why it cannot be loaded; empty if it can.
        timed_out: Whether it was still loading when the time was over.
        devices: What it can compute on.
        missing: What it was built for and cannot use here.
        warnings: What it warned about.
    """

    module: str
    error: str = ""
    timed_out: bool = False
    devices: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def load_all(modules: Sequence[str], wait_s: float, at_once: int) -> list[Loaded]:
    """Load modules, each in a process of its own.

    Args:
        modules: Names to import.
        wait_s: Seconds that one may take.
        at_once: How many processes may run at the same time.
    """
    if not modules:
        return []
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(partial(load, wait_s=wait_s), modules))


def load(module: str, wait_s: float) -> Loaded:
    """Load one module in a process of its own.

    Args:
        module: Its name.
        wait_s: Seconds until the process is ended.
    """
    command = [sys.executable, "-P", str(_PROGRAM), module]  # -P: no folder shadows a package
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=wait_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Loaded(module, timed_out=True)
    except OSError as error:
        return Loaded(module, f"no process could be started: {error}")
    answers = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
    if not answers:
        return Loaded(module, _end_of(run))
    answer = json.loads(answers[-1].removeprefix(MARK))
    if "error" in answer:
        return Loaded(module, " ".join(answer["error"].split()))
    return Loaded(
        module,
        devices=tuple(answer["devices"]),
        missing=tuple(answer["missing"]),
        warnings=tuple(answer["warnings"]),
    )


def judge(loaded: Loaded, package: str, repair: str, wait_s: float) -> Finding:
    """Return the finding about a package that was loaded.

    Args:
        loaded: What became of it.
        package: How it is called where it is installed from.
        repair: Command that installs it again.
        wait_s: Seconds it was given.
    """
    check = f"{package} works"
    if loaded.timed_out:
        text = f"still loading after {wait_s:g} s, not waited for"
        if loaded.module == "torch" and not has_nvidia_driver() and sys.platform != "darwin":
            text += "; there is no NVIDIA driver, so it computes on the processor"
        return Finding(check, "warning", text, "edgeseg doctor --wait-s 60")
    if loaded.error:
        return Finding(check, "problem", f"cannot be loaded: {_shortened(loaded.error)}", repair)
    found = f"on {', '.join(loaded.devices)}" if loaded.devices else "loads"
    if loaded.missing and (has_nvidia_driver() or loaded.module == "onnxruntime"):
        why = f": {_shortened(loaded.warnings[0])}" if loaded.warnings else ""
        text = f"{found}; built for {', '.join(loaded.missing)} but cannot use it{why}"
        advice = "the versions of the driver, CUDA and cuDNN must be those the package asks for"
        return Finding(check, "warning", text, advice)
    if _lacks_cuda(loaded):
        advice = {
            "torch": "choose a build with CUDA at https://pytorch.org/get-started/locally",
            "onnxruntime": (
                "python -m pip uninstall -y onnxruntime && python -m pip install onnxruntime-gpu"
            ),
        }[loaded.module]
        text = f"{found}; there is an NVIDIA driver, but this build has no CUDA"
        return Finding(check, "warning", text, advice)
    return Finding(check, "ok", found)


def has_nvidia_driver() -> bool:
    """Return whether there is an NVIDIA driver; a graphics card alone does not show."""
    return any(path.exists() for path in NVIDIA_DRIVERS) or shutil.which("nvidia-smi") is not None


def _lacks_cuda(loaded: Loaded) -> bool:
    if loaded.module not in ("torch", "onnxruntime") or not has_nvidia_driver():
        return False
    return not any("cuda" in device.lower() for device in loaded.devices)


def _end_of(run: "subprocess.CompletedProcess[str]") -> str:
    """Return how a process ended that gave no answer."""
    last = (run.stderr.strip().splitlines() or ["no message"])[-1]
    if run.returncode >= 0:
        return f"the process ended with status {run.returncode}: {last}"
    try:
        name = signal.Signals(-run.returncode).name
    except ValueError:
        name = f"signal {-run.returncode}"
    return f"the process was ended by {name}: {last}"


def _shortened(text: str, longest: int = 200) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"

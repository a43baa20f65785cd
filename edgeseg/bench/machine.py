"""What a measurement ran on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from edgeseg.versions import installed_versions

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def describe_machine(packages: Sequence[str] = ()) -> dict[str, str | int | float]:
    """Return processor, usable cores, clocks, memory, operating system and versions.

    What cannot be read here is left out.

    Args:
        packages: Distributions whose versions matter; one that is not installed is left out.
    """
    return {
        "processor": processor_name(),
        "num_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        **clocks(),
        **memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **installed_versions(packages),
    }


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the processor's name as the kernel tells it, else its architecture."""
    found = _field(cpu_info, "model name")
    return found or platform.processor() or platform.machine()


def clocks(folder: Path = CLOCKS, cpu_info: Path = CPU_INFO) -> dict[str, str | float]:
    """Return the clock limits and the governor of the first core, or its clock right now.

    Returns:
        "clock_max_ghz" and "governor" where the kernel scales clocks, "clock_now_ghz" where it only
        tells the present one, as in virtual machines, and nothing elsewhere.
    """
    try:
        highest = int((folder / "cpuinfo_max_freq").read_text("ascii"))
        governor = (folder / "scaling_governor").read_text("ascii").strip()
    except (OSError, ValueError):
        now = _field(cpu_info, "cpu MHz")
        return {"clock_now_ghz": round(float(now) / 1e3, 3)} if now else {}
    return {"clock_max_ghz": highest / 1e6, "governor": governor}


def memory(info: Path = MEMORY_INFO) -> dict[str, float]:
    """Return "memory_gb", the size of the main memory in GB (1e9 bytes), where it can be read."""
    total = _field(info, "MemTotal")
    return {"memory_gb": round(int(total.split()[0]) * 1024 / 1e9, 1)} if total else {}


def _field(path: Path, key: str) -> str:
    """Return the first value of a key in lines of the form `key : value`, or nothing."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key and value.strip():
            return value.strip()
    return ""

"""What a measurement ran on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from edgeseg.versions import installed_versions


def describe_machine(packages: Sequence[str] = ()) -> dict[str, str | int]:
    """Return processor, usable cores, operating system and versions, for the head of a result.

    Args:
        packages: Distributions whose versions matter; one that is not installed is left out.
    """
    return {
        "processor": processor_name(),
        "num_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        **installed_versions(packages),
    }


def processor_name(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as the kernel tells it, else its architecture."""
    try:
        lines = cpu_info.read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()

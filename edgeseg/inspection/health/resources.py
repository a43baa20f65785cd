"""What this process may use of the machine: cores and memory, with the limits of containers."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from edgeseg.inspection.health.findings import Finding

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMORY_INFO = Path("/proc/meminfo")

LITTLE_MEMORY_BYTES = 10**9
"""Running a model by ONNX Runtime takes 0.2 to 0.3 GB at its peak, by PyTorch about 1 GB."""


@dataclass(frozen=True)
class ControlGroup:
    """Limits that a container or a service manager sets for this process.

    Attributes:
        cores: Processor time a second of time, in cores; None without a limit.
        memory_bytes: None without a limit.
    """

    cores: float | None
    memory_bytes: int | None


def read_control_group(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> ControlGroup:
    """Return the tightest limits of the groups of this process, of either version of the interface.

    Args:
        groups: Where the kernel shows the groups.
        membership: File with the groups of this process.
    """
    cores: list[float] = []
    memory: list[int] = []
    for folder in _folders(groups, membership):
        quota, period = _cpu_time(folder)
        if quota > 0 and period > 0:
            cores.append(quota / period)
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_text(folder / name))
            if 0 < limit < 2**60:  # version 1 writes a number near 2**63 for no limit
                memory.append(limit)
    return ControlGroup(min(cores, default=None), min(memory, default=None))


def check_cores(affinity: int, total: int, group: ControlGroup) -> Finding:
    """Say how many cores can be used.

    Args:
        affinity: Cores this process may run on.
        total: Cores the machine has.
        group: Limits of the container.
    """
    found = f"{affinity} of {total}" if affinity != total else str(total)
    if group.cores is None or group.cores >= affinity:
        return Finding("processor cores", "ok", f"{found} ({platform.machine()})")
    threads = max(1, int(group.cores))
    return Finding(
        "processor cores",
        "warning",
        f"{found}, but the time of {group.cores:g} cores at most: a limit of the container; more "
        "threads than that make everything slower",
        f"give --threads {threads} where there is such an option; set OMP_NUM_THREADS={threads}",
    )


def usable_cores() -> tuple[int, int]:
    """Return the cores this process may run on, and those of the machine."""
    total = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return affinity, total


def check_memory(info: Path = MEMORY_INFO, group: ControlGroup | None = None) -> Finding:
    """Say how much memory there is.

    Args:
        info: The kernel's file about it; elsewhere the size alone can be read.
        group: Limits of the container; default: this process's.
    """
    group = group or read_control_group()
    sizes = _memory_sizes(info)
    total = sizes.get("MemTotal") or _physical_memory()
    if total is None:
        return Finding("memory", "ok", "its size cannot be read on this system")
    limit = min(total, group.memory_bytes or total)
    available = min(limit, sizes.get("MemAvailable", limit))
    found = f"{total / 1e9:.1f} GB"
    if limit < total:
        found += f", of which the container may use {limit / 1e9:.1f} GB"
    if "MemAvailable" in sizes:
        found += f", {available / 1e9:.1f} GB free"
    if available < LITTLE_MEMORY_BYTES:
        return Finding("memory", "warning", found, "close other programs, or use a larger machine")
    return Finding("memory", "ok", found)


def _folders(groups: Path, membership: Path) -> list[Path]:
    """Return the folders with limits of this process, those of the groups above it too."""
    folders = [groups, groups / "cpu", groups / "cpu,cpuacct", groups / "memory"]
    for line in _text(membership).splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        root = groups / controllers if controllers else groups
        own = root / path.strip().lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return list(dict.fromkeys(folders))


def _cpu_time(folder: Path) -> tuple[int, int]:
    """Return quota and period of processor time in microseconds; 0 where there is no limit."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if quota:
        return _number(quota), _number(period)
    return _number(_text(folder / "cpu.cfs_quota_us")), _number(_text(folder / "cpu.cfs_period_us"))


def _memory_sizes(info: Path) -> dict[str, int]:
    """Return sizes in bytes by the kernel's names."""
    rows = (line.split() for line in _text(info).splitlines())
    return {
        row[0].rstrip(":"): 1024 * int(row[1]) for row in rows if row[1:2] and row[1].isdecimal()
    }


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int:
    """Return a count; 0 for "max", a negative number or nothing."""
    return int(text) if text.strip().isdecimal() else 0

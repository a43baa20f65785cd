"""From nothing to the first mask: one contender in a process of its own.

    python -m edgeseg.bench.cold_start

reads a request as JSON from standard input and writes the figures as JSON to standard output.
"""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeseg.bench.results import ColdStart
from edgeseg.errors import BenchError

_TIME_LIMIT_S = 1800.0
_MB = 1e6
STATUS = Path("/proc/self/status")
"""Where Linux tells the sizes of a process."""


def measure_cold_start(
    label: str, driver: str, model: str, image_size: int | None, threads: int, photo: Path
) -> ColdStart:
    """Start a contender in a fresh process.

    Args:
        label: Of the contender.
        driver: "pytorch", or a backend of `edgeseg.load`.
        model: The exported folder; for PyTorch a model's name or weight file.
        image_size: Side of the input, for PyTorch only.
        threads: Threads of one call.
        photo: The image file.

    Raises:
        BenchError: The process failed.
    """
    request = {
        "driver": driver,
        "model": model,
        "image_size": image_size,
        "threads": threads,
        "photo": str(photo),
    }
    command = [sys.executable, "-P", "-m", "edgeseg.bench.cold_start"]  # not a clone nearby
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(
            f"{label} did not start within {_TIME_LIMIT_S:.0f} s; leave cold_start out of the suite"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{label} cannot be started in a process of its own: {last}")
    return ColdStart(label=label, **json.loads(done.stdout.splitlines()[-1]))


def _start(request: dict[str, Any]) -> dict[str, float]:
    """Import, load, and segment twice; return the figures of `ColdStart`."""
    times = [time.perf_counter()]
    from edgeseg.bench.calls import segment_file

    if request["driver"] == "pytorch":
        from edgeseg.bench.pytorch_driver import open_segmenter

        times.append(time.perf_counter())
        base_mb = resident_mb()
        segmenter = open_segmenter(request["model"], request["image_size"], request["threads"])
    else:
        import edgeseg

        _import_runner(request["driver"])
        times.append(time.perf_counter())
        base_mb = resident_mb()
        segmenter = edgeseg.load(request["model"], request["driver"], request["threads"])
    times.append(time.perf_counter())
    for _ in range(2):
        segment_file(segmenter, Path(request["photo"]))
        times.append(time.perf_counter())
    import_ms, load_ms, first_ms, second_ms = (
        1e3 * (after - before) for before, after in pairwise(times)
    )
    return {
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_call_ms": first_ms,
        "second_call_ms": second_ms,
        "peak_memory_mb": peak_mb(),
        "base_memory_mb": base_mb,
    }


def _import_runner(driver: str) -> None:
    """Import what the runtime would import at its first use, so that it counts as importing."""
    if driver.startswith("openvino"):
        import edgeseg.runtime.openvino_backend
    elif driver.startswith("coreml"):
        import edgeseg.runtime.coreml_backend
    else:
        import edgeseg.runtime.onnx_backend  # noqa: F401


def resident_mb(status: Path = STATUS) -> float:
    """Return the resident size of this process, in MB; its peak where only that is known."""
    return _status_mb(status, "VmRSS") or peak_mb(status)


def peak_mb(status: Path = STATUS) -> float:
    """Return the largest resident size of this process so far, in MB.

    Linux hands the `ru_maxrss` of the process that started this one on to it, so it is not asked.
    """
    found = _status_mb(status, "VmHWM")
    if found:
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak * 1024 / _MB


def _status_mb(status: Path, key: str) -> float:
    """Return a size from the kernel's description of this process, zero if it has none."""
    try:
        lines = status.read_text("ascii").splitlines()
    except OSError:
        return 0.0
    sizes = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(sizes[0]) * 1024 / _MB if sizes else 0.0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_start(json.load(sys.stdin))) + "\n")

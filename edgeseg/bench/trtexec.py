"""NVIDIA GPUs through `trtexec`, the tool of TensorRT that builds an engine and times it."""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgeseg.bench.driver import Request, ToolReport
from edgeseg.bench.results import Document, Measurement
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.tool import ToolOutput, run_tool
from edgeseg.bench.tool_request import (
    Arguments,
    FileCall,
    measure_each,
    plan_calls,
    read_files,
    read_options,
    report_of,
)
from edgeseg.errors import BenchError
from edgeseg.export_manifest import ExportManifest

JETSON_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack and NVIDIA's packages install it, outside PATH."""
PRECISION_FLAGS = {
    "float32": "--noTF32",
    "tf32": "",
    "float16": "--fp16",
    "int8": "--int8",
    "best": "--best",
    "as_exported": "--stronglyTyped",
}
"""What each value of the option `precision` passes; the last keeps the types of the file itself."""

Precision = Literal["float32", "tf32", "float16", "int8", "best", "as_exported"]


class TrtexecOptions(Document):
    """Settings of a contender.

    Attributes:
        precision: What TensorRT may compute in; by default that of the files.
        warmup_ms: Calls within this time do not count, in milliseconds.
        arguments: More for the command line, such as "--useCudaGraph".
        timeout_s: For building and timing one engine, in seconds.
    """

    precision: Precision | None = None
    warmup_ms: int = Field(default=200, ge=0)
    arguments: Arguments = ()
    timeout_s: float = Field(default=1800, gt=0)


@dataclass(frozen=True)
class _Timing:
    """What one run found.

    Attributes:
        samples_ms: Calls that count.
        num_warmup: Calls before them.
        clock: Which of the tool's times this is.
        runs_on: The GPU and the version of TensorRT.
    """

    samples_ms: tuple[float, ...]
    num_warmup: int
    clock: str
    runs_on: str


class TrtexecDriver:
    """Builds an engine of each file and times it; see `edgeseg.bench.driver.ToolDriver`."""

    name = "trtexec"
    about = "TensorRT on an NVIDIA GPU or a Jetson, timed by trtexec"
    target: str | None = "onnx_tensorrt"
    untested = "tested with a simulated trtexec, not yet on a device"

    def unavailable(self) -> str | None:
        """Return why it cannot run here and what to do about it, or None."""
        if _trtexec() is not None:
            return None
        return (
            "trtexec is not on PATH; install TensorRT and add its bin folder to PATH (on a Jetson: "
            "sudo apt install tensorrt)"
        )

    def measure(self, request: Request) -> ToolReport:
        """Run trtexec on the file of each part.

        Raises:
            BenchError: It failed on all of them, or its output is not understood.
            ConfigError: An option is unknown.
            ExportError: The folder holds no ONNX files.
            WeightsError: The folder is damaged.
        """
        tool = _trtexec()
        if tool is None:
            raise BenchError(str(self.unavailable()))
        folder, manifest = read_files(request, "onnx")
        options = read_options(request.contender, TrtexecOptions)
        precision = options.precision or _own_precision(manifest)
        flags = [flag for flag in (PRECISION_FLAGS[precision], *options.arguments) if flag]
        calls, impossible = plan_calls(request, folder, manifest)
        timings: dict[tuple[str, ...], _Timing] = {}

        def measure(call: FileCall) -> Measurement:
            command = (tool, *_command(call, flags, options, request.rounds))
            if command not in timings:  # decoder and decoder@16 can be one call of one file
                timings[command] = _time(command, options.timeout_s, request.rounds.counted)
            found = timings[command]
            return Measurement(
                label=request.contender.label,
                part=call.part,
                samples_ms=found.samples_ms,
                in_turns=False,
                num_warmup=found.num_warmup,
                clock=", ".join(filter(None, (found.clock, call.note))),
            )

        measured, failed = measure_each(calls, request.contender.label, measure)
        places = [timing.runs_on for timing in timings.values()] or ["TensorRT"]
        runs_on = " ".join([places[0], *options.arguments])
        label = _precision_label(precision, manifest)
        return report_of(request, manifest, runs_on, label, measured, (*impossible, *failed))


def _trtexec() -> str | None:
    return shutil.which("trtexec") or shutil.which(JETSON_TRTEXEC)


def _own_precision(manifest: ExportManifest) -> Precision:
    """Return what computes in the types of the files, and no lower."""
    known: tuple[Precision, ...] = ("float32", "float16", "int8")
    return next((each for each in known if each == manifest.precision), "as_exported")


def _precision_label(precision: Precision, manifest: ExportManifest) -> str:
    """Return the precision for the card, with a warning where masks would be wrong."""
    if precision == "as_exported":
        return manifest.precision
    if precision in ("int8", "best") and manifest.precision != "int8":
        return f"{precision}, without calibration: for time only"
    return precision


def _command(
    call: FileCall, flags: Sequence[str], options: TrtexecOptions, rounds: Rounds
) -> list[str]:
    """Return the arguments; open sizes are fixed, and warm-up lasts some time and some calls."""
    shapes = ",".join(
        f"{tensor.name}:{'x'.join(map(str, call.shape(tensor.name)))}"
        for tensor in call.file.inputs
        if any(isinstance(size, str) for size in tensor.shape)
    )
    return [
        f"--onnx={call.path}",
        *([f"--shapes={shapes}"] if shapes else []),
        *flags,
        f"--iterations={rounds.counted + rounds.warmup}",
        f"--warmUp={options.warmup_ms if rounds.warmup else 0}",
        "--duration=0",
        "--useSpinWait",
    ]


def _time(command: Sequence[str], time_limit_s: float, num_counted: int) -> _Timing:
    with tempfile.TemporaryDirectory(prefix="edgeseg-trtexec-") as folder:
        times = Path(folder) / "times.json"
        output = _run((*command, f"--exportTimes={times}"), time_limit_s)
        entries = _read_times(times, output)
    key = "latencyMs" if all("latencyMs" in entry for entry in entries) else "computeMs"
    try:
        samples = tuple(float(entry[key]) for entry in entries)
    except (KeyError, TypeError, ValueError):
        raise _not_understood(f"calls without {key}", output) from None
    counted = samples[-num_counted:]
    clock = f"trtexec {key}" + ("" if key == "latencyMs" else ", without transfers")
    return _Timing(counted, _num_queries(output, len(samples)) - len(counted), clock, _gpu(output))


def _run(command: Sequence[str], time_limit_s: float) -> ToolOutput:
    try:
        return run_tool(command, time_limit_s)
    except BenchError as error:
        if "Unknown option" not in str(error):
            raise
        raise BenchError(
            f"{error}; TensorRT 11 and newer take the precision from the file: export "
            'onnx_fp32, onnx_fp16 or onnx_int8 and set the option precision = "as_exported"'
        ) from error


def _read_times(path: Path, output: ToolOutput) -> list[dict[str, Any]]:
    """Return one entry a call, as `--exportTimes` writes them."""
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise _not_understood("no readable times", output) from None
    if not isinstance(entries, list) or not entries:
        raise _not_understood("no list of calls", output)
    if not all(isinstance(entry, dict) for entry in entries):
        raise _not_understood("no calls by name", output)
    return entries


def _num_queries(output: ToolOutput, num_exported: int) -> int:
    """Return how often it called: older versions export calls that warm up too, newer do not."""
    warmup = re.search(r"Warmup completed (\d+) queries", output.stdout)
    timed = re.search(r"Timing trace has (\d+) queries", output.stdout)
    if warmup is None or timed is None:
        return num_exported
    return max(num_exported, int(warmup[1]) + int(timed[1]))


def _gpu(output: ToolOutput) -> str:
    """Return "<GPU>, TensorRT <version>", as far as it says so."""
    gpu = re.search(r"Selected Device: (.+)", output.stdout)
    version = re.search(r"TensorRT version: (\S+)", output.stdout)
    tensorrt = f"TensorRT {version[1]}" if version else "TensorRT"
    return f"{gpu[1].strip()}, {tensorrt}" if gpu else tensorrt


def _not_understood(found: str, output: ToolOutput) -> BenchError:
    return BenchError(
        f"the times that trtexec exported are not understood: got {found}; it printed last: "
        f"{output.last_lines}; use TensorRT 8.5 or newer"
    )

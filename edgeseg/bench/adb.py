"""Android phones through `adb`: ONNX Runtime's own performance test runs on the phone.

`onnxruntime_perf_test` is not part of any package; it comes with a build of ONNX Runtime for
Android (`./build.sh --android --android_abi arm64-v8a --build_shared_lib`).
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from edgeseg.bench.driver import Request, ToolReport
from edgeseg.bench.perf_test import PerfTestTimes, perf_test_arguments, read_perf_test
from edgeseg.bench.results import Document, Measurement
from edgeseg.bench.tool import run_tool
from edgeseg.bench.tool_request import (
    Arguments,
    FileCall,
    measure_each,
    plan_calls,
    read_files,
    read_options,
    report_of,
)
from edgeseg.errors import BenchError, ConfigError

PHONE_FOLDER = "/data/local/tmp/edgeseg"
"""Where files lie on the phone while it measures; the shell may execute programs there."""
_LIBRARIES = ("libonnxruntime.so", "libonnxruntime_providers_*.so", "libc++_shared.so")
_PHONE = re.compile(r"^(\S.*?)(?:\t|  +)(\S.*)$", re.MULTILINE)
"""A line of `adb devices`: serial number and state."""
_QUICK_S = 30.0
_PUSH_S = 600.0
_RESULT = "times.csv"
_PID = "pid"
_ADVICE = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "authorizing": "unlock it and allow USB debugging for this computer",
    "offline": "plug it in again, or run: adb kill-server",
    "no permissions": "give this user access to USB (udev rules; on Debian and Ubuntu: sudo apt "
    "install android-sdk-platform-tools-common)",
}


class AdbOptions(Document):
    """Settings of a contender.

    Attributes:
        perf_test: `onnxruntime_perf_test` built for the phone, with its libraries beside it.
        serial: Which phone, as `adb devices` names it; needed if there are several.
        provider: Execution provider, as the tool names it: "cpu", "xnnpack", "nnapi", "qnn".
        arguments: More for the tool's command line.
        timeout_s: For timing one file, in seconds.
    """

    perf_test: Path
    serial: str = ""
    provider: str = Field(default="cpu", pattern="^[a-z]+$")
    arguments: Arguments = ()
    timeout_s: float = Field(default=600, gt=0)


class AdbDriver:
    """Runs each file on a phone; see `edgeseg.bench.driver.ToolDriver`."""

    name = "adb"
    about = "ONNX Runtime on an Android phone, timed by onnxruntime_perf_test through adb"
    target: str | None = "onnx_fp32"
    untested = "tested with a simulated adb and phone, not yet on a device"

    def unavailable(self) -> str | None:
        """Return why it cannot run here and what to do about it, or None."""
        if shutil.which("adb") is None:
            return (
                "adb is not on PATH; install Android's platform tools (on Debian and Ubuntu: sudo "
                "apt install adb)"
            )
        try:
            states = _phones()
        except BenchError as error:
            return str(error)
        if "device" in states.values():
            return None
        if not states:
            return "no phone is connected; plug one in and switch on USB debugging"
        return "; ".join(_why_not_ready(serial, state) for serial, state in states.items())

    def measure(self, request: Request) -> ToolReport:
        """Run the performance test on the file of each part.

        Raises:
            BenchError: There is no phone, all files failed on it, or the tool's output is not
                understood.
            ConfigError: An option is unknown or missing, or does not say which phone.
            ExportError: The folder holds no ONNX files.
            WeightsError: The folder is damaged.
        """
        reason = self.unavailable()
        if reason is not None:
            raise BenchError(reason)
        folder, manifest = read_files(request, "onnx")
        options = read_options(request.contender, AdbOptions)
        perf_test = options.perf_test.expanduser()
        if not perf_test.is_file():
            raise ConfigError(
                f"the option perf_test is no file, got {perf_test}; give the path of "
                "onnxruntime_perf_test built for the phone"
            )
        phone = _Phone(_choose(_phones(), options.serial))
        calls, impossible = plan_calls(request, folder, manifest)
        label = request.contender.label
        models = {call.path.name: call.path for call in calls}
        with phone.holding([perf_test, *_libraries(perf_test), *models.values()]):
            phone.shell(f"chmod 755 {PHONE_FOLDER}/{shlex.quote(perf_test.name)}")

            def measure(call: FileCall) -> Measurement:
                arguments = perf_test_arguments(
                    call.open_sizes, request.rounds, request.threads, options.provider
                )
                command = [perf_test.name, *arguments, *options.arguments]
                times = _run(phone, command, call.path.name, options.timeout_s)
                return times.measurement(label, call.part, request.rounds, call.note)

            measured, failed = measure_each(calls, label, measure)
            words = (
                phone.description() + ",",
                "ONNX Runtime",
                options.provider,
                *options.arguments,
            )
        runs_on = " ".join(words)
        missing = (*impossible, *failed)
        return report_of(request, manifest, runs_on, manifest.precision, measured, missing)


@dataclass(frozen=True)
class _Phone:
    """A phone that is ready.

    Attributes:
        serial: As `adb devices` names it.
    """

    serial: str

    def adb(self, *arguments: str, time_limit_s: float = _QUICK_S) -> str:
        """Run adb on this phone and return what it printed."""
        return run_tool(["adb", "-s", self.serial, *arguments], time_limit_s).stdout

    def shell(self, command: str, time_limit_s: float = _QUICK_S) -> str:
        """Run a line in the phone's shell and return what it printed."""
        return self.adb("shell", command, time_limit_s=time_limit_s)

    @contextmanager
    def holding(self, files: list[Path]) -> Iterator[None]:
        """Push files into `PHONE_FOLDER`, and remove them and the folder afterwards."""
        names = [shlex.quote(name) for name in (_RESULT, _PID, *(file.name for file in files))]
        try:
            self.shell(f"mkdir -p {PHONE_FOLDER}")
            for file in files:
                self.adb("push", str(file), f"{PHONE_FOLDER}/{file.name}", time_limit_s=_PUSH_S)
            yield
        finally:
            with suppress(BenchError):  # the phone may be gone; what was measured counts
                self.shell(f"cd {PHONE_FOLDER} && rm -f {' '.join(names)}")
                self.shell(f"rmdir {PHONE_FOLDER}")

    def description(self) -> str:
        """Return model, chip and Android version, as far as the phone says so."""
        chip = self._property("ro.soc.model") or self._property("ro.board.platform")
        version = self._property("ro.build.version.release")
        known = (self._property("ro.product.model"), chip, version and f"Android {version}")
        return ", ".join(filter(None, known)) or "an Android phone"

    def _property(self, name: str) -> str:
        return self.shell(f"getprop {name}").strip()


def _run(phone: _Phone, command: list[str], model: str, time_limit_s: float) -> PerfTestTimes:
    """Run the tool on the phone; what runs there is stopped when the time is up."""
    line = shlex.join([f"./{command[0]}", *command[1:], f"{PHONE_FOLDER}/{model}", _RESULT])
    start = f"cd {PHONE_FOLDER} && rm -f {_RESULT} && echo $$ > {_PID}"
    try:
        printed = phone.shell(f"{start} && export LD_LIBRARY_PATH=. && exec {line}", time_limit_s)
    except BenchError:
        with suppress(BenchError):
            phone.shell(f"kill -9 $(cat {PHONE_FOLDER}/{_PID})")
        raise
    return read_perf_test(printed, phone.shell(f"cat {PHONE_FOLDER}/{_RESULT} || true"))


def _phones() -> dict[str, str]:
    """Return the state of each connected phone, by serial number."""
    printed = run_tool(["adb", "devices"], _QUICK_S).stdout
    return {line[1]: line[2].strip() for line in _PHONE.finditer(printed)}


def _why_not_ready(serial: str, state: str) -> str:
    advice = next(
        (text for beginning, text in _ADVICE.items() if state.startswith(beginning)),
        "start it normally",
    )
    return f"the phone {serial} is not ready, its state is {state!r}; {advice}"


def _choose(states: dict[str, str], serial: str) -> str:
    """Return the serial number of the phone to use.

    Raises:
        ConfigError: There are several and none was chosen, or the chosen one is not ready.
    """
    ready = [each for each, state in states.items() if state == "device"]
    if serial:
        if serial in ready:
            return serial
        raise ConfigError(
            f"the phone {serial!r} is not ready, its state is {states.get(serial, 'absent')!r}; "
            f"ready: {', '.join(ready)}"
        )
    if len(ready) > 1:
        raise ConfigError(
            f"{len(ready)} phones are connected, {', '.join(ready)}; choose one with the option "
            "serial"
        )
    return ready[0]


def _libraries(perf_test: Path) -> list[Path]:
    """Return the libraries beside the tool that it may need."""
    return [file for pattern in _LIBRARIES for file in sorted(perf_test.parent.glob(pattern))]

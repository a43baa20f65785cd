"""Core ML on a Mac or a connected iPhone, timed by coremltools' own benchmark.

Beside the times, Core ML's compute plan tells which share of a file's operations, and of their
estimated cost, each compute unit is meant to take.
"""

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from edgeseg.bench.coreml_kit import (
    Benchmarker,
    CoreMLKit,
    Inputs,
    Phone,
    compute_unit_shares,
    first_line,
    load_kit,
    random_inputs,
)
from edgeseg.bench.driver import Request, ToolReport
from edgeseg.bench.results import Document, Measurement
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.tool_request import (
    FileCall,
    measure_each,
    plan_calls,
    read_files,
    read_options,
    report_of,
)
from edgeseg.errors import BenchError, ConfigError, EdgesegError

_UNTESTED = "tested with a simulated coremltools, not yet on a device"
_TOOLS = {
    "xcodebuild": "install Xcode from the App Store and open it once",
    "devicectl": 'run: export PATH="$PATH:$(dirname "$(xcrun -f devicectl)")"',
}
"""What coremltools looks for on PATH before it talks to a phone, and what to do without."""


class CoreMLOptions(Document):
    """Settings of a contender.

    Attributes:
        compute_units: What Core ML may use; "ne" is the Neural Engine.
    """

    compute_units: Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"] = "all"


class IPhoneOptions(CoreMLOptions):
    """Settings of a contender; an app is built, signed and installed on the phone.

    Attributes:
        called: What the phone is called in results, such as "iPhone 14".
        udid: Which phone; needed if there are several.
        development_team: Team that signs the app, from Apple's developer account.
        provisioning_profile_uuid: Profile that signs it, instead of a team.
        bundle_identifier: The app's, which must be that of the profile.
    """

    called: str = Field(default="iPhone", min_length=1)
    udid: str = ""
    development_team: str = ""
    provisioning_profile_uuid: str | None = None
    bundle_identifier: str | None = None


@dataclass(frozen=True)
class _Timing:
    """What the benchmark of one file found: times, and what runs where."""

    samples_ms: tuple[float, ...]
    shares: str


class CoreMLBenchmarkDriver:
    """Runs packages on this Mac; see `edgeseg.bench.driver.ToolDriver`.

    Args:
        load_tools: Imports what is needed of coremltools.
    """

    name = "coreml:benchmark"
    about = "Core ML on this Mac, timed by coremltools, with the share of each compute unit"
    target: str | None = "coreml_fp16"
    untested = _UNTESTED

    def __init__(self, load_tools: Callable[[], CoreMLKit] = load_kit) -> None:
        self._load_tools = load_tools

    def unavailable(self) -> str | None:
        """Return why it cannot run here and what to do about it, or None."""
        return _why_no_coreml()

    def measure(self, request: Request) -> ToolReport:
        """Time the package of each part.

        Raises:
            BenchError: Core ML is not here, or coremltools failed on all packages.
            ConfigError: An option is unknown.
            ExportError: The folder holds no Core ML packages.
            WeightsError: The folder is damaged.
        """
        reason = self.unavailable()
        if reason is not None:
            raise BenchError(reason)
        options = read_options(request.contender, CoreMLOptions)
        return _measure(request, self._load_tools(), options, "this Mac", None)


class IPhoneDriver:
    """Runs packages on a connected iPhone; see `edgeseg.bench.driver.ToolDriver`.

    coremltools sends arrays to a phone, not images. So the pixels of the encoder come as numbers.

    Args:
        load_tools: Imports what is needed of coremltools.
    """

    name = "iphone"
    about = "Core ML on a connected iPhone, timed by coremltools' remote device"
    target: str | None = "coreml_fp16"
    untested = _UNTESTED

    def __init__(self, load_tools: Callable[[], CoreMLKit] = load_kit) -> None:
        self._load_tools = load_tools

    def unavailable(self) -> str | None:
        """Return why it cannot run here and what to do about it, or None."""
        reason = _why_no_coreml()
        if reason is not None:
            return reason
        for tool, advice in _TOOLS.items():
            if shutil.which(tool) is None:
                return f"{tool} is not on PATH, which coremltools needs; {advice}"
        try:
            phones = _connected(self._load_tools())
        except EdgesegError as error:
            return str(error)
        if phones:
            return None
        return (
            "no iPhone is connected; plug one in, unlock it, trust this Mac and switch on its "
            "developer mode"
        )

    def measure(self, request: Request) -> ToolReport:
        """Install coremltools' app on the phone and time the package of each part there.

        Raises:
            BenchError: There is no phone, the app cannot be installed, or all packages failed.
            ConfigError: An option is unknown, or does not say which phone.
            ExportError: The folder holds no Core ML packages.
            WeightsError: The folder is damaged.
        """
        reason = self.unavailable()
        if reason is not None:
            raise BenchError(reason)
        options = read_options(request.contender, IPhoneOptions)
        kit = self._load_tools()
        phone = _choose(_connected(kit), options.udid)
        where = f"{options.called}, iOS {phone.os_version}"
        credentials = kit.credentials(
            development_team=options.development_team,
            provisioning_profile_uuid=options.provisioning_profile_uuid,
            bundle_identifier=options.bundle_identifier,
        )
        try:
            ready = asyncio.run(phone.prepare_for_model_debugging(credentials=credentials))
        except Exception as error:  # coremltools passes on whatever Xcode says
            raise BenchError(
                f"cannot install coremltools' app on {where}: {first_line(error)}; sign it with "
                "the option development_team, and trust the developer on the phone (Settings, "
                "General, VPN & Device Management)"
            ) from error
        try:
            return _measure(request, kit, options, where, ready)
        finally:
            ready.session.stop()


def _measure(
    request: Request, kit: CoreMLKit, options: CoreMLOptions, where: str, phone: Phone | None
) -> ToolReport:
    folder, manifest = read_files(request, "coreml")
    calls, impossible = plan_calls(request, folder, manifest)
    label, shares = request.contender.label, {}

    def measure(call: FileCall) -> Measurement:
        model = kit.open_model(call.path, options.compute_units, phone is not None)
        inputs = random_inputs(call.file, manifest.image_size, as_image=phone is None)
        try:
            benchmark = kit.benchmarker(model=model, device=phone)
            found = asyncio.run(_benchmark(benchmark, inputs, request.rounds))
        except Exception as error:  # coremltools passes on whatever Core ML and devicectl say
            raise BenchError(
                f"coremltools cannot time {call.path.name} on {where}: {first_line(error)}; try "
                "other compute_units, or export again"
            ) from error
        shares[call.file.role] = found.shares
        clock = "Core ML's predict, timed by coremltools"
        if phone is not None and call.file.role == "encoder":
            clock += ", pixels given as numbers instead of an image"
        return Measurement(
            label=label,
            part=call.part,
            samples_ms=found.samples_ms,
            in_turns=False,
            num_warmup=request.rounds.warmup,
            clock=", ".join(filter(None, (clock, call.note))),
        )

    measured, failed = measure_each(calls, label, measure)
    each = [f"{role}: {share}" for role, share in shares.items()]
    runs_on = "; ".join([f"{where}, compute units {options.compute_units}", *each])
    missing = (*impossible, *failed)
    return report_of(request, manifest, runs_on, manifest.precision, measured, missing)


async def _benchmark(benchmark: Benchmarker, inputs: Inputs, rounds: Rounds) -> _Timing:
    """Time a model, and ask for its compute plan."""
    calls = rounds.warmup + rounds.counted
    try:
        found = await benchmark.benchmark_predict(inputs=inputs, iterations=calls, warmup=False)
        shares = await _shares(benchmark, inputs)
    finally:
        # Without this the model stays on the phone: its own clean-up comes after this event loop.
        if benchmark._loaded_model is not None:
            with suppress(Exception):
                await benchmark._loaded_model.unload()
    return _Timing(tuple(found.samples[rounds.warmup :]), shares)


async def _shares(benchmark: Benchmarker, inputs: Inputs) -> str:
    """Return what runs where; older systems do not tell, and times are worth keeping then too."""
    try:
        operations = await benchmark.benchmark_operation_execution(inputs=inputs, iterations=1)
    except Exception as error:
        return f"compute plan unknown ({first_line(error)})"
    return compute_unit_shares(operations)


def _why_no_coreml() -> str | None:
    if sys.platform != "darwin":
        return f"Core ML runs on macOS, this is {sys.platform}; run the suite on a Mac"
    if importlib.util.find_spec("coremltools") is None:
        return "coremltools is not installed; run: pip install 'edgeseg[export]'"
    return None


def _connected(kit: CoreMLKit) -> list[Phone]:
    try:
        return kit.connected_iphones()
    except Exception as error:  # coremltools passes on whatever devicectl says
        raise BenchError(
            f"coremltools cannot list iPhones: {first_line(error)}; check what `xcrun devicectl "
            "list devices` says"
        ) from error


def _choose(phones: list[Phone], udid: str) -> Phone:
    """Return the phone to use.

    Raises:
        ConfigError: There are several and none was chosen, or the chosen one is not connected.
    """
    connected = ", ".join(phone.udid for phone in phones)
    chosen = [phone for phone in phones if udid in ("", phone.udid)]
    if not chosen:
        raise ConfigError(f"no iPhone {udid!r} is connected; connected: {connected}")
    if len(chosen) > 1:
        raise ConfigError(
            f"{len(chosen)} iPhones are connected, {connected}; choose one with the option udid"
        )
    return chosen[0]

"""Run a suite: open what runs here, time it in turns, let tools measure, say what is missing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgeseg.bench.cold_start import measure_cold_start
from edgeseg.bench.counts import count_network
from edgeseg.bench.driver import CallDriver, Driver, Opened, Request, ToolDriver
from edgeseg.bench.machine import describe_machine
from edgeseg.bench.preparing import exported_folder
from edgeseg.bench.results import BenchResult, ColdStart, ContenderCard, Measurement, Missing
from edgeseg.bench.runtime_driver import RuntimeDriver
from edgeseg.bench.stopwatch import measure_in_turns
from edgeseg.bench.suite import ContenderConfig, SuiteConfig
from edgeseg.errors import BenchError, ConfigError, EdgesegError

PACKAGES = ("edgeseg", "onnxruntime", "openvino", "torch", "coremltools")
"""Whose versions stand in a result."""


@dataclass
class _Run:
    """What has been found so far."""

    cards: list[ContenderCard] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def lacks(self, label: str, reason: object) -> None:
        self.missing.append(Missing(label=label, reason=str(reason)))

    def result(self, suite: SuiteConfig) -> BenchResult:
        order = [contender.label for contender in suite.contender]
        return BenchResult(
            suite=suite.name,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=describe_machine(PACKAGES),
            threads=suite.threads,
            contenders=tuple(sorted(self.cards, key=lambda card: order.index(card.label))),
            measurements=tuple(self.measurements),
            cold_starts=tuple(self.cold_starts),
            missing=tuple(self.missing),
        )


def run_suite(
    suite: SuiteConfig,
    drivers: Mapping[str, Driver],
    photo: Path,
    work: Path,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[BenchResult], None] = lambda _: None,
) -> BenchResult:
    """Measure all contenders of a suite.

    A contender that cannot run here is reported with its reason, and the others run.

    Args:
        suite: What to run.
        drivers: Who runs it, by name.
        photo: An image file, for parts that start from one.
        work: Folder for exported files; what is there is used again.
        say: Told what is being done.
        keep: Given what has been measured so far after every part, so that nothing is lost when a
            later one takes all memory.

    Raises:
        ConfigError: A contender names a driver that does not exist.
        ImageError: The photograph cannot be read.
    """
    unknown = {one.driver for one in suite.contender} - drivers.keys()
    if unknown:
        raise ConfigError(
            f"unknown driver {sorted(unknown)[0]!r}; choose one of {', '.join(sorted(drivers))}"
        )
    run = _Run()
    opened: dict[str, Opened] = {}
    tools: list[tuple[ToolDriver, Request]] = []
    for contender in suite.contender:
        driver = drivers[contender.driver]
        try:
            request = _request(suite, contender, driver, photo, work, say)
            if isinstance(driver, CallDriver):
                say(f"loading {contender.label}")
                opened[contender.label] = driver.open(request)
            elif isinstance(driver, ToolDriver):
                tools.append((driver, request))
            if suite.starts_alone(contender) and can_start_alone(driver):
                say(f"starting {contender.label} in a process of its own")
                run.cold_starts.append(_cold_start(request))
        except EdgesegError as error:
            run.lacks(contender.label, error)
    for _ in _time_in_turns(suite, opened, run, say):
        keep(run.result(suite))
    for tool, request in tools:
        _let_measure(tool, request, run, say)
        keep(run.result(suite))
    return run.result(suite)


def _request(
    suite: SuiteConfig,
    contender: ContenderConfig,
    driver: Driver,
    photo: Path,
    work: Path,
    say: Callable[[str], None],
) -> Request:
    reason = driver.unavailable()
    if reason is not None:
        raise BenchError(reason)
    folder = None
    if driver.target is not None:
        wanted = "target" in contender.model_fields_set
        target = contender.target if wanted else driver.target
        folder = exported_folder(contender, target, work, say)
    rounds = suite.rounds_of(contender)
    return Request(contender, folder, suite.parts_of(contender), rounds, suite.threads, photo)


def can_start_alone(driver: Driver) -> bool:
    """Whether its contenders can be started in a process of their own."""
    return isinstance(driver, RuntimeDriver) or driver.name == "pytorch"


def _cold_start(request: Request) -> ColdStart:
    contender = request.contender
    model = str(request.folder or contender.model)
    return measure_cold_start(
        contender.label,
        contender.driver,
        model,
        contender.image_size,
        request.threads,
        request.photo,
    )


def _time_in_turns(
    suite: SuiteConfig, opened: Mapping[str, Opened], run: _Run, say: Callable[[str], None]
) -> Iterator[str]:
    """Time one part after the other, all contenders of a part in turns; yield what is done."""
    contenders = {contender.label: contender for contender in suite.contender}
    for each in opened.values():
        run.cards.append(_counted(each.card))
        run.missing.extend(each.missing)
    parts = dict.fromkeys(part for each in opened.values() for part in each.calls)
    for part in parts:
        calls = {label: each.calls[part] for label, each in opened.items() if part in each.calls}
        say(f"timing {part}: {', '.join(calls)}")
        rounds = {label: suite.rounds_of(contenders[label]) for label in calls}
        for label, found in measure_in_turns(calls, rounds=rounds).items():
            run.measurements.append(
                Measurement(
                    label=label,
                    part=part,
                    samples_ms=found.samples_ms,
                    in_turns=True,
                    num_warmup=rounds[label].warmup,
                    clock=found.clock,
                )
            )
        yield part


def _let_measure(tool: ToolDriver, request: Request, run: _Run, say: Callable[[str], None]) -> None:
    say(f"{tool.name} measures {request.contender.label}")
    try:
        report = tool.measure(request)
    except EdgesegError as error:
        run.lacks(request.contender.label, error)
        return
    run.cards.append(_counted(report.card))
    run.measurements.extend(report.measurements)
    run.missing.extend(report.missing)


def _counted(card: ContenderCard) -> ContenderCard:
    """Add parameters and work, if the network is known and PyTorch is here to count them."""
    with suppress(EdgesegError, ModuleNotFoundError):
        counts = count_network(card.model, card.image_size)
        return card.model_copy(update=asdict(counts))
    return card

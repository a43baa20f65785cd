import json

import pytest

from edgeseg.bench import run as running
from edgeseg.bench.driver import Opened, ToolReport
from edgeseg.bench.drivers import all_drivers
from edgeseg.bench.results import ContenderCard, Measurement, Missing
from edgeseg.bench.run import can_start_alone, run_suite
from edgeseg.bench.runtime_driver import RuntimeDriver
from edgeseg.bench.suite import SuiteConfig
from edgeseg.errors import BenchError, ConfigError


def card(label, driver="counting"):
    return ContenderCard(
        label=label, model="none_such", driver=driver, runs_on="paper", precision="float32",
        image_size=64,
    )  # fmt: skip


class Counting:
    """Runs nothing, and counts."""

    name, about, target, untested = "counting", "nowhere", None, ""

    def __init__(self, calls):
        self.calls = calls

    def unavailable(self):
        return None

    def open(self, request):
        label = request.contender.label
        if label == "broken":
            raise BenchError("it is broken; repair it")
        missing = (Missing(label=label, part="proposals", reason="has none"),)
        calls = {part: lambda part=part: self.calls.append((label, part)) for part in request.parts}
        return Opened(card(label), calls, missing)


class Away(Counting):
    def unavailable(self):
        return "it is not here; plug it in"


class Tool:
    """Says that everything takes three milliseconds."""

    name, about, target, untested = "tool", "elsewhere", None, ""

    def unavailable(self):
        return None

    def measure(self, request):
        if request.contender.label == "failing":
            raise BenchError("the tool ended with status 3")
        measurement = Measurement(
            label=request.contender.label, part="encoder", samples_ms=(3.0,), in_turns=False,
            num_warmup=0, clock="tool",
        )  # fmt: skip
        return ToolReport(card(request.contender.label, "tool"), (measurement,))


def suite(contenders, **fields):
    values = {"name": "test", "rounds": 2, "warmup": 1, "parts": ["encoder"], "cold_start": False}
    rows = [{"label": label, "model": "m", "driver": driver} for label, driver in contenders]
    return SuiteConfig.model_validate({**values, "contender": rows, **fields})


def run(config, tmp_path, calls=None):
    drivers = {
        "counting": Counting([] if calls is None else calls),
        "away": Away([]),
        "tool": Tool(),
    }
    return run_suite(config, drivers, tmp_path / "photo.png", tmp_path / "work")


def test_contenders_take_turns_part_by_part(tmp_path):
    calls = []
    config = suite([("a", "counting"), ("b", "counting")], parts=["encoder", "decoder"])

    result = run(config, tmp_path, calls)

    one_part = [("a", "encoder"), ("b", "encoder")] * 3
    assert calls == one_part + [(label, "decoder") for label, _ in one_part]
    assert result.parts() == ["encoder", "decoder"]
    found = result.find("b", "decoder")
    assert len(found.samples_ms) == 2
    assert (found.in_turns, found.num_warmup) == (True, 1)
    assert result.missing[0].part == "proposals"


def test_what_cannot_run_is_reported_and_the_others_run(tmp_path):
    contenders = [
        ("away", "away"), ("broken", "counting"), ("fine", "counting"), ("failing", "tool"),
        ("outside", "tool"),
    ]  # fmt: skip

    result = run(suite(contenders), tmp_path)

    reasons = {each.label: each.reason for each in result.missing if not each.part}
    assert reasons == {
        "away": "it is not here; plug it in",
        "broken": "it is broken; repair it",
        "failing": "the tool ended with status 3",
    }
    assert [contender.label for contender in result.contenders] == ["fine", "outside"]
    assert result.find("outside", "encoder").clock == "tool"
    assert result.threads == 2
    assert result.machine["processor"]


def test_what_is_measured_is_kept_before_the_next_part(tmp_path):
    kept = []
    config = suite([("a", "counting"), ("b", "tool")], parts=["encoder", "decoder"])
    drivers = {"counting": Counting([]), "tool": Tool()}

    result = run_suite(config, drivers, tmp_path, tmp_path, keep=kept.append)

    assert [len(each.measurements) for each in kept] == [1, 2, 3]
    assert kept[-1].measurements == result.measurements


def test_an_unknown_driver_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="unknown driver 'abacus'; choose one of away, counting"):
        run(suite([("a", "abacus")]), tmp_path)


def test_exported_files_are_timed_and_started_in_a_process_of_their_own(
    tmp_path, exported, photo, monkeypatch
):
    config = suite([("tiny", "onnx")], cold_start=True, threads=1, parts=["encoder", "end_to_end"])
    config = config.model_copy(
        update={"contender": (config.contender[0].model_copy(update={"model": str(exported)}),)}
    )
    drivers = {"onnx": RuntimeDriver("onnx", "ONNX Runtime")}

    result = run_suite(config, drivers, photo, tmp_path / "work")

    (found,) = result.contenders
    assert (found.model, found.runs_on, found.image_size) == ("tiny_pair", "cpu", 64)
    assert found.size_bytes.keys() == {"encoder", "decoder"}
    assert found.num_parameters == {}  # no registered network
    (start,) = result.cold_starts
    assert min(start.import_ms, start.load_ms, start.first_call_ms, start.second_call_ms) > 0
    assert 10 < start.base_memory_mb <= start.peak_memory_mb < 2000
    assert result.missing == ()


def test_only_what_the_runtime_or_pytorch_runs_is_started_alone():
    found = {name for name, driver in all_drivers().items() if can_start_alone(driver)}

    assert found >= {"onnx", "onnx:cuda", "openvino", "coreml", "pytorch"}
    assert not found & {"coreml:benchmark", "iphone", "trtexec", "adb", "pytorch:cuda"}


def test_a_process_that_fails_to_start_is_a_missing_contender(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(running, "can_start_alone", lambda driver: True)

    result = run(suite([("a", "counting")], cold_start=True), tmp_path)

    (reason,) = [each.reason for each in result.missing if not each.part]
    assert reason.startswith("a cannot be started in a process of its own: ")
    assert json.loads(result.model_dump_json())["missing"][0]["label"] == "a"

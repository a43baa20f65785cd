import json

import pytest
from exported_folders import write_folder  # conftest.py extends the path
from tool_requests import reasons, request, write_program

from edgeseg.bench import trtexec
from edgeseg.bench.driver import CallDriver, ToolDriver
from edgeseg.bench.trtexec import TrtexecDriver
from edgeseg.errors import BenchError, ConfigError, ExportError
from edgeseg.signature import PromptSlots

# Prints what trtexec 10.3 prints on a Jetson, shortened. Three calls warm up with latencies of 100
# ms and more; then come as many as asked, and one that was in flight, with 1 ms, 2 ms, ... latency
# of which half a millisecond is transfer.
TRTEXEC = """
import json, sys, time
from pathlib import Path

here = Path(sys.argv[0]).parent
plan = json.loads((here / "plan.json").read_text())
known = {"onnx", "shapes", "iterations", "warmUp", "duration", "exportTimes", "useSpinWait",
         "noTF32", "fp16", "int8", "best", "stronglyTyped", "useCudaGraph"} - set(plan["unknown"])
options = {}
for argument in sys.argv[1:]:
    name, _, value = argument.removeprefix("--").partition("=")
    if name not in known:
        print("=== Model Options ===\\n  --onnx=<file>  ONNX model")
        sys.exit(f"[10/24/2025-10:00:00] [E] Unknown option: --{name} {value}")
    options[name] = value
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
stamp = "[10/24/2025-10:00:00] [I] "
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec", flush=True)
if plan["device"]:
    print(stamp + "Selected Device: " + plan["device"] + "\\n" + stamp + "Selected Device ID: 0")
if plan["version"]:
    print(stamp + "TensorRT version: " + plan["version"])
if plan["hangs"]:
    sys.stdout.flush()
    time.sleep(60)
assert Path(options["onnx"]).is_file()
if options["onnx"].endswith(plan["fails_on"] + ".onnx"):
    print("[10/24/2025-10:00:00] [E] [TRT] ModelImporter.cpp: no kernel", file=sys.stderr)
    print("[10/24/2025-10:00:00] [E] Engine set up failed", file=sys.stderr)
    print("&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec")
    sys.exit(1)
num_warmup = 3 if int(options["warmUp"]) else 0
num_timed = int(options["iterations"]) + 1
print(stamp + f"Warmup completed {num_warmup} queries over {options['warmUp']} ms")
print(stamp + f"Timing trace has {num_timed} queries over 0.1 s")
latencies = [100.0 + n for n in range(num_warmup)] + [1.0 + n for n in range(num_timed)]
if not plan["exports_warmup"]:
    del latencies[:num_warmup]
times = [{"startEnqMs": 0.1, "inQueueMs": 9.0, "h2dMs": 0.25, "computeMs": latency - 0.5,
          "d2hMs": 0.25, "latencyMs": latency} for latency in latencies]
for entry in times:
    for key in plan["leaves_out"]:
        del entry[key]
text = json.dumps(times) if plan["times"] is None else plan["times"]
if text:
    Path(options["exportTimes"]).write_text(text)
print("&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec")
"""
PLAN = {
    "device": "Orin", "version": "10.3.0", "hangs": False, "fails_on": "nothing", "unknown": [],
    "exports_warmup": False, "leaves_out": [], "times": None,
}  # fmt: skip


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Install a trtexec that does as planned; returns where it is."""
    bin_folder = write_program(tmp_path / "bin" / "trtexec", TRTEXEC).parent
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    plan(bin_folder)
    return bin_folder


@pytest.fixture
def fixed(tmp_path):
    return write_folder(tmp_path / "fixed", slots=PromptSlots(16, 6), normalises=True)


def plan(tool, **changes):
    (tool / "plan.json").write_text(json.dumps(PLAN | changes))


def calls(tool):
    """What it was called with, without the file for the times, whose name changes."""
    lines = [json.loads(line) for line in (tool / "calls.jsonl").read_text().splitlines()]
    assert all(line[-1].startswith("--exportTimes=/") for line in lines)
    return [line[:-1] for line in lines]


def test_the_driver_says_what_it_is():
    driver = TrtexecDriver()

    assert isinstance(driver, ToolDriver)
    assert not isinstance(driver, CallDriver)
    assert (driver.name, driver.target) == ("trtexec", "onnx_tensorrt")
    assert driver.untested == "tested with a simulated trtexec, not yet on a device"


def test_encoder_and_decoder_are_timed(tool, fixed):
    report = TrtexecDriver().measure(request(fixed, "trtexec", ("encoder", "decoder@16")))

    encoder, decoder = report.measurements
    assert (encoder.part, decoder.part) == ("encoder", "decoder@16")
    # 3 + 2 calls are asked for, and a sixth was in flight; of 1 ms to 6 ms the last three count.
    assert encoder.samples_ms == (4.0, 5.0, 6.0)
    assert encoder.num_warmup == 6  # 3 of its own, and 1 ms to 3 ms
    assert encoder.clock == "trtexec latencyMs"
    assert encoder.label == "ours"
    assert not encoder.in_turns
    assert report.card.runs_on == "Orin, TensorRT 10.3.0"
    assert report.card.precision == "float32"
    assert report.missing == ()


def test_the_command_line_is_exact(tool, fixed):
    TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",), warmup_ms="450"))

    assert calls(tool) == [
        [
            f"--onnx={fixed}/encoder.onnx", "--noTF32", "--iterations=5", "--warmUp=450",
            "--duration=0", "--useSpinWait",
        ]
    ]  # fmt: skip


def test_without_warm_up_all_calls_but_those_in_flight_count(tool, fixed):
    report = TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",), warmup=0))

    assert "--iterations=3" in calls(tool)[0]
    assert "--warmUp=0" in calls(tool)[0]
    assert report.measurements[0].samples_ms == (2.0, 3.0, 4.0)
    assert report.measurements[0].num_warmup == 1  # of four


@pytest.mark.parametrize(
    ("option", "flag", "label"),
    [
        ("float32", "--noTF32", "float32"),
        ("tf32", None, "tf32"),
        ("float16", "--fp16", "float16"),
        ("int8", "--int8", "int8, without calibration: for time only"),
        ("best", "--best", "best, without calibration: for time only"),
        ("as_exported", "--stronglyTyped", "float32"),
    ],
)
def test_a_precision_is_one_flag(tool, fixed, option, flag, label):
    report = TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",), precision=option))

    flags = {"--noTF32", "--fp16", "--int8", "--best", "--stronglyTyped"} & set(calls(tool)[0])
    assert flags == ({flag} if flag else set())
    assert report.card.precision == label


@pytest.mark.parametrize(
    ("precision", "flag"),
    [("float16", "--fp16"), ("int8", "--int8"), ("int8_dynamic", "--stronglyTyped")],
)
def test_files_of_lower_precision_are_run_in_theirs(tool, tmp_path, precision, flag):
    folder = write_folder(tmp_path / "low", precision=precision)

    report = TrtexecDriver().measure(request(folder, "trtexec", ("encoder",)))

    assert flag in calls(tool)[0]
    assert report.card.precision == precision


def test_more_arguments_stand_in_the_card(tool, fixed):
    asked = request(fixed, "trtexec", ("encoder",), precision="int8", arguments="--fp16 --best")

    report = TrtexecDriver().measure(asked)

    assert calls(tool)[0][1:4] == ["--int8", "--fp16", "--best"]
    assert report.card.runs_on == "Orin, TensorRT 10.3.0 --fp16 --best"


def test_all_prompts_and_one_are_the_same_call_of_a_file_with_fixed_slots(tool, fixed):
    asked = request(fixed, "trtexec", ("decoder", "decoder@16", "decoder@8"))

    report = TrtexecDriver().measure(asked)

    one, every = report.measurements
    assert len(calls(tool)) == 1
    assert (one.part, every.part) == ("decoder", "decoder@16")
    assert one.clock == "trtexec latencyMs, a call computes all of its 16 prompts"
    assert every.clock == "trtexec latencyMs"
    assert reasons(report)["decoder@8"].startswith("the file takes 16 prompts a call, got 8")


def test_open_sizes_are_fixed_on_the_command_line(tool, exported):
    TrtexecDriver().measure(request(exported, "trtexec", ("encoder", "decoder@8")))

    encoder, decoder = calls(tool)
    assert not any(argument.startswith("--shapes") for argument in encoder)
    shapes = "points_xy_model:8x2x2,point_labels:8x2,mask_logits:8x1x16x16,has_mask:8"
    assert decoder[:2] == [f"--onnx={exported}/decoder.onnx", f"--shapes={shapes}"]


def test_parts_beyond_single_files_are_missing(tool, exported):
    parts = ("everything", "end_to_end", "batch@4", "proposals")

    report = TrtexecDriver().measure(request(exported, "trtexec", parts))

    assert set(reasons(report)) == set(parts)
    assert report.measurements == ()
    assert report.card.runs_on == "TensorRT"


def test_calls_that_warm_up_do_not_count_where_they_are_exported_too(tool, fixed):
    plan(tool, exports_warmup=True)  # as TensorRT 8.4 and older do

    report = TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",)))

    assert report.measurements[0].samples_ms == (4.0, 5.0, 6.0)
    assert report.measurements[0].num_warmup == 6


def test_without_latencies_the_gpu_time_counts_and_is_called_so(tool, fixed):
    plan(tool, leaves_out=["latencyMs"])

    report = TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",)))

    assert report.measurements[0].samples_ms == (3.5, 4.5, 5.5)
    assert report.measurements[0].clock == "trtexec computeMs, without transfers"


def test_what_it_does_not_say_is_left_out(tool, fixed):
    plan(tool, device="", version="")
    assert TrtexecDriver().measure(request(fixed, "trtexec")).card.runs_on == "TensorRT"

    plan(tool, device="NVIDIA GeForce RTX 2080 Ti", version="")
    card = TrtexecDriver().measure(request(fixed, "trtexec")).card
    assert card.runs_on == "NVIDIA GeForce RTX 2080 Ti, TensorRT"


def test_a_file_that_cannot_be_built_leaves_the_others(tool, fixed):
    plan(tool, fails_on="decoder")

    report = TrtexecDriver().measure(request(fixed, "trtexec"))

    assert [measurement.part for measurement in report.measurements] == ["encoder"]
    assert "trtexec failed with exit status 1; it printed last:" in reasons(report)["decoder"]
    assert "no kernel | [10/24/2025-10:00:00] [E] Engine set up f" in reasons(report)["decoder"]


def test_a_tool_that_fails_on_every_file_has_failed(tool, fixed):
    plan(tool, fails_on="")

    with pytest.raises(BenchError, match="failed with exit status 1.*Engine set up failed; to see"):
        TrtexecDriver().measure(request(fixed, "trtexec"))


def test_a_tool_without_precision_flags_is_explained(tool, fixed):
    plan(tool, unknown=["fp16"])  # as TensorRT 11

    with pytest.raises(BenchError, match='Unknown option: --fp16;.*precision = "as_exported"'):
        TrtexecDriver().measure(request(fixed, "trtexec", precision="float16"))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("", "got no readable times; it printed last: .*PASSED"),
        ("[{", "got no readable times"),
        ("[]", "got no list of calls"),
        ('{"latencyMs": 1}', "got no list of calls"),
        ("[1, 2]", "got no calls by name"),
        ('[{"latencyMs": "fast"}]', "got calls without latencyMs"),
        ('[{"latencyMs": 1}, {"h2dMs": 2}]', "got calls without computeMs"),
    ],
)
def test_times_that_are_not_understood_are_refused(tool, fixed, times, message):
    plan(tool, times=times)

    with pytest.raises(BenchError, match=message):
        TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",)))


def test_an_engine_that_takes_too_long_is_given_up(tool, fixed):
    plan(tool, hangs=True)

    with pytest.raises(BenchError, match="within 0.5 s and was stopped; it printed last: .*10.3.0"):
        TrtexecDriver().measure(request(fixed, "trtexec", ("encoder",), timeout_s="0.5"))


def test_without_trtexec_it_says_what_to_install(tmp_path, monkeypatch, fixed):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(trtexec, "JETSON_TRTEXEC", str(tmp_path / "none"))
    reason = "trtexec is not on PATH; install TensorRT and add its bin folder to PATH"

    assert TrtexecDriver().unavailable().startswith(reason)
    with pytest.raises(BenchError, match=reason):
        TrtexecDriver().measure(request(fixed, "trtexec"))


def test_on_a_jetson_it_is_found_outside_path(tool, tmp_path, monkeypatch, fixed):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert TrtexecDriver().unavailable() is not None

    monkeypatch.setattr(trtexec, "JETSON_TRTEXEC", str(tool / "trtexec"))

    assert TrtexecDriver().unavailable() is None
    assert TrtexecDriver().measure(request(fixed, "trtexec")).card.runs_on.startswith("Orin")


def test_files_and_options_that_it_cannot_use_are_refused(tool, exported, tmp_path):
    packages = write_folder(tmp_path / "packages", format="coreml")

    with pytest.raises(ExportError, match="holds coreml files, which the driver trtexec cannot"):
        TrtexecDriver().measure(request(packages, "trtexec"))
    with pytest.raises(ConfigError, match="option precision of 'ours': Input should be 'float32',"):
        TrtexecDriver().measure(request(exported, "trtexec", precision="fp16"))
    with pytest.raises(ConfigError, match="option timeout_s .* greater than 0, got '0'"):
        TrtexecDriver().measure(request(exported, "trtexec", timeout_s="0"))

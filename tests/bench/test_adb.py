import json
import os
import shlex
import subprocess
import time

import pytest
from exported_folders import write_folder  # conftest.py extends the path
from tool_requests import reasons, request, write_program

from edgeseg.bench.adb import AdbDriver
from edgeseg.bench.driver import CallDriver, ToolDriver
from edgeseg.errors import BenchError, ConfigError, ExportError
from edgeseg.signature import PromptSlots

# A phone is a folder; its shell is that of this machine, with the phone's paths and `getprop`.
ADB = """#!/bin/sh
here=$(dirname "$0")
. "$here/plan.sh"
printf '%s\\n' "$*" >> "$here/calls.txt"
if [ "$*" = devices ]; then
    echo '* daemon not running; starting now at tcp:5037' >&2
    [ "$daemon_fails" ] && echo 'error: cannot connect to daemon' >&2 && exit 1
    printf 'List of devices attached\\n%s\\n\\n' "$phones"
    exit
fi
phone=${here%/bin}/phone
[ "$1" = -s ] || exit 64
case $phones in
*"$2	device"*) ;;
*) echo "adb: device '$2' not found" >&2 && exit 1 ;;
esac
case $3 in
push)
    if [ "${4##*/}" = "$push_fails" ]; then
        echo 'adb: error: failed to copy: remote No space left on device' >&2
        exit 1
    fi
    cat "$4" > "$phone$5" # contents only, as a phone keeps no modes
    echo "$4: 1 file pushed, 0 skipped. 31.4 MB/s (20000000 bytes in 0.607s)" ;;
shell)
    line=$(printf %s "$4" | sed "s|/data/local/tmp|$phone/data/local/tmp|g")
    env -i LANG=C PATH="${here%/bin}/phone_bin:/usr/bin:/bin" /bin/sh -c "$line"
    exit $? ;;
*) exit 64 ;;
esac
"""
# Calls take 1 ms, 2 ms, ...
PERF_TEST = """
import getopt, json, os, sys, time

computer = os.getcwd().removesuffix("/phone/data/local/tmp/edgeseg")
plan = json.load(open(computer + "/bin/plan.json"))
pairs, (model, result) = getopt.getopt(
    sys.argv[1:], "b:m:e:r:t:p:x:y:c:d:o:u:i:f:F:S:T:AMPIDZvhsqz"
)
options = dict(pairs)
with open(computer + "/perf_test.jsonl", "a") as calls:
    calls.write(json.dumps([sys.argv[1:], os.environ["LD_LIBRARY_PATH"], sorted(os.listdir())])
                + "\\n")
assert os.path.isfile(model) and not os.path.exists(result)
if plan["hangs"]:
    time.sleep(60)
if model.endswith(plan["fails_on"] + ".onnx"):
    print("Run failed: Load model failed: opset 99")
    print("2025-10-24 [E:onnxruntime] no opset 99", file=sys.stderr)
    sys.exit(255)
seconds = [0.001 * (n + 1) for n in range(int(options["-r"]))]
if plan["garbage"]:
    print("segmentation")
    sys.exit()
if plan["writes"]:
    rows = [f"edgeseg,{second:.6g},123,50,{n}\\n" for n, second in enumerate(seconds)]
    open(result, "w").write("".join(rows))
print("Session creation time cost: 0.03 s")
print("Total inference requests:", len(seconds))
print("Average inference time cost:", 1000 * sum(seconds) / len(seconds), "ms")
for name in ("Min", "Max", "P50", "P90", "P95", "P99", "P999"):
    print(f"{name} Latency: {seconds[-1]} s")
"""
GETPROP = """#!/bin/sh
case "$1" in
ro.product.model) echo 'Pixel 7' ;;
ro.soc.model) [ -e "$(dirname "$0")/old" ] && echo || echo GS201 ;;
ro.board.platform) echo gs201-board ;;
ro.build.version.release) echo 14 ;;
esac
"""
PLAN = {"hangs": False, "fails_on": "nothing", "garbage": False, "writes": True}


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """Install an adb with one phone; returns the folder of both."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    for path, source in (("bin/adb", ADB), ("phone_bin/getprop", GETPROP)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(source)
        (tmp_path / path).chmod(0o755)
    (tmp_path / "phone" / "data" / "local" / "tmp").mkdir(parents=True)
    write_program(tmp_path / "built here" / "onnxruntime_perf_test", PERF_TEST)
    plan(tmp_path)
    connect(tmp_path, {"R58M": "device"})
    return tmp_path


def plan(computer, **changes):
    """What the tool on the phone does."""
    (computer / "bin" / "plan.json").write_text(json.dumps(PLAN | changes))


def connect(computer, phones, gap="\t", push_fails="", daemon_fails=""):
    """What adb sees and does."""
    lines = "\n".join(f"{serial}{gap}{state}" for serial, state in phones.items())
    values = {"phones": lines, "push_fails": push_fails, "daemon_fails": daemon_fails}
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    (computer / "bin" / "plan.sh").write_text(text)


def measure(computer, folder, parts=("encoder", "decoder@8"), **options):
    perf_test = str(computer / "built here" / "onnxruntime_perf_test")
    return AdbDriver().measure(request(folder, "adb", parts, **{"perf_test": perf_test} | options))


def runs(computer):
    """Arguments, library path and files of each run of the tool on the phone."""
    return [json.loads(line) for line in (computer / "perf_test.jsonl").read_text().splitlines()]


def left_on_the_phone(computer):
    return sorted(path.name for path in (computer / "phone" / "data" / "local" / "tmp").rglob("*"))


def test_the_driver_says_what_it_is():
    driver = AdbDriver()

    assert isinstance(driver, ToolDriver)
    assert not isinstance(driver, CallDriver)
    assert (driver.name, driver.target) == ("adb", "onnx_fp32")
    assert driver.untested == "tested with a simulated adb and phone, not yet on a device"


def test_encoder_and_decoder_are_timed_on_the_phone(computer, exported):
    report = measure(computer, exported)

    encoder, decoder = report.measurements
    assert (encoder.part, decoder.part) == ("encoder", "decoder@8")
    assert encoder.samples_ms == pytest.approx((2.0, 3.0, 4.0))  # the first of four warms up
    assert encoder.num_warmup == 2
    assert encoder.clock == "onnxruntime_perf_test"
    assert report.card.runs_on == "Pixel 7, GS201, Android 14, ONNX Runtime cpu"
    assert report.card.precision == "float32"
    assert report.missing == ()


def test_the_tool_is_started_with_sizes_threads_and_calls(computer, exported):
    measure(computer, exported)

    (encoder, libraries, _), (decoder, _, _) = runs(computer)
    on_phone = f"{computer}/phone/data/local/tmp/edgeseg"
    start = "-e cpu -m times -r 4 -x 2 -I -S 1 -s"
    assert encoder == [*start.split(), f"{on_phone}/encoder.onnx", "times.csv"]
    sizes = "-f N:8 -f P:2"
    assert decoder == [*start.split(), *sizes.split(), f"{on_phone}/decoder.onnx", "times.csv"]
    assert libraries == "."


def test_provider_and_more_arguments_are_passed_and_told(computer, exported):
    options = {"provider": "xnnpack", "arguments": "-o 2 -C 'a|b c|d'"}
    with_c = PERF_TEST.replace('"b:m:', '"C:b:m:')
    write_program(computer / "built here" / "onnxruntime_perf_test", with_c)

    report = measure(computer, exported, ("encoder",), **options)

    arguments = runs(computer)[0][0]
    assert arguments[:2] == ["-e", "xnnpack"]
    assert arguments[-6:-2] == ["-o", "2", "-C", "a|b c|d"]
    assert report.card.runs_on.endswith("Android 14, ONNX Runtime xnnpack -o 2 -C a|b c|d")


def test_libraries_beside_the_tool_go_with_it_and_nothing_stays(computer, exported):
    for name in ("libonnxruntime.so", "libc++_shared.so", "libonnxruntime_providers_qnn.so"):
        (computer / "built here" / name).write_text("library")
    (computer / "built here" / "libcustom_op.so").write_text("of a test")

    measure(computer, exported)

    assert runs(computer)[0][2] == [
        "decoder.onnx", "encoder.onnx", "libc++_shared.so", "libonnxruntime.so",
        "libonnxruntime_providers_qnn.so", "onnxruntime_perf_test", "pid",
    ]  # fmt: skip
    assert left_on_the_phone(computer) == []


def test_files_of_others_on_the_phone_stay(computer, exported):
    folder = computer / "phone" / "data" / "local" / "tmp" / "edgeseg"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")

    measure(computer, exported, ("encoder",))

    assert left_on_the_phone(computer) == ["edgeseg", "mine.txt"]


def test_only_the_files_of_the_parts_are_pushed(computer, exported):
    measure(computer, exported, ("encoder", "everything"))

    assert runs(computer)[0][2] == ["encoder.onnx", "onnxruntime_perf_test", "pid"]


def test_older_phones_name_their_board_instead_of_the_chip(computer, exported):
    (computer / "phone_bin" / "old").write_text("")

    assert measure(computer, exported).card.runs_on.startswith("Pixel 7, gs201-board, Android 14")


def test_a_decoder_with_fixed_slots_says_so(computer, tmp_path):
    folder = write_folder(tmp_path / "fixed", slots=PromptSlots(16, 6))

    report = measure(computer, folder, ("decoder", "decoder@8"))

    clock = "onnxruntime_perf_test, a call computes all of its 16 prompts"
    assert report.measurements[0].clock == clock
    assert "-f" not in runs(computer)[0][0]
    assert reasons(report)["decoder@8"].startswith("the file takes 16 prompts a call, got 8")


def test_without_a_result_file_the_printed_summary_counts(computer, exported):
    plan(computer, writes=False)

    (encoder,) = measure(computer, exported, ("encoder",)).measurements

    assert encoder.samples_ms == ()
    assert encoder.reported.mean_ms == pytest.approx(2.5)  # of 1 to 4 ms
    assert encoder.num_warmup == 1


def test_a_file_that_fails_leaves_the_others(computer, exported):
    plan(computer, fails_on="decoder")

    report = measure(computer, exported)

    assert [measurement.part for measurement in report.measurements] == ["encoder"]
    reason = reasons(report)["decoder@8"]
    assert "adb failed with exit status 255; it printed last: Run failed: Load model" in reason
    assert "no opset 99; to see all of it run: adb -s R58M shell" in reason
    assert left_on_the_phone(computer) == []


def test_a_tool_that_fails_on_every_file_has_failed_and_leaves_nothing(computer, exported):
    plan(computer, fails_on="")

    with pytest.raises(BenchError, match="exit status 255; it printed last: Run failed"):
        measure(computer, exported)
    assert left_on_the_phone(computer) == []


def test_garbage_is_refused(computer, exported):
    plan(computer, garbage=True)

    with pytest.raises(BenchError, match="not understood: got no times; it printed last: segment"):
        measure(computer, exported)
    assert left_on_the_phone(computer) == []


def test_a_full_phone_is_reported(computer, exported):
    connect(computer, {"R58M": "device"}, push_fails="encoder.onnx")

    with pytest.raises(
        BenchError, match="No space left on device; to see all of it run: adb -s R5"
    ):
        measure(computer, exported)
    assert left_on_the_phone(computer) == []


def test_what_takes_too_long_is_stopped_on_the_phone_too(computer, exported):
    plan(computer, hangs=True)
    kept = computer / "pid of the tool"
    noting = PERF_TEST.replace(
        'if plan["hangs"]:', f'open("{kept}", "w").write(str(os.getpid()))\nif plan["hangs"]:'
    )
    write_program(computer / "built here" / "onnxruntime_perf_test", noting)

    with pytest.raises(BenchError, match="adb did not end within 1.5 s and was stopped"):
        measure(computer, exported, ("encoder",), timeout_s="1.5")

    assert not is_running(int(kept.read_text()))
    assert left_on_the_phone(computer) == []


def is_running(process_id):
    for _ in range(20):
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(process_id)],
            capture_output=True, text=True, check=False, env=os.environ,
        ).stdout  # fmt: skip
        if not state.strip() or state.startswith("Z"):
            return False
        time.sleep(0.05)
    return True


def test_one_ready_phone_is_enough(computer):
    assert AdbDriver().unavailable() is None

    connect(computer, {"R58M": "unauthorized", "emulator-5554": "device"})
    assert AdbDriver().unavailable() is None


@pytest.mark.parametrize("gap", ["\t", "  "])
@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("unauthorized", "unlock it and allow USB debugging for this computer"),
        ("offline", "plug it in again"),
        ("no permissions (missing udev rules?); see [http://x]", "give this user access to USB"),
        ("recovery", "start it normally"),
    ],
)
def test_a_phone_that_is_not_ready_is_explained(computer, exported, gap, state, advice):
    connect(computer, {"R58M": state}, gap)
    expected = f"the phone R58M is not ready, its state is {state!r}; {advice}"

    assert AdbDriver().unavailable().startswith(expected)
    with pytest.raises(BenchError, match="the phone R58M is not ready"):
        measure(computer, exported)


def test_a_phone_without_a_serial_number_is_seen(computer):
    connect(computer, {"(no serial number)": "unauthorized"})

    assert AdbDriver().unavailable().startswith("the phone (no serial number) is not ready")


def test_without_a_phone_it_says_what_to_do(computer, exported):
    connect(computer, {})

    assert AdbDriver().unavailable().startswith("no phone is connected; plug one in and switch on")
    with pytest.raises(BenchError, match="no phone is connected"):
        measure(computer, exported)


def test_without_adb_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert AdbDriver().unavailable().startswith("adb is not on PATH; install Android's platform")


def test_an_adb_that_fails_is_a_reason(computer):
    connect(computer, {}, daemon_fails="yes")

    reason = AdbDriver().unavailable()

    assert "adb failed with exit status 1; it printed last:" in reason
    assert "error: cannot connect to daemon" in reason


def test_of_two_phones_one_has_to_be_chosen(computer, exported):
    connect(computer, {"R58M": "device", "R59N": "device"})

    with pytest.raises(
        ConfigError, match="2 phones are connected, R58M, R59N; choose one with the"
    ):
        measure(computer, exported)

    measure(computer, exported, ("encoder",), serial="R59N")
    lines = (computer / "bin" / "calls.txt").read_text().splitlines()
    assert {line[:8] for line in lines} == {"devices", "-s R59N "}


def test_a_chosen_phone_has_to_be_ready(computer, exported):
    connect(computer, {"R58M": "device", "R59N": "offline"})

    with pytest.raises(
        ConfigError, match="'R59N' is not ready, its state is 'offline'; ready: R58"
    ):
        measure(computer, exported, serial="R59N")
    with pytest.raises(ConfigError, match="'other' is not ready, its state is 'absent'"):
        measure(computer, exported, serial="other")


def test_files_and_options_that_it_cannot_use_are_refused(computer, exported, tmp_path):
    packages = write_folder(tmp_path / "packages", format="coreml")

    with pytest.raises(
        ExportError, match="holds coreml files, which the driver adb cannot measure"
    ):
        measure(computer, packages)
    with pytest.raises(
        ConfigError, match="perf_test is no file, got .*none; give the path of onnx"
    ):
        measure(computer, exported, perf_test=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="option perf_test of 'ours': Field required"):
        AdbDriver().measure(request(exported, "adb"))
    with pytest.raises(ConfigError, match="option provider of 'ours': String should match pattern"):
        measure(computer, exported, provider="cpu; rm")

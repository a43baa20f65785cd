import pytest

from edgeseg.bench.perf_test import perf_test_arguments, read_perf_test
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.summary import Summary
from edgeseg.errors import BenchError

# Printed by versions of 2023 and later, when they cannot write the result file.
PRINTED = """Session creation time cost: 0.0321 s
First inference time cost: 25 ms
Total inference time cost: 0.0602 s
Total inference requests: 3
Average inference time cost: 20.0667 ms
Total inference run time: 0.0605 s
Number of inferences per second: 49.5868
Avg CPU usage: 49 %
Peak working set size: 73400320 bytes
failed to open result file 'times.csv'. will dump stats to output.
Min Latency: 0.0198 s
Max Latency: 0.0204 s
P50 Latency: 0.02 s
P90 Latency: 0.0203 s
P95 Latency: 0.0204 s
P99 Latency: 0.02041 s
P999 Latency: 0.0204 s
"""
OLD = (
    PRINTED.replace(" inference requests", " iterations")
    .replace("Average inference time", "Average time")
    .replace("Latency: ", "Latency is ")
    .replace(" s\n", "sec\n")
)
RESULT = "edgeseg,0.02,73400320,49,0\nedgeseg,0.0198,73400320,49,1\nedgeseg,0.0204,73400320,49,2\n"
SUMMARY = Summary(
    count=3, min_ms=19.8, p50_ms=20.0, p90_ms=20.3, p99_ms=20.41, max_ms=20.4, mean_ms=20.0667,
    std_ms=0.0,
)  # fmt: skip


def test_the_command_asks_for_calls_threads_and_sizes():
    arguments = perf_test_arguments({"N": 8, "P": 2}, Rounds(5, 3), threads=4, provider="xnnpack")

    # 5 calls count. Of the 3 that warm up the tool makes one unasked, so 7 are asked for.
    line = "-e xnnpack -m times -r 7 -x 4 -I -S 1 -s -f N:8 -f P:2"
    assert " ".join(arguments) == line


def test_the_tool_always_warms_up_once():
    assert perf_test_arguments({}, Rounds(5, 1), 1, "cpu")[5] == "5"
    assert perf_test_arguments({}, Rounds(5, 0), 1, "cpu")[5] == "5"


@pytest.mark.parametrize("printed", [PRINTED, OLD])
def test_calls_come_from_the_result_file(printed):
    assert read_perf_test(printed, RESULT).samples_ms == pytest.approx((20.0, 19.8, 20.4))


def test_more_calls_that_warm_up_are_dropped():
    times = read_perf_test(PRINTED, RESULT)

    measurement = times.measurement("ours", "decoder@8", Rounds(1, 3), "all of it")

    assert measurement.samples_ms == pytest.approx((20.4,))  # two dropped, beside the tool's own
    assert measurement.num_warmup == 3
    assert (measurement.label, measurement.part) == ("ours", "decoder@8")
    assert measurement.clock == "onnxruntime_perf_test, all of it"
    assert measurement.reported is None
    assert not measurement.in_turns


def test_its_own_warm_up_is_told_even_if_none_was_asked_for():
    measurement = read_perf_test(PRINTED, RESULT).measurement("ours", "encoder", Rounds(3, 0), "")

    assert len(measurement.samples_ms) == 3
    assert measurement.num_warmup == 1


def test_a_name_with_commas_and_windows_line_ends_do_not_move_the_column():
    result = RESULT.replace("edgeseg", "my,model").replace("\n", "\r\n")

    assert read_perf_test(PRINTED, result).samples_ms == pytest.approx((20.0, 19.8, 20.4))


@pytest.mark.parametrize("printed", [PRINTED, OLD])
@pytest.mark.parametrize("result", ["", "\n\nMin Latency: 0.0198 s\n", "a,b,c,d,e\n"])
def test_without_a_result_file_the_printed_summary_counts(printed, result):
    times = read_perf_test(printed, result)

    assert times.samples_ms == ()
    assert times.printed.model_dump() == pytest.approx(SUMMARY.model_dump())


def test_a_summary_says_that_it_is_one():
    measurement = read_perf_test(PRINTED, "").measurement("ours", "encoder", Rounds(1, 3), "")

    assert measurement.reported.count == 3
    assert measurement.num_warmup == 1  # what was to warm up is part of the summary
    assert measurement.clock == (
        "onnxruntime_perf_test, only its summary, which does not tell the spread"
    )


def test_statistics_after_the_calls_are_no_calls():
    result = RESULT + "\nMin Latency: 0.0198 s\nP50 Latency: 0.02 s\n"

    assert len(read_perf_test(PRINTED, result).samples_ms) == 3


def test_units_that_contradict_the_average_are_refused():
    microseconds = RESULT.replace(",0.0", ",000")

    with pytest.raises(BenchError, match="got calls of .* on average beside a printed 20.0667 ms"):
        read_perf_test(PRINTED, microseconds)


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "what is this",
        PRINTED.replace("Average", "Mean"),
        PRINTED.replace("P90 Latency: 0.0203", "P90 Latency: -"),
        PRINTED.replace("requests: 3", "requests: many"),
    ],
)
def test_output_that_is_not_understood_is_refused(printed):
    with pytest.raises(BenchError, match="got no times; it printed last: .*; use a build of ONNX"):
        read_perf_test(printed, "")

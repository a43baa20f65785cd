import pytest

from edgeseg.bench.cold_start import STATUS, measure_cold_start, peak_mb, resident_mb
from edgeseg.errors import BenchError


def test_sizes_are_those_the_kernel_tells(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  500000 kB\nVmRSS:\t  250000 kB\n")

    assert peak_mb(status) == 512  # 500,000 * 1024 bytes
    assert resident_mb(status) == 256
    assert peak_mb(tmp_path / "none") > 1  # from getrusage


@pytest.mark.skipif(not STATUS.is_file(), reason="needs Linux")
def test_the_memory_of_the_process_that_starts_does_not_count(exported, photo):
    held = bytearray(800_000_000)

    start = measure_cold_start("tiny", "onnx", str(exported), None, 1, photo)

    assert peak_mb() > 800
    assert start.base_memory_mb <= start.peak_memory_mb < 700
    del held


def test_a_process_that_fails_says_why(photo, tmp_path):
    with pytest.raises(BenchError, match="tiny cannot be started in a process of .*no model"):
        measure_cold_start("tiny", "onnx", str(tmp_path / "none"), None, 1, photo)


def test_a_process_that_never_ends_is_stopped(exported, photo, monkeypatch):
    monkeypatch.setattr("edgeseg.bench.cold_start._TIME_LIMIT_S", 0.05)

    with pytest.raises(BenchError, match="did not start within 0 s; leave cold_start out"):
        measure_cold_start("tiny", "onnx", str(exported), None, 1, photo)

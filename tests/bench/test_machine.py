import importlib.metadata
import os

from edgeseg.bench.machine import clocks, describe_machine, memory, processor_name


def test_the_card_names_processor_cores_and_versions():
    card = describe_machine(("numpy", "no-such-package"))

    assert card["processor"]
    assert 1 <= card["num_cores"] <= os.cpu_count()
    assert card["numpy"] == importlib.metadata.version("numpy")
    assert "no-such-package" not in card


def test_the_processor_is_named_as_the_kernel_names_it(tmp_path):
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nmodel name\t: Fast CPU: mark 2\nflags\t: avx2\n")

    assert processor_name(cpu_info) == "Fast CPU: mark 2"
    assert processor_name(tmp_path / "missing")  # the architecture, at least


def test_clocks_are_those_the_kernel_allows_else_the_present_one(tmp_path):
    (tmp_path / "cpuinfo_max_freq").write_text("3400000\n")
    (tmp_path / "scaling_governor").write_text("performance\n")
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2595.124\n")

    assert clocks(tmp_path) == {"clock_max_ghz": 3.4, "governor": "performance"}
    assert clocks(tmp_path / "none", tmp_path / "cpuinfo") == {"clock_now_ghz": 2.595}
    assert clocks(tmp_path / "none", tmp_path / "none") == {}


def test_memory_is_in_units_of_a_thousand_million_bytes(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")

    assert memory(tmp_path / "meminfo") == {"memory_gb": 16.4}
    assert memory(tmp_path / "none") == {}

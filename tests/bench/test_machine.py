import importlib.metadata
import os

from edgeseg.bench.machine import describe_machine, processor_name


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

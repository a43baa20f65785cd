import pytest

from edgeseg.bench.counts import Product
from edgeseg.bench.estimates import (
    DeviceSheet,
    PublishedFigure,
    estimate,
    estimate_table,
    read_devices,
    released_devices,
)
from edgeseg.errors import ConfigError

WORK = Product(macs=10**9, num_read=1000, num_written=1000)  # 2 GFLOP at 2 TFLOP/s: 1 ms
MOVING = Product(macs=1, num_read=10**6, num_written=10**6)  # 4 MB at 4 GB/s: 1 ms


def sheet(*published):
    return DeviceSheet(
        name="paper", precision="float16", peak_tflops=2, bandwidth_gbs=4, bytes_a_number=2,
        source="by hand", published=published,
    )  # fmt: skip


def figure(network, frames_per_s):
    return PublishedFigure(
        network=network, image_size=64, frames_per_s=frames_per_s, source="by hand"
    )


def test_every_product_takes_its_work_or_its_bytes_whichever_is_longer():
    assert sheet().limit_ms([WORK]) == pytest.approx(1.0)
    assert sheet().limit_ms([WORK, MOVING]) == pytest.approx(2.0)


def test_the_factor_is_fitted_and_judged_on_what_is_published():
    published = {"a": [WORK], "b": [WORK, WORK]}  # limits 1 and 2 ms
    device = sheet(figure("a", 500), figure("b", 62.5))  # measured 2 and 16 ms: factors 2 and 8

    found = estimate(device, [MOVING], published)

    assert found.factor == pytest.approx(4)
    assert found.time_ms == pytest.approx(4)
    assert found.error == pytest.approx(4)


def test_without_published_figures_there_is_a_limit_and_no_estimate():
    found = estimate(sheet(), [WORK], {})

    assert (found.time_ms, found.error) == (None, None)
    assert found.limit_ms == pytest.approx(1)


def test_the_devices_that_come_along_are_read_and_estimates_say_what_they_are():
    sheets = read_devices(released_devices())

    assert {"NVIDIA RTX 2080 Ti", "iPhone 14, Neural Engine", "Jetson Orin Nano 8 GB"} <= set(
        sheets
    )
    text = estimate_table([sheets["NVIDIA RTX 2080 Ti"]], ["edgeseg_s"], None)
    assert text.startswith("Estimates, not measurements.")
    assert "edgeseg_s at 512" in text
    assert "edgesam published 6.1 ms" in text


def test_a_wrong_file_of_devices_is_refused(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text('[[device]]\nname = "x"\n')

    with pytest.raises(ConfigError, match=r"devices.toml: precision: Field required"):
        read_devices(path)
    with pytest.raises(ConfigError, match="cannot read the devices"):
        read_devices(tmp_path / "none.toml")

"""Estimates for devices that are not at hand, and how wrong they are where figures are published.

A network's products (convolutions, matrix products, attention) are listed with their work and the
numbers they read and write; each takes at least its work at the device's peak or its bytes at its
bandwidth, whichever is longer. Devices stay below that by a factor, which is fitted on published
measurements; how well it does is judged on each published network by the others alone.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from pydantic import Field, ValidationError

from edgeseg.bench.counts import Product
from edgeseg.bench.results import Document
from edgeseg.bench.tables import text_table
from edgeseg.errors import ConfigError


class PublishedFigure(Document):
    """A measurement that somebody published.

    Attributes:
        network: Registry name of the network.
        image_size: Side of its input, in pixels.
        parts: What was timed together.
        frames_per_s: Published rate.
        source: Where it stands.
    """

    network: str
    image_size: int
    parts: tuple[str, ...] = ("encoder", "decoder")
    frames_per_s: float = Field(gt=0)
    source: str


class DeviceSheet(Document):
    """What a device's maker says of it.

    Attributes:
        name: Of the device.
        precision: Of the arithmetic that the peak is for.
        peak_tflops: Operations a second, in 1e12; a multiply-accumulate counts as two.
        bandwidth_gbs: Of its memory, in GB (1e9 bytes) a second.
        bytes_a_number: Of weights and activations at that precision.
        source: Where these figures stand.
        published: Measurements on this device.
    """

    name: str
    precision: str
    peak_tflops: float = Field(gt=0)
    bandwidth_gbs: float = Field(gt=0)
    bytes_a_number: int = Field(ge=1, le=4)
    source: str
    published: tuple[PublishedFigure, ...] = ()

    def limit_ms(self, products: Sequence[Product]) -> float:
        """Return the shortest time that products could take, one after the other, in ms."""
        total_s = 0.0
        for product in products:
            work_s = 2 * product.macs / (self.peak_tflops * 1e12)
            numbers = product.num_read + product.num_written
            moving_s = numbers * self.bytes_a_number / (self.bandwidth_gbs * 1e9)
            total_s += max(work_s, moving_s)
        return 1e3 * total_s


def released_devices() -> Path:
    """Return the sheets that come along: inside an installed wheel, else of the checkout."""
    installed = Path(__file__).with_name("devices.toml")
    checkout = Path(__file__).parents[2] / "benchmarks" / "devices.toml"
    return installed if installed.is_file() else checkout


@dataclass(frozen=True)
class Estimate:
    """A time that was not measured.

    Attributes:
        limit_ms: What the device's peak and bandwidth allow.
        factor: How far published measurements stay above their limit on this device, or None
            if there are none.
        error: Largest factor, above or below, by which a published measurement misses what the
            others predict; None with fewer than two of them.
    """

    limit_ms: float
    factor: float | None
    error: float | None

    @property
    def time_ms(self) -> float | None:
        """The estimate, or None where nothing is published for the device."""
        return None if self.factor is None else self.limit_ms * self.factor


def read_devices(path: Path) -> dict[str, DeviceSheet]:
    """Read the sheets of devices, by name.

    Raises:
        ConfigError: The file is missing or says something that is not understood.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        sheets = [DeviceSheet.model_validate(each) for each in document.get("device", [])]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the devices {path}: {error}; check the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}; correct the file") from None
    return {sheet.name: sheet for sheet in sheets}


def estimate(
    sheet: DeviceSheet,
    products: Sequence[Product],
    published: Mapping[str, Sequence[Product]],
) -> Estimate:
    """Estimate a network on a device.

    Args:
        sheet: The device.
        products: Of the network.
        published: Products of every network in `sheet.published`, by network.
    """
    ratios = [
        1e3 / figure.frames_per_s / sheet.limit_ms(published[figure.network])
        for figure in sheet.published
    ]
    if not ratios:
        return Estimate(sheet.limit_ms(products), None, None)
    return Estimate(sheet.limit_ms(products), geometric_mean(ratios), left_out_error(ratios))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values."""
    return exp(sum(map(log, values)) / len(values))


def left_out_error(ratios: Sequence[float]) -> float | None:
    """Return the largest factor between a ratio and the geometric mean of the others.

    >>> left_out_error([2.0, 8.0])
    4.0
    """
    if len(ratios) < 2:
        return None
    errors = []
    for index, ratio in enumerate(ratios):
        others = geometric_mean([*ratios[:index], *ratios[index + 1 :]])
        errors.append(max(ratio / others, others / ratio))
    return max(errors)


def estimate_table(
    sheets: Iterable[DeviceSheet], networks: Sequence[str], image_size: int | None
) -> str:
    """Return estimates of networks on devices as text, with what they are worth.

    Raises:
        ConfigError: A network is unknown.
        ModuleNotFoundError: PyTorch, which counts, is not installed.
    """
    from edgeseg.bench.pytorch_counts import default_image_size, list_products

    parts = ("encoder", "decoder")
    rows, notes = [], []
    for sheet in sheets:
        published = {
            figure.network: list_products(figure.network, figure.image_size, figure.parts)
            for figure in sheet.published
        }
        for network in networks:
            size = image_size or default_image_size(network)
            found = estimate(sheet, list_products(network, size, parts), published)
            shown = "" if found.time_ms is None else f"{found.time_ms:.2f}"
            row = [sheet.name, f"{network} at {size}", f"{found.limit_ms:.2f}", shown]
            rows.append([*row, "" if found.error is None else f"x {found.error:.1f}"])
        for figure in sheet.published:
            limit_ms = sheet.limit_ms(published[figure.network])
            notes.append(
                f"{sheet.name}: {figure.network} published {1e3 / figure.frames_per_s:.1f} ms, "
                f"limit {limit_ms:.2f} ms ({figure.source})"
            )
    header = ["device", "network", "limit ms", "estimate ms", "published ones miss by up to"]
    table = text_table(header, rows)
    return f"Estimates, not measurements.\n{table}\n" + "\n".join(notes)

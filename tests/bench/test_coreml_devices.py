import asyncio
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from tool_requests import reasons, request

from edgeseg.bench import coreml_devices
from edgeseg.bench.coreml_devices import CoreMLBenchmarkDriver, IPhoneDriver
from edgeseg.bench.coreml_kit import CoreMLKit
from edgeseg.bench.driver import CallDriver, ToolDriver
from edgeseg.errors import BenchError, ConfigError, ExportError
from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    hash_of,
    write_export,
)

pytest.importorskip("PIL")  # pictures are inputs of Core ML models


def operation(unit, cost):
    """One operation of a compute plan; `cost` is None where it is not estimated."""
    device = None if unit is None else type(f"ML{unit}ComputeDevice", (), {})()
    statistics = None if cost is None else SimpleNamespace(average=cost)
    return SimpleNamespace(
        compute_device_usage=device and SimpleNamespace(preferred_compute_device=device),
        measurement=SimpleNamespace(samples=[], statistics=statistics),
    )


# Three operations of four, and nine tenths of the cost, are planned for the Neural Engine.
PLANNED = [operation("NeuralEngine", 3.0)] * 3 + [operation("CPU", 1.0), operation(None, None)]
SHARES = "neural engine 75 %, cpu 25 % of operations (neural engine 90 %, cpu 10 % of estimated c"


@dataclass
class Tools:
    """Plays coremltools and remembers what it was asked."""

    phones: list = field(default_factory=list)
    fails_on: str = "nothing"
    has_plan: bool = True
    opened: list = field(default_factory=list)
    predicted: list = field(default_factory=list)
    credentials: dict = field(default_factory=dict)
    unloaded: list = field(default_factory=list)

    def load(self):
        return CoreMLKit(
            open_model=self.open_model,
            benchmarker=lambda *, model, device=None: Benchmarker(self, model, device),
            connected_iphones=lambda: self.phones,
            credentials=lambda **given: self.credentials.update(given) or "credentials",
        )

    def open_model(self, path, compute_units, pixels_as_array):
        self.opened.append((path.name, compute_units, pixels_as_array))
        return path.name


class Benchmarker:
    """Calls take 1 ms, 2 ms, ..."""

    def __init__(self, tools, model, device):
        self._tools, self._model, self._device = tools, model, device
        self._loaded_model = None

    async def benchmark_predict(self, inputs=None, iterations=1, warmup=False):
        assert not warmup  # we drop calls that warm up ourselves
        asyncio.get_running_loop()
        self._loaded_model = self
        if self._model.startswith(self._tools.fails_on):
            raise RuntimeError("Error in declaring network\nand more")
        self._tools.predicted.append((self._model, self._device, inputs))
        return SimpleNamespace(samples=[1.0 + n for n in range(iterations)], statistics=None)

    async def benchmark_operation_execution(self, inputs=None, iterations=1, warmup=False):
        assert (inputs is not None, iterations) == (True, 1)
        if not self._tools.has_plan:
            raise ValueError("MLComputePlan is not supported.")
        return PLANNED

    async def unload(self):
        self._tools.unloaded.append(self._model)


class Phone:
    os_version = "18.1"

    def __init__(self, udid, refuses=False):
        self.udid, self.refuses, self.stopped = udid, refuses, False
        self.session = None

    async def prepare_for_model_debugging(self, credentials=None, working_directory=None):
        assert credentials == "credentials"
        if self.refuses:
            raise RuntimeError("No profiles for 'com.apple.ModelRunner' were found\nxcodebuild")
        ready = Phone(self.udid)
        ready.session = SimpleNamespace(stop=lambda: setattr(self, "stopped", True))
        return ready


@pytest.fixture
def mac(monkeypatch):
    """This is a Mac with coremltools and Xcode."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(coreml_devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(coreml_devices.shutil, "which", lambda tool: tool)


@pytest.fixture
def packages(tmp_path):
    return write_packages(tmp_path / "packages")


def write_packages(folder, file_format="coreml"):
    """Write an exported folder whose packages hold nothing."""
    side = 64
    features = tensor("image_embedding", (1, 32, 4, 4))
    inputs = {
        "encoder": (tensor("image_rgb", (side, side, 3), "uint8"),),
        "decoder": (
            features, tensor("points_xy_model", (1, 6, 2)), tensor("point_labels", (1, 6), "int32"),
            tensor("mask_logits", (1, 1, 16, 16)), tensor("has_mask", (1,)),
        ),
    }  # fmt: skip
    files = []
    for role, tensors in inputs.items():
        package = folder / f"{role}.mlpackage"
        package.mkdir(parents=True)
        (package / "Manifest.json").write_text("{}")
        files.append(
            ExportedFile(
                path=package.name, role=role, sha256=hash_of(package), size_bytes=2,
                inputs=tensors, outputs=(),
            )
        )  # fmt: skip
    manifest = ExportManifest(
        model="edgeseg_s", target="coreml_fp16", format=file_format, precision="float16",
        image_size=side, normalises=True, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1), padding="",
        files=tuple(files), versions={}, weights_sha256="", licence="",
    )  # fmt: skip
    write_export(folder, manifest)
    return folder


def tensor(name, shape, dtype="float32"):
    return ExportedTensor(name=name, shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("driver", "name"), [(CoreMLBenchmarkDriver(), "coreml:benchmark"), (IPhoneDriver(), "iphone")]
)
def test_the_drivers_say_what_they_are(driver, name):
    assert isinstance(driver, ToolDriver)
    assert not isinstance(driver, CallDriver)
    assert (driver.name, driver.target) == (name, "coreml_fp16")
    assert driver.untested == "tested with a simulated coremltools, not yet on a device"


def test_packages_are_timed_on_this_mac(mac, packages):
    tools = Tools()

    report = CoreMLBenchmarkDriver(tools.load).measure(request(packages, "coreml:benchmark"))

    encoder, decoder = report.measurements
    assert (encoder.part, decoder.part) == ("encoder", "decoder")
    assert encoder.samples_ms == (3.0, 4.0, 5.0)  # two of five warm up
    assert encoder.num_warmup == 2
    assert encoder.clock == "Core ML's predict, timed by coremltools"
    assert decoder.clock == encoder.clock
    assert tools.opened == [
        ("encoder.mlpackage", "all", False),
        ("decoder.mlpackage", "all", False),
    ]
    assert [device for _, device, _ in tools.predicted] == [None, None]
    assert tools.predicted[0][2]["image_rgb"].size == (64, 64)  # a picture
    assert tools.unloaded == ["encoder.mlpackage", "decoder.mlpackage"]
    assert report.card.precision == "float16"


def test_the_card_says_what_runs_where(mac, packages):
    tools = Tools()
    asked = request(packages, "coreml:benchmark", compute_units="cpu_and_ne")

    card = CoreMLBenchmarkDriver(tools.load).measure(asked).card

    assert {units for _, units, _ in tools.opened} == {"cpu_and_ne"}
    begin, encoder, decoder = card.runs_on.split("; ")
    assert begin == "this Mac, compute units cpu_and_ne"
    assert encoder.startswith(f"encoder: {SHARES}")
    assert decoder.startswith(f"decoder: {SHARES}")


def test_without_a_compute_plan_the_times_stay(mac, packages):
    tools = Tools(has_plan=False)

    report = CoreMLBenchmarkDriver(tools.load).measure(request(packages, "coreml:benchmark"))

    assert len(report.measurements) == 2
    unknown = "encoder: compute plan unknown (MLComputePlan is not supported.)"
    assert unknown in report.card.runs_on


def test_parts_beyond_single_packages_are_missing(mac, packages):
    parts = ("encoder", "decoder@8", "proposals", "end_to_end")

    report = CoreMLBenchmarkDriver(Tools().load).measure(
        request(packages, "coreml:benchmark", parts)
    )

    assert [measurement.part for measurement in report.measurements] == ["encoder"]
    assert set(reasons(report)) == set(parts[1:])
    assert reasons(report)["decoder@8"].startswith("the file takes 1 prompts a call, got 8")


def test_a_package_that_fails_leaves_the_others_and_nothing_loaded(mac, packages):
    tools = Tools(fails_on="decoder")

    report = CoreMLBenchmarkDriver(tools.load).measure(request(packages, "coreml:benchmark"))

    assert [measurement.part for measurement in report.measurements] == ["encoder"]
    assert reasons(report)["decoder"] == (
        "coremltools cannot time decoder.mlpackage on this Mac: Error in declaring network; try "
        "other compute_units, or export again"
    )
    assert tools.unloaded == ["encoder.mlpackage", "decoder.mlpackage"]


def test_when_all_packages_fail_the_driver_has_failed(mac, packages):
    tools = Tools(fails_on="")

    with pytest.raises(
        BenchError, match="cannot time encoder.mlpackage on this Mac: Error in decl"
    ):
        CoreMLBenchmarkDriver(tools.load).measure(request(packages, "coreml:benchmark"))


def test_packages_are_timed_on_a_phone(mac, packages):
    phone = Phone("00008110")
    tools = Tools([phone])
    asked = request(packages, "iphone", called="iPhone 14", development_team="TEAM")

    report = IPhoneDriver(tools.load).measure(asked)

    encoder, decoder = report.measurements
    assert encoder.samples_ms == decoder.samples_ms == (3.0, 4.0, 5.0)
    assert encoder.clock.endswith("by coremltools, pixels given as numbers instead of an image")
    assert decoder.clock == "Core ML's predict, timed by coremltools"
    assert report.card.runs_on.startswith("iPhone 14, iOS 18.1, compute units all; encoder: neural")
    assert tools.opened == [("encoder.mlpackage", "all", True), ("decoder.mlpackage", "all", True)]
    assert tools.predicted[0][2]["image_rgb"].shape == (1, 3, 64, 64)
    assert all(device.session for _, device, _ in tools.predicted)  # the prepared phone
    assert tools.credentials == {
        "development_team": "TEAM", "provisioning_profile_uuid": None, "bundle_identifier": None,
    }  # fmt: skip
    assert phone.stopped


def test_the_app_on_the_phone_ends_even_if_all_packages_fail(mac, packages):
    phone = Phone("00008110")

    with pytest.raises(BenchError, match=r"on iPhone, iOS 18.1: Error in declaring"):
        IPhoneDriver(Tools([phone], fails_on="").load).measure(request(packages, "iphone"))
    assert phone.stopped


def test_a_phone_that_takes_no_app_is_explained(mac, packages):
    tools = Tools([Phone("00008110", refuses=True)])
    message = "cannot install .* on iPhone, iOS 18.1: No profiles for .* were found; sign it with"

    with pytest.raises(BenchError, match=message):
        IPhoneDriver(tools.load).measure(request(packages, "iphone"))


def test_of_two_phones_one_has_to_be_chosen(mac, packages):
    first, second = Phone("A1"), Phone("B2")
    driver = IPhoneDriver(Tools([first, second]).load)

    with pytest.raises(ConfigError, match="2 iPhones are connected, A1, B2; choose one with the"):
        driver.measure(request(packages, "iphone"))
    with pytest.raises(ConfigError, match="no iPhone 'C3' is connected; connected: A1, B2"):
        driver.measure(request(packages, "iphone", udid="C3"))

    driver.measure(request(packages, "iphone", udid="B2"))
    assert (first.stopped, second.stopped) == (False, True)


def test_without_a_phone_it_says_what_to_do(mac, packages):
    driver = IPhoneDriver(Tools().load)

    assert driver.unavailable().startswith("no iPhone is connected; plug one in, unlock it, trust")
    with pytest.raises(BenchError, match="no iPhone is connected"):
        driver.measure(request(packages, "iphone"))
    assert IPhoneDriver(Tools([Phone("A1")]).load).unavailable() is None


def test_tools_that_cannot_list_phones_are_a_reason(mac):
    tools = Tools().load()

    def fail():
        raise ValueError("[Error Code 1] b'no CoreDevice'")

    broken = CoreMLKit(tools.open_model, tools.benchmarker, fail, tools.credentials)

    reason = IPhoneDriver(lambda: broken).unavailable()

    assert reason.startswith("coremltools cannot list iPhones: [Error Code 1] b'no CoreDevice'; ch")


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        ("xcodebuild", "xcodebuild is not on PATH, which coremltools needs; install Xcode"),
        ("devicectl", 'devicectl is not on PATH, which coremltools needs; run: export PATH="$PAT'),
    ],
)
def test_what_xcode_brings_is_looked_for(mac, monkeypatch, absent, reason):
    monkeypatch.setattr(coreml_devices.shutil, "which", lambda tool: tool != absent or None)

    assert IPhoneDriver(Tools().load).unavailable().startswith(reason)


@pytest.mark.parametrize("kind", [CoreMLBenchmarkDriver, IPhoneDriver])
def test_elsewhere_it_says_that_core_ml_is_on_macs(monkeypatch, packages, kind):
    monkeypatch.setattr(sys, "platform", "linux")
    reason = "Core ML runs on macOS, this is linux; run the suite on a Mac"

    assert kind().unavailable() == reason
    with pytest.raises(BenchError, match=reason):
        kind().measure(request(packages, "iphone"))


@pytest.mark.parametrize("kind", [CoreMLBenchmarkDriver, IPhoneDriver])
def test_without_coremltools_it_says_how_to_install_it(mac, monkeypatch, kind):
    monkeypatch.setattr(coreml_devices.importlib.util, "find_spec", lambda name: None)

    assert "coremltools is not installed; run: pip install 'edgeseg[exp" in kind().unavailable()


def test_files_and_options_that_they_cannot_use_are_refused(mac, packages, tmp_path):
    onnx = write_packages(tmp_path / "onnx", "onnx")
    driver = CoreMLBenchmarkDriver(Tools().load)

    with pytest.raises(
        ExportError, match="holds onnx files, which the driver coreml:benchmark can"
    ):
        driver.measure(request(onnx, "coreml:benchmark"))
    with pytest.raises(
        ConfigError, match="option compute_units of 'ours': Input should be 'all', "
    ):
        driver.measure(request(packages, "coreml:benchmark", compute_units="ane"))
    with pytest.raises(ConfigError, match="option udid of 'ours': Extra inputs are not permitted"):
        driver.measure(request(packages, "coreml:benchmark", udid="A1"))

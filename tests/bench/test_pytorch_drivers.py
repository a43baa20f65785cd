import pytest
import torch
from exported_folders import write_folder  # shared with the tests of the runtime

from edgeseg.bench import pytorch_driver
from edgeseg.bench.driver import Request
from edgeseg.bench.preparing import exported_folder
from edgeseg.bench.pytorch_driver import CudaDriver, PyTorchDriver, device_calls, load_or_build
from edgeseg.bench.stopwatch import DeviceTime, Rounds
from edgeseg.bench.suite import ContenderConfig
from edgeseg.errors import ConfigError
from edgeseg.manifest import sha256_of
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    net = build_model("edgeseg_tiny")
    net.add_proposal_head()
    save_weights(net, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def request(photo, model, parts, **fields):
    contender = ContenderConfig(label="tiny", model=str(model), driver="pytorch", **fields)
    return Request(contender, None, parts, Rounds(), 1, photo)


def test_a_network_is_timed_on_the_processor_in_every_part(photo, weights):
    parts = ("encoder", "decoder@2", "proposals", "everything", "end_to_end", "batch@3")

    opened = PyTorchDriver().open(request(photo, weights, parts))

    assert opened.missing == ()
    assert set(opened.calls) == set(parts)
    assert opened.calls["batch@3"]()[0].shape == (3, 32, 4, 4)
    assert opened.calls["decoder@2"]()[0].shape == (2, 4, 16, 16)
    assert opened.card.weights_sha256 == sha256_of(weights)
    assert (opened.card.model, opened.card.image_size) == ("edgeseg_tiny", 64)


def test_a_registered_network_without_weights_is_random_and_says_so():
    contender = ContenderConfig(label="a", model="edgeseg_tiny", image_size=128)

    net, sha256 = load_or_build(contender)

    assert (net.name, net.image_size, sha256) == ("edgeseg_tiny", 128, "")


def test_calls_on_a_device_keep_their_inputs_there(photo, weights):
    parts = ("encoder", "batch@2", "decoder@3", "proposals", "everything")
    net, _ = load_or_build(ContenderConfig(label="a", model=str(weights)))
    wanted = request(photo, weights, parts)

    calls, missing = device_calls(wanted, net, torch.device("cpu"), torch.float32)

    assert calls["encoder"]().embedding.shape == (1, 32, 4, 4)
    assert calls["batch@2"]().embedding.shape == (2, 32, 4, 4)
    assert calls["decoder@3"]().iou_scores.shape == (3, 4)
    assert not calls["encoder"]().embedding.requires_grad
    assert [each.part for each in missing] == ["everything"]


def test_a_gpu_is_timed_by_its_own_events(monkeypatch, photo, weights):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def elapsed_time(self, end):
            assert isinstance(end, Event)
            return 1.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Paper 2080")
    monkeypatch.setattr(pytorch_driver, "_DEVICE", torch.device("cpu"))

    opened = CudaDriver().open(request(photo, weights, ("encoder",)))
    time = opened.calls["encoder"]()

    assert isinstance(time, DeviceTime)
    assert time == 1.5
    assert log == ["record", "record", "synchronize"]
    assert opened.card.runs_on == "Paper 2080"


def test_an_unknown_precision_is_refused(photo, weights):
    wanted = request(photo, weights, ("encoder",), options={"precision": "int4"})

    with pytest.raises(ConfigError, match="must be float32 or float16, got 'int4'"):
        CudaDriver().open(wanted)


def test_what_is_not_exported_is_exported_once(tmp_path, weights, monkeypatch):
    exports = []

    def export(net, folder, target, facts, progress):
        exports.append((net.name, target.name, facts.weights_sha256))
        write_folder(folder, weights_sha256=facts.weights_sha256)

    monkeypatch.setattr("edgeseg.exporter.release.export_model", export)
    contender = ContenderConfig(label="tiny", model=str(weights))

    def folder_of(chosen):
        return exported_folder(chosen, "onnx_fp32", tmp_path / "work", lambda text: None)

    folder, again = folder_of(contender), folder_of(contender)

    assert folder == again
    assert exports == [("edgeseg_tiny", "onnx_fp32", sha256_of(weights))]
    own = ContenderConfig(label="tiny", model=str(folder))
    assert folder_of(own) == folder
    with pytest.raises(ConfigError, match="was exported for 64 pixel input, got image_size = 128"):
        folder_of(own.model_copy(update={"image_size": 128}))

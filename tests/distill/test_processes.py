import csv
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from one_of_two_processes import SCENARIOS, labelled_run, take_scenario
from timm.layers import SyncBatchNormAct
from tiny_runs import run_tables, save_teacher, start, write_image
from torch import nn

from edgeseg.distill.config import EngineConfig
from edgeseg.distill.processes import build_fabric, share_norms, sum_gradients, sum_over_ranks
from edgeseg.modeling.registry import build_model

PROGRAM = Path(__file__).with_name("one_of_two_processes.py")
TIMEOUT_S = 150


@pytest.fixture(scope="module")
def alone():
    """One process, with one thread like the two: kernels for more threads round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_fabric(EngineConfig(accelerator="cpu"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare") / "photos"
    for k in range(4):
        write_image(folder / f"b{k}.png", (32 + 4 * k, 48), seed=50 + k)
    return folder


@pytest.fixture(scope="module")
def confident(tmp_path_factory):
    path = tmp_path_factory.mktemp("confident") / "teacher.safetensors"
    save_teacher(path, confident=True)
    return path


@pytest.fixture(scope="module")
def together(tmp_path_factory, pairs, bare, confident):
    """Start two processes as torchrun does; return their folder and what each of them found."""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", PROGRAM, out, pairs, bare, confident],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return out, [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def rows(path, stage):
    with (path / f"{stage}_metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_step_of_two_processes_is_that_of_one_with_the_whole_batch(together, alone, name):
    expected = take_scenario(alone, *SCENARIOS[name])

    for found in (rank[name] for rank in together[1]):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5, abs=1e-7)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
        assert found["weights"].keys() == expected["weights"].keys()
        for parameter, weight in expected["weights"].items():
            torch.testing.assert_close(found["weights"][parameter], weight, rtol=0, atol=1e-6)
        assert found["without_gradient"] == expected["without_gradient"]


def test_the_scenarios_are_what_their_names_say(alone):
    found = {name: take_scenario(alone, *each) for name, each in SCENARIOS.items()}

    assert found["encoder"]["grad_norm"] > 0.5  # so that clipping, too, has to be the same
    assert found["even prompts"]["losses"]["truth_mask"] > 0
    assert found["one process without prompts"]["grad_norm"] > 0
    assert found["no prompts at all"]["grad_norm"] == 0
    unused = "prompt_encoder.mask_downscaling.0.weight"
    assert unused in found["no mask fed back"]["without_gradient"]
    assert unused not in found["even prompts"]["without_gradient"]


def test_all_processes_hold_the_same_weights_after_a_step(together):
    first, second = together[1]

    for name in SCENARIOS:
        for parameter, weight in first[name]["weights"].items():
            assert torch.equal(weight, second[name]["weights"][parameter])


def test_all_processes_learn_that_one_was_asked_to_stop(together, alone):
    for found in together[1]:
        assert all(found[name]["stop"] for name in SCENARIOS)
        assert found["stopped"]
        assert found["resumed"]
    assert [row["step"] for row in rows(together[0] / "stopped", "prompt")] == ["1", "2", "3"]


def test_a_whole_run_of_two_processes_follows_that_of_one(together, bare, confident, tmp_path):
    settings = labelled_run(bare, confident, tmp_path / "cache")
    start(tmp_path / "run", settings | {"evaluation": None}).run()

    assert all(found["finished"] for found in together[1])
    expected, found = rows(tmp_path / "run", "prompt"), rows(together[0] / "run", "prompt")
    assert [row["step"] for row in found] == ["1", "2"]
    for row, wanted in zip(found, expected, strict=True):
        loss = float(wanted["teacher_mask"])
        assert float(row["teacher_mask"]) == pytest.approx(loss, rel=1e-3)


def test_processes_share_labels_and_cache_and_the_first_one_alone_reports(together):
    out, (first, second) = together

    assert len(list((out / "run" / "teacher_masks" / "train").iterdir())) == 4
    shards = sorted(path.name for path in (out / "cache").glob("*.npy"))
    assert shards == ["shard_r00000_000000.npy", "shard_r00001_000000.npy"]
    assert any(line.startswith("student: box") for line in first["messages"])
    assert second["messages"] == []
    assert len(list((out / "run" / "tensorboard").iterdir())) == 1


def test_norms_over_all_processes_need_gpus(together):
    message = 'norms that learn over 2 processes need GPUs, got cpu; set engine.norms = "fro'

    assert all(found["shared norms"].startswith(message) for found in together[1])


# One process.


def test_one_process_exchanges_nothing(alone):
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)

    sum_gradients(alone, [parameter])

    assert alone.world_size == 1
    assert parameter.grad.tolist() == [3.0, 3.0]
    assert sum_over_ranks(alone, parameter * 2).tolist() == [2.0, 2.0]
    assert not sum_over_ranks(alone, parameter * 2).requires_grad


def test_one_process_keeps_its_norms(alone):
    net = nn.Sequential(nn.BatchNorm2d(1))

    assert share_norms(alone, net) is net
    assert type(net[0]) is nn.BatchNorm2d


def test_norms_of_several_gpus_are_shared_with_their_activations_and_weights():
    gpus = SimpleNamespace(world_size=2, device=torch.device("cuda"))
    net = build_model("edgeseg_tiny")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    activation = net.image_encoder.backbone.bn1.act
    images = torch.rand(1, 3, 64, 64)
    expected = net.eval().encode(images).embedding

    share_norms(gpus, net)

    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert isinstance(net.image_encoder.backbone.bn1, SyncBatchNormAct)
    assert net.image_encoder.backbone.bn1.act is activation
    assert net.state_dict().keys() == before.keys()
    assert torch.equal(net.eval().encode(images).embedding, expected)


def test_a_batch_that_cannot_be_shared_out_is_refused(pairs, teacher, tmp_path, monkeypatch):
    settings = run_tables(pairs, teacher, encoder_stage={"steps": 1, "batch_size": 3})
    run = start(tmp_path / "run", settings)
    (_, build), *_ = run.stage_builders()
    stage_run = build()
    stage_run.fabric = SimpleNamespace(
        is_global_zero=True, global_rank=0, world_size=2, device=torch.device("cpu")
    )

    with pytest.raises(ValueError, match="must be a positive multiple of the number of processes"):
        stage_run.run()

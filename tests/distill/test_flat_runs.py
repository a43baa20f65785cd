"""Whole runs with [flat_minima]: what a step sees, resuming, several processes, dry runs."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from flat_of_two_processes import SCENARIOS, flat_tables, take_scenario
from safetensors.torch import load_file
from tiny_runs import StopAfter, resume, save_teacher, start, write_pairs

from edgeseg.distill.config import EngineConfig, parse_config
from edgeseg.distill.estimate import estimate_run
from edgeseg.distill.processes import build_fabric
from edgeseg.distill.teachers import NetTeacher
from edgeseg.errors import ConfigError

PROGRAM = Path(__file__).with_name("flat_of_two_processes.py")
TIMEOUT_S = 600
TIMING = {"images_per_s", "loading_share"}


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Three domains of 2, 3 and 4 images."""
    folder = tmp_path_factory.mktemp("domains")
    for name, num_images in (("a", 2), ("b", 3), ("c", 4)):
        write_pairs(folder / name, num_images)
    return folder


def rows(path):
    with (path / "prompt_metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMING}
            for row in csv.DictReader(file)
        ]


def weights_of(path):
    return load_file(path / "student.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(domains, tmp_path_factory):
    """A run of four steps with two of three domains each, on one thread like two processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert start(path, flat_tables(domains, domains_a_step=2)).run().finished
    torch.set_num_threads(threads)
    return path


# What a step sees.


def stage_run_of(path, tables):
    (_, build), *_ = start(path, tables).stage_builders()
    return build()


def batches_of(stage_run):
    return [batch for _, batch, _ in stage_run._batches()]


def test_a_step_holds_two_images_of_each_of_two_domains(domains, tmp_path):
    batches = batches_of(stage_run_of(tmp_path / "run", flat_tables(domains, domains_a_step=2)))

    assert all(sorted(b.domains[:2]) == sorted(b.domains[2:]) for b in batches)
    assert all(len(set(b.domains)) == 2 for b in batches)
    assert {domain for b in batches for domain in b.domains} == {"a", "b", "c"}


def test_with_all_domains_the_images_are_those_of_plain_balanced_steps(domains, tmp_path):
    flat, plain = flat_tables(domains), flat_tables(domains)
    del plain["flat_minima"]
    for tables in (flat, plain):
        tables["prompt_stage"]["batch_size"] = 6

    seen = batches_of(stage_run_of(tmp_path / "flat", flat))
    wanted = batches_of(stage_run_of(tmp_path / "plain", plain))

    assert [batch.names for batch in seen] == [batch.names for batch in wanted]
    assert torch.equal(seen[1].student_images, wanted[1].student_images)
    assert all(sorted(b.domains) == ["a", "a", "b", "b", "c", "c"] for b in seen)


def test_the_teacher_encodes_the_images_of_a_step_once(domains, tmp_path, monkeypatch):
    save_teacher(tmp_path / "teacher.safetensors")
    tables = flat_tables(domains, domains_a_step=2)
    tables["teacher"] = {"weights": str(tmp_path / "teacher.safetensors"), "model": "vit_tiny"}
    tables["encoder_stage"] = {"steps": 2, "batch_size": 2}
    tables["prompt_stage"] |= {"steps": 2, "targets": {"teacher": 1.0}}
    embed, num_images = NetTeacher.embed, []

    def counted(self, images):
        num_images.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(NetTeacher, "embed", counted)

    assert start(tmp_path / "run", tables).run().finished

    # Two steps with two domains of one image, two with two domains of two images.
    assert num_images == [1, 1] * 2 + [2, 2] * 2


# Resuming, and several processes.


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_resumes_to_the_same_weights_and_metrics(
    domains, uninterrupted, tmp_path, stop_after
):
    path = tmp_path / "run"
    tables = flat_tables(domains, domains_a_step=2)
    assert not start(path, tables, StopAfter(stop_after)).run().finished

    assert resume(path).run().finished

    wanted = weights_of(uninterrupted)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights_of(path).items())
    assert rows(path) == rows(uninterrupted)
    assert [row["step"] for row in rows(path)] == ["1", "2", "3", "4"]


def test_sharpness_is_logged(uninterrupted):
    assert all(float(row["sharpness"]) != 0 for row in rows(uninterrupted))


@pytest.fixture(scope="module")
def together(tmp_path_factory, domains):
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
            [sys.executable, "-W", "error", PROGRAM, out, domains],
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


@pytest.fixture(scope="module")
def alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_fabric(EngineConfig(accelerator="cpu"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_step_of_two_processes_is_that_of_one_with_the_whole_batch(together, alone, name):
    expected = take_scenario(alone, *SCENARIOS[name])

    assert expected["grad_norm"] > 0
    for found in (rank[name] for rank in together[1]):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
        assert found["stop"]
        for parameter, weight in expected["weights"].items():
            torch.testing.assert_close(found["weights"][parameter], weight, rtol=0, atol=2e-6)


def test_both_processes_hold_the_same_weights_after_a_step(together):
    first, second = together[1]

    for name in SCENARIOS:
        for parameter, weight in first[name]["weights"].items():
            assert torch.equal(weight, second[name]["weights"][parameter])


def test_a_whole_run_of_two_processes_follows_that_of_one(together, uninterrupted):
    assert all(found["finished"] for found in together[1])
    found, expected = rows(together[0] / "run"), rows(uninterrupted)
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    for row, wanted in zip(found, expected, strict=True):
        assert float(row["truth_mask"]) == pytest.approx(float(wanted["truth_mask"]), rel=1e-3)


# What is refused before anything is trained, and what a run will cost.


@pytest.mark.parametrize(
    ("flat", "batch_size", "message"),
    [
        ({"domains_a_step": 4}, 4, r"domains_a_step is 4, but the training data has 3 domains"),
        ({}, 4, "got 4 images for 3 domains and 1 processes; change batch_size or flat_min"),
    ],
)
def test_steps_that_domains_cannot_share_are_refused_at_once(
    domains, tmp_path, flat, batch_size, message
):
    tables = flat_tables(domains, **flat)
    tables["prompt_stage"]["batch_size"] = batch_size

    with pytest.raises(ConfigError, match=message):
        start(tmp_path / "run", tables)


def test_pooled_steps_take_batches_as_they_come(domains, tmp_path):
    tables = flat_tables(domains, method="pooled")
    tables["data"]["balance_domains"] = False
    tables["prompt_stage"] |= {"batch_size": 1, "steps": 2}

    assert start(tmp_path / "run", tables).run().finished


def test_a_dry_run_measures_steps_with_the_domains_of_the_run(domains, tmp_path):
    for k in range(6):
        write_pairs(tmp_path / "more" / f"d{k}", 2)
    tables = flat_tables(domains)
    tables["data"]["train"].append({"format": "sa1b", "path": str(tmp_path / "more")})
    tables["prompt_stage"]["batch_size"] = 9

    estimate = estimate_run(parse_config(tables, "test"), tmp_path / "run")

    assert estimate.num_images == 21
    assert [(s.name, s.num_steps, s.batch_size) for s in estimate.stages] == [("prompt", 4, 9)]


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"rho": -1}, "flat_minima.rho: Input should be greater than or equal to 0"),
        ({"method": "sam"}, "flat_minima.method: Input should be 'gradual', 'pooled' or 'per_dom"),
        ({"domains_a_step": 0}, "flat_minima.domains_a_step: Input should be greater than or eq"),
        ({"radius": 1}, "flat_minima.radius is unknown; known here are domains_a_step, drop_f"),
        ({"method": "pooled", "drop_first": True}, "'pooled' has no drop_first and no fixed_ord"),
        ({"method": "per_domain", "fixed_order": True}, "'per_domain' has no drop_first and no"),
    ],
)
def test_settings_that_do_not_fit_are_refused(flat, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(flat_tables("photos", **flat), "test")


@pytest.mark.parametrize(
    "flat", [{}, {"method": "per_domain"}, {"method": "pooled", "domains_a_step": 2}]
)
def test_steps_by_domain_need_balanced_domains(flat):
    tables = flat_tables("photos", **flat)
    tables["data"]["balance_domains"] = False

    with pytest.raises(ConfigError, match="so set data.balance_domains = true"):
        parse_config(tables, "test")


def test_a_run_without_the_table_has_no_flat_minima():
    tables = flat_tables("photos")
    del tables["flat_minima"]

    assert parse_config(tables, "test").flat_minima is None

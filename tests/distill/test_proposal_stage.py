"""Stage 3: proposals are learned beside everything else, which stays as it is."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import StopAfter, resume, run_tables, start

from edgeseg.distill.config import parse_config
from edgeseg.errors import ConfigError
from edgeseg.modeling.checkpoints import load_model, save_weights
from edgeseg.modeling.registry import build_model

STAGE = {"steps": 3, "batch_size": 2, "learning_rate": 1e-2}


def proposal_run(pairs, **stage):
    settings = run_tables(pairs, seed=3, proposal_stage=STAGE | stage)
    settings["engine"]["ema_decay"] = 0.9
    return settings


def moved(path, first="start", second="student"):
    before, after = (load_file(path / f"{name}.safetensors") for name in (first, second))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_only_the_head_learns_and_its_norms_learn_statistics(tmp_path, pairs):
    start(tmp_path / "run", proposal_run(pairs)).run()

    names = moved(tmp_path / "run")
    assert all(name.startswith("proposal_head.") for name in names)
    assert "proposal_head.embedding_lateral.bn.running_mean" in names
    assert "proposal_head.predictions.0.bias" in names


def test_masks_are_what_they_were(tmp_path, pairs):
    start(tmp_path / "run", proposal_run(pairs)).run()
    before, after = (
        load_model(tmp_path / "run" / f"{n}.safetensors") for n in ("start", "student")
    )

    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, found = (net.encode(images) for net in (before, after))
        torch.testing.assert_close(found.embedding, expected.embedding, rtol=0, atol=0)
        proposals = [net.propose(expected).center_logits for net in (before, after)]
    assert not torch.allclose(*proposals)


def test_the_image_encoder_learns_if_it_is_told_to(tmp_path, pairs):
    start(tmp_path / "run", proposal_run(pairs, train_image_encoder=True)).run()

    names = moved(tmp_path / "run")
    assert any(name.startswith("image_encoder.") for name in names)
    assert not any(name.startswith(("mask_decoder.", "prompt_encoder.")) for name in names)


def test_an_interrupted_stage_ends_with_the_same_weights(tmp_path, pairs):
    tables = proposal_run(pairs)
    start(tmp_path / "whole", tables).run()

    stopped = start(tmp_path / "parts", tables, StopAfter(2)).run()
    finished = resume(tmp_path / "parts").run()

    assert (stopped.finished, finished.finished) == (False, True)
    whole, parts = (load_file(tmp_path / n / "student.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_all_three_stages_follow_each_other(tmp_path, pairs, teacher):
    stages = {"encoder_stage": {"steps": 1, "batch_size": 2}}
    stages["prompt_stage"] = {"steps": 1, "batch_size": 2, "learning_rate": 1e-2}
    path = tmp_path / "run"

    start(path, run_tables(pairs, teacher, proposal_stage=STAGE, **stages)).run()

    assert not any(n.startswith("proposal_head.") for n in moved(path, "start", "after_prompt"))
    assert all(n.startswith("proposal_head.") for n in moved(path, "after_prompt", "student"))


def test_weights_with_a_head_are_trained_on(tmp_path, pairs):
    torch.manual_seed(0)
    net = build_model("edgeseg_tiny")
    net.add_proposal_head()
    save_weights(net, tmp_path / "first.safetensors")
    tables = proposal_run(pairs)
    tables["student"]["weights"] = str(tmp_path / "first.safetensors")

    start(tmp_path / "run", tables).run()

    first, begun = (
        load_file(tmp_path / "first.safetensors"),
        load_file(tmp_path / "run" / "start.safetensors"),
    )
    assert all(torch.equal(first[name], begun[name]) for name in first)


def test_a_run_needs_some_stage(pairs):
    tables = run_tables(pairs)

    with pytest.raises(ConfigError, match=r"give .*, \[prompt_stage\] or \[proposal_stage\]"):
        parse_config(tables, "test")

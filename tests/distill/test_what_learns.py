import csv

import torch
from safetensors.torch import load_file
from tiny_runs import (
    StopAfter,
    resume,
    run_tables,
    save_teacher,
    start,
)

from edgeseg.modeling.checkpoints import load_model, read_state, save_weights
from edgeseg.modeling.registry import build_model

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def metrics(path, stage):
    with (path / f"{stage}_metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def moved(path, first="start", second="student"):
    """Return the names of the tensors that differ between two weight files of a run."""
    before, after = (load_file(path / f"{name}.safetensors") for name in (first, second))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def prompt_run(pairs, teacher, engine=None, **stage):
    settings = run_tables(
        pairs,
        teacher,
        prompt_stage={"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "max_grad_norm": 1.0}
        | stage,
    )
    settings["engine"] |= engine or {}
    return settings


def test_stage_one_trains_the_image_encoder_alone(tmp_path, pairs, teacher):
    stage = {"steps": 2, "batch_size": 2, "weight_decay": 0.1}
    settings = run_tables(pairs, teacher, encoder_stage=stage)
    settings["engine"]["ema_decay"] = 0.9

    start(tmp_path / "run", settings).run()

    names = moved(tmp_path / "run")
    assert "image_encoder.backbone.conv_stem.weight" in names
    assert all(name.startswith("image_encoder.") for name in names)


def test_frozen_norms_keep_their_statistics_while_their_scales_learn(tmp_path, pairs, teacher):
    start(tmp_path / "run", prompt_run(pairs, teacher, {"norms": "frozen"})).run()

    names = moved(tmp_path / "run")
    assert not [name for name in names if name.endswith(NORM_STATISTICS)]
    assert "image_encoder.backbone.bn1.weight" in names
    assert not [name for name in names if name.startswith("prompt_encoder.")]  # as published


def test_norms_over_batches_learn_their_statistics(tmp_path, pairs, teacher):
    start(tmp_path / "run", prompt_run(pairs, teacher, {"norms": "batch"})).run()

    assert "image_encoder.backbone.bn1.running_mean" in moved(tmp_path / "run")


def test_a_frozen_image_encoder_does_not_move_in_any_number(tmp_path, pairs, teacher):
    train = {"image_encoder": False, "prompt_encoder": True, "mask_decoder": True}
    engine = {"norms": "batch", "ema_decay": 0.5}

    start(tmp_path / "run", prompt_run(pairs, teacher, engine, train=train)).run()

    names = moved(tmp_path / "run")
    assert not [name for name in names if name.startswith("image_encoder.")]
    assert [name for name in names if name.startswith("prompt_encoder.")]
    assert "mask_decoder.high_res_s4.weight" in names
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" not in names


def test_low_rank_updates_move_matrices_and_kernels_alone_and_leave_a_plain_file(
    tmp_path, pairs, teacher
):
    train = {"image_encoder": False, "prompt_encoder": False, "mask_decoder": False}
    settings = prompt_run(pairs, teacher, train=train, lora={"rank": 2}, mask_prompt_share=1.0)

    run = start(tmp_path / "run", settings)
    run.run()

    names = moved(tmp_path / "run")
    shapes = {name: tensor.ndim for name, tensor in run.student.state_dict().items()}
    assert "mask_decoder.transformer.layers.0.self_attn.q_proj.weight" in names
    assert "mask_decoder.high_res_s8.weight" in names
    assert all(name.startswith("mask_decoder.") and name.endswith(".weight") for name in names)
    assert all(shapes[name] >= 2 for name in names)
    assert "mask_decoder.mask_tokens.weight" not in names  # an embedding is no layer
    loaded = load_model(tmp_path / "run" / "student.safetensors").state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in run.student.state_dict().items())


def test_the_average_of_the_weights_is_what_a_run_ends_with(tmp_path, pairs, teacher):
    settings = prompt_run(pairs, teacher, {"ema_decay": 0.9}, steps=1)

    start(tmp_path / "run", settings).run()

    name = "mask_decoder.mask_tokens.weight"
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    before = load_file(tmp_path / "run" / "start.safetensors")[name]
    after = load_file(tmp_path / "run" / "student.safetensors")[name]
    present = checkpoint["net"][name]
    assert not torch.equal(present, before)
    torch.testing.assert_close(after, 0.1 * before + 0.9 * present)  # the first decay is 1 / 10


def test_a_wider_teacher_is_followed_through_a_layer_that_is_thrown_away(tmp_path, pairs):
    save_teacher(tmp_path / "wide.safetensors", "edgeseg_xs")  # 128 wide, with finer levels
    settings = run_tables(
        pairs, tmp_path / "wide.safetensors", encoder_stage={"steps": 2, "batch_size": 1}
    )
    settings["teacher"] |= {"model": "edgeseg_xs", "image_size": 64}

    assert not start(tmp_path / "run", settings, StopAfter(1)).run().finished
    assert resume(tmp_path / "run").run().finished  # the layer is in the checkpoint

    assert not [n for n in load_file(tmp_path / "run" / "student.safetensors") if "extra" in n]
    assert [row["high_res"] for row in metrics(tmp_path / "run", "encoder")] == ["0", "0"]


def test_a_teacher_with_finer_levels_trains_the_students_projections(tmp_path, pairs):
    save_teacher(tmp_path / "fine.safetensors", "edgeseg_tiny")
    settings = run_tables(
        pairs, tmp_path / "fine.safetensors", encoder_stage={"steps": 2, "batch_size": 2}
    )
    settings["teacher"] |= {"model": "edgeseg_tiny", "image_size": 128}
    state, _ = read_state(tmp_path / "fine.safetensors")
    state["mask_decoder.high_res_s4.weight"] += 1.0  # a teacher that uses its skips
    net = build_model("edgeseg_tiny")
    net.load_state_dict(state)
    save_weights(net, tmp_path / "fine.safetensors")

    start(tmp_path / "run", settings).run()

    assert "mask_decoder.high_res_s4.weight" in moved(tmp_path / "run")
    assert float(metrics(tmp_path / "run", "encoder")[0]["high_res"]) > 0

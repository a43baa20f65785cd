import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import (
    RecordingReporter,
    StopAfter,
    resume,
    run_tables,
    save_teacher,
    start,
    write_image,
)

from edgeseg.distill.config import parse_config
from edgeseg.distill.distiller import build_student
from edgeseg.distill.teachers import load_teacher
from edgeseg.errors import CacheError, ConfigError, DataError, DivergedError, WeightsError
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


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# A whole run.


def test_a_run_leaves_what_its_folder_promises(tmp_path, pairs, teacher):
    settings = run_tables(
        pairs,
        teacher,
        encoder_stage={"steps": 2, "batch_size": 2},
        prompt_stage={"steps": 2, "batch_size": 2},
        evaluation={
            "every_steps": 1,
            "prompt_sets": ["box"],
            "panel_images": 1,
            "max_images_a_domain": 1,
        },
    )
    settings["engine"]["ema_decay"] = 0.9
    reporter = RecordingReporter()

    result = start(tmp_path / "run", settings, reporter=reporter).run()

    assert result.finished
    assert result.folder == tmp_path / "run"
    found = files(tmp_path / "run")
    boards = {name for name in found if name.startswith("tensorboard/events")}
    labels = ["start", "encoder_000001", "after_encoder", "prompt_000001", "student"]
    assert len(boards) == 1
    assert found - boards == {
        "config.json",
        "encoder_metrics.csv",
        "prompt_metrics.csv",
        "checkpoints/last.pt",
        "start.safetensors",
        "after_encoder.safetensors",
        "student.safetensors",
        *(f"evaluations/{label}{end}" for label in labels for end in (".json", ".png")),
        *(f"evaluations/{label}-panel.png" for label in labels),
    }
    assert reporter.stages == [("encoder", 0, 2), ("prompt", 0, 2)]
    assert [line.split(":")[0] for line in reporter.messages] == labels
    assert [row["step"] for row in metrics(tmp_path / "run", "encoder")] == ["1", "2"]
    report = json.loads((tmp_path / "run" / "evaluations" / "student.json").read_text())
    assert report["rows"][0]["mean"]["agreement"] is not None  # with the teacher
    assert load_model(tmp_path / "run" / "student.safetensors").image_size == 64


def test_a_run_of_one_stage_has_no_weights_between(tmp_path, pairs, teacher):
    settings = run_tables(pairs, teacher, encoder_stage={"steps": 1, "batch_size": 1})

    assert start(tmp_path / "run", settings).run().finished

    weights = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
    assert weights == {"start.safetensors", "student.safetensors"}


def test_rows_of_metrics_come_every_so_many_steps_and_at_the_end(tmp_path, pairs, teacher):
    settings = run_tables(pairs, teacher, encoder_stage={"steps": 5, "batch_size": 1})
    settings["engine"]["log_every_steps"] = 2

    start(tmp_path / "run", settings).run()

    rows = metrics(tmp_path / "run", "encoder")
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    assert all(0 <= float(row["loading_share"]) <= 1 for row in rows)
    assert all(float(row["images_per_s"]) > 0 for row in rows)
    # The teacher has no finer levels, so the embedding is the whole loss.
    assert all(row["embedding"] == row["total"] and row["high_res"] == "0" for row in rows)


def test_training_lowers_the_loss(tmp_path, pairs, teacher):
    settings = run_tables(
        pairs, teacher, encoder_stage={"steps": 12, "batch_size": 4, "learning_rate": 3e-3}
    )

    start(tmp_path / "run", settings).run()

    losses = [float(row["embedding"]) for row in metrics(tmp_path / "run", "encoder")]
    assert losses[-1] < 0.9 * losses[0]


# What learns and what stays.


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


# The cache of the teacher's features.


def cached_run(pairs, teacher, cache):
    settings = run_tables(
        pairs,
        teacher,
        encoder_stage={"steps": 1, "batch_size": 4},
        prompt_stage={"steps": 1, "batch_size": 4},
    )
    if cache is not None:
        settings["teacher"]["cache"] = str(cache)
    return settings


def test_cached_features_train_like_fresh_ones(tmp_path, pairs, teacher, monkeypatch):
    monkeypatch.setenv("CACHES", str(tmp_path))
    first, second = RecordingReporter(), RecordingReporter()

    start(tmp_path / "fresh", cached_run(pairs, teacher, None)).run()
    start(tmp_path / "cached", cached_run(pairs, teacher, "$CACHES/c"), reporter=first).run()
    start(tmp_path / "again", cached_run(pairs, teacher, "$CACHES/c"), reporter=second).run()

    for stage, part in (("encoder", "embedding"), ("prompt", "teacher_mask")):
        fresh, cached, again = (
            float(metrics(tmp_path / name, stage)[0][part]) for name in ("fresh", "cached", "again")
        )
        assert cached == pytest.approx(fresh, rel=2e-3)  # float16 keeps 11 bits
        assert again == cached
    assert [m for m in first.messages if "4 images, 0.0 GiB of" in m]  # told before it starts
    assert not [m for m in second.messages if "teacher features" in m]  # nothing was missing


def test_a_cache_of_another_teacher_is_refused(tmp_path, pairs, teacher):
    start(tmp_path / "run", cached_run(pairs, teacher, tmp_path / "cache")).run()
    save_teacher(tmp_path / "other.safetensors", seed=6)
    settings = cached_run(pairs, tmp_path / "other.safetensors", tmp_path / "cache")

    with pytest.raises(CacheError, match=r"cache was made with teacher '.*' where this run has"):
        start(tmp_path / "other", settings).run()


def test_caching_stops_when_asked_and_keeps_what_is_done(tmp_path, pairs, teacher):
    settings = cached_run(pairs, teacher, tmp_path / "cache")

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", settings, lambda: True).run()

    assert resume(tmp_path / "run").run().finished


# Images without labels.


@pytest.fixture
def bare(tmp_path):
    """Four images without any labels."""
    for k in range(4):
        write_image(tmp_path / "bare" / f"b{k}.png", (32 + 4 * k, 48), seed=50 + k)
    return tmp_path / "bare"


def bare_run(bare, teacher, **tables):
    settings = run_tables(bare, teacher, prompt_stage={"steps": 2, "batch_size": 2}, **tables)
    settings["teacher"]["label_points_per_side"] = 3
    for source in settings["data"]["train"]:
        source["format"] = "images"
    return settings


@pytest.fixture
def confident(tmp_path):
    path = tmp_path / "confident.safetensors"
    save_teacher(path, confident=True)
    return path


def test_images_without_labels_are_labelled_by_the_teacher_and_learned(tmp_path, bare, confident):
    evaluation = {"prompt_sets": ["box"], "panel_images": 0, "max_images_a_domain": 1}
    reporter = RecordingReporter()

    run = start(
        tmp_path / "run", bare_run(bare, confident, evaluation=evaluation), reporter=reporter
    )
    assert run.run().finished

    found = files(tmp_path / "run" / "teacher_masks")
    assert len([name for name in found if name.startswith("train/")]) == 4
    assert len([name for name in found if name.startswith("validation/")]) == 4
    assert "the teacher labels 4 images without annotations" in reporter.messages
    assert float(metrics(tmp_path / "run", "prompt")[0]["teacher_mask"]) > 0


def test_labels_of_training_and_validation_images_of_one_name_stay_apart(tmp_path, confident):
    for number, folder in enumerate(("a", "b")):
        write_image(tmp_path / folder / "photos" / "x.png", (30, 40 + number), seed=number)
    settings = bare_run(tmp_path / "a" / "photos", confident, evaluation={})
    settings["data"]["validation"] = [{"format": "images", "path": str(tmp_path / "b" / "photos")}]

    run = start(tmp_path / "run", settings)

    sizes = {}
    for use in ("train", "validation"):
        (path,) = (tmp_path / "run" / "teacher_masks" / use).iterdir()
        sizes[use] = json.loads(path.read_text())["image"]["width"]
    assert sizes == {"train": 40, "validation": 41}
    assert run.records[0].name == "photos/x"  # both have this name


def test_labelling_stops_when_asked_and_continues(tmp_path, bare, confident):
    settings = bare_run(bare, confident)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", settings, StopAfter(2))
    assert len(files(tmp_path / "run" / "teacher_masks")) == 2

    assert resume(tmp_path / "run").run().finished

    assert len(files(tmp_path / "run" / "teacher_masks")) == 4


def test_images_the_teacher_sees_nothing_in_are_no_reason_to_stop(tmp_path, pairs, teacher):
    # A random teacher is sure of nothing, so the bare image gets no mask; the others have theirs.
    write_image(tmp_path / "bare" / "b.png", (32, 48), seed=50)
    settings = run_tables(pairs, teacher, prompt_stage={"steps": 5, "batch_size": 1})
    settings["data"]["train"].append({"format": "images", "path": str(tmp_path / "bare")})

    run = start(tmp_path / "run", settings)
    assert run.run().finished

    (path,) = (tmp_path / "run" / "teacher_masks" / "train").iterdir()
    assert json.loads(path.read_text())["annotations"] == []
    losses = [float(row["teacher_mask"]) for row in metrics(tmp_path / "run", "prompt")]
    assert losses.count(0.0) == 1  # one epoch of five images


def test_a_run_without_a_single_mask_says_so_before_it_starts(tmp_path, bare, teacher):
    run = start(tmp_path / "run", bare_run(bare, teacher))

    with pytest.raises(DataError, match="none of the 4 images has a mask to learn from; give data"):
        run.run()


def test_images_without_labels_need_a_teacher(tmp_path, bare):
    settings = run_tables(
        bare, prompt_stage={"steps": 1, "targets": {"teacher": 0, "ground_truth": 1}}
    )
    settings["data"]["train"][0]["format"] = "images"

    with pytest.raises(ConfigError, match=r"4 of 4 images have no annotations and there is no tea"):
        start(tmp_path / "run", settings)


def test_stage_one_needs_no_labels(tmp_path, bare, teacher):
    settings = run_tables(bare, teacher, encoder_stage={"steps": 1, "batch_size": 1})
    settings["data"]["train"][0]["format"] = "images"

    assert start(tmp_path / "run", settings).run().finished
    assert not (tmp_path / "run" / "teacher_masks").exists()


# What goes wrong.


def test_a_diverging_run_keeps_its_last_good_checkpoint(tmp_path, pairs, teacher):
    settings = prompt_run(pairs, teacher, {"checkpoint_every_steps": 1}, steps=4)
    settings["prompt_stage"] |= {"learning_rate": 1e30, "max_grad_norm": 1e9}

    with pytest.raises(DivergedError, match="lower prompt_stage.learning_rate in config.json"):
        start(tmp_path / "run", settings).run()

    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    rows = metrics(tmp_path / "run", "prompt")
    assert checkpoint["step"] == len(rows) < 4
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_a_batch_that_cannot_be_shared_out_is_no_problem_alone(tmp_path, pairs, teacher):
    settings = run_tables(pairs, teacher, encoder_stage={"steps": 1, "batch_size": 3})

    assert start(tmp_path / "run", settings).run().finished


# The student's first weights.


def student_of(teacher=None, **student):
    tables = {
        "student": {"model": "edgeseg_tiny"} | student,
        "data": {"train": [{"format": "sa1b", "path": "x"}]},
        "teacher": {"weights": "x"},
        "prompt_stage": {"steps": 1},
    }
    return build_student(parse_config(tables, "test"), teacher).state_dict()


def test_a_student_starts_at_random_by_its_seed():
    first, second = student_of(), student_of()

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_student_may_start_from_its_teachers_decoder(tmp_path):
    save_teacher(tmp_path / "teacher.safetensors", "edgeseg_tiny")
    net = load_teacher(tmp_path / "teacher.safetensors")

    state = student_of(net, decoder="teacher")

    name = "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    assert torch.equal(state[name], net.net.state_dict()[name])
    assert torch.equal(
        state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"],
        net.net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix,
    )
    net.net.mask_decoder.mask_tokens.weight.data.fill_(0.0)
    assert state["mask_decoder.mask_tokens.weight"].any()  # a copy, not the same tensor


def test_paths_of_weights_may_hold_variables(tmp_path, pairs, monkeypatch):
    save_teacher(tmp_path / "net.safetensors", "edgeseg_tiny", seed=9)
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    wanted = load_file(tmp_path / "net.safetensors")

    started = student_of(weights="$WEIGHTS/net.safetensors")
    decoder = student_of(decoder="$WEIGHTS/net.safetensors")
    settings = run_tables(pairs, "$WEIGHTS/net.safetensors", prompt_stage={"steps": 1})
    followed = start(
        tmp_path / "run", settings | {"teacher": {"weights": "$WEIGHTS/net.safetensors"}}
    )

    assert all(torch.equal(started[name], tensor) for name, tensor in wanted.items())
    name = "mask_decoder.mask_tokens.weight"
    assert torch.equal(decoder[name], wanted[name])
    assert not torch.equal(
        decoder["image_encoder.neck.0.weight"], wanted["image_encoder.neck.0.weight"]
    )
    assert torch.equal(followed.teacher.net.state_dict()[name], wanted[name])


def test_a_decoder_of_another_width_is_refused(tmp_path):
    save_teacher(tmp_path / "wide.safetensors", "edgeseg_xs")
    net = load_teacher(tmp_path / "wide.safetensors", "edgeseg_xs")

    with pytest.raises(WeightsError, match="other shape"):
        student_of(net, decoder="teacher")

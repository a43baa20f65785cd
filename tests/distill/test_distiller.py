import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import (
    RecordingReporter,
    resume,
    run_tables,
    save_teacher,
    start,
)

from edgeseg.distill.config import parse_config
from edgeseg.distill.student import build_student
from edgeseg.distill.teachers import load_teacher
from edgeseg.errors import CacheError, DivergedError, WeightsError
from edgeseg.modeling.checkpoints import load_model


def metrics(path, stage):
    with (path / f"{stage}_metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# A whole run.


def two_stages(pairs, teacher, **tables):
    stage = {"steps": 2, "batch_size": 2}
    settings = run_tables(pairs, teacher, encoder_stage=stage, prompt_stage=stage, **tables)
    settings["engine"]["ema_decay"] = 0.9
    return settings


def test_a_run_leaves_what_its_folder_promises(tmp_path, pairs, teacher):
    evaluation = {
        "every_steps": 1,
        "prompt_sets": ["box"],
        "panel_images": 1,
        "max_images_a_domain": 1,
    }
    settings = two_stages(pairs, teacher, evaluation=evaluation)
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

    start(tmp_path / "unseen", two_stages(pairs, teacher)).run()  # to look changes nothing
    seen, unseen = (load_file(tmp_path / n / "student.safetensors") for n in ("run", "unseen"))
    assert all(torch.equal(seen[name], tensor) for name, tensor in unseen.items())


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


# What goes wrong.


def test_a_diverging_run_keeps_its_last_good_checkpoint(tmp_path, pairs, teacher):
    stage = {"steps": 4, "batch_size": 2, "learning_rate": 1e30, "max_grad_norm": 1e9}
    settings = run_tables(pairs, teacher, prompt_stage=stage)
    settings["engine"]["checkpoint_every_steps"] = 1

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

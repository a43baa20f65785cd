import csv
import json

import pytest
from tiny_runs import (
    RecordingReporter,
    StopAfter,
    resume,
    run_tables,
    save_teacher,
    start,
    write_image,
)

from edgeseg.errors import ConfigError, DataError


def metrics(path, stage):
    with (path / f"{stage}_metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bare(tmp_path):
    """Four images without any labels."""
    for k in range(4):
        write_image(tmp_path / "bare" / f"b{k}.png", (32 + 4 * k, 48), seed=50 + k)
    return tmp_path / "bare"


def bare_run(bare, teacher, **tables):
    settings = run_tables(bare, teacher, prompt_stage={"steps": 2, "batch_size": 2}, **tables)
    settings["teacher"]["labels"] = {"points_per_side": 3}
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

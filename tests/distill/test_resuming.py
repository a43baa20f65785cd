"""An interrupted run continues as if nothing had happened."""

import csv

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import RecordingReporter, StopAfter, resume, run_tables, start

from edgeseg.errors import RunError

STEPS = 3
TIMING = {"images_per_s", "loading_share"}


def tables(pairs, teacher, **changed):
    """Everything random at once: views, clicks, masks fed back, points, averages."""
    settings = run_tables(
        pairs,
        teacher,
        seed=3,
        augmentation={"crop": {}, "color": {}},
        encoder_stage={"steps": STEPS, "batch_size": 2, "learning_rate": 1e-3},
        prompt_stage={
            "steps": STEPS,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "max_grad_norm": 1.0,
            "mask_prompt_share": 0.5,
            "train": {"prompt_encoder": True},
            "targets": {"ground_truth": 1.0},
            "uncertain_points": {"num_points": 100},
            "balanced_share": 0.5,
        },
    )
    settings["engine"]["ema_decay"] = 0.9
    for name, table in changed.items():
        settings[name] = settings[name] | table
    return settings


def rows(path, stage):
    """Return the metrics of a stage without those that depend on the clock."""
    with (path / f"{stage}_metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMING}
            for row in csv.DictReader(file)
        ]


def assert_same_results(path, reference):
    for name in ("start", "after_encoder", "student"):
        found, wanted = (load_file(folder / f"{name}.safetensors") for folder in (path, reference))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
    for stage in ("encoder", "prompt"):
        assert [row["step"] for row in rows(path, stage)] == ["1", "2", "3"]
        assert rows(path, stage) == rows(reference, stage)


@pytest.fixture(scope="module")
def uninterrupted(pairs, teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert start(path, tables(pairs, teacher)).run().finished
    return path


@pytest.mark.parametrize(
    ("num_steps", "stage", "first_step"),
    [(2, "encoder", 2), (5, "prompt", 2)],
)
def test_a_stopped_run_resumes_to_the_same_weights_and_metrics(
    tmp_path, pairs, teacher, uninterrupted, num_steps, stage, first_step
):
    stopped = start(tmp_path / "run", tables(pairs, teacher), StopAfter(num_steps)).run()
    reporter = RecordingReporter()

    assert not stopped.finished
    assert not (tmp_path / "run" / "student.safetensors").exists()
    assert resume(tmp_path / "run", reporter=reporter).run().finished

    assert reporter.stages[0] == (stage, first_step, STEPS)
    assert_same_results(tmp_path / "run", uninterrupted)


def test_a_run_stopped_after_every_step_ends_the_same(tmp_path, pairs, teacher, uninterrupted):
    result = start(tmp_path / "run", tables(pairs, teacher), StopAfter(1)).run()
    num_starts = 1
    while not result.finished:
        result = resume(tmp_path / "run", StopAfter(1)).run()
        num_starts += 1

    # The last step of the first stage leads on to the first one of the second; no other does.
    assert num_starts == 2 * STEPS - 1
    assert_same_results(tmp_path / "run", uninterrupted)


class Failing(RecordingReporter):
    """Dies once a number of steps was logged, like a machine that is switched off."""

    def __init__(self, num_steps):
        super().__init__()
        self.left = num_steps

    def step(self, step, images_per_s, losses):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_killed_run_repeats_what_came_after_its_checkpoint(
    tmp_path, pairs, teacher, uninterrupted
):
    changed = tables(pairs, teacher, engine={"checkpoint_every_steps": 1})
    run = start(tmp_path / "run", changed, reporter=Failing(STEPS + 2))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    reporter = RecordingReporter()

    assert resume(tmp_path / "run", reporter=reporter).run().finished

    # The row of the second step was written, its checkpoint was not.
    assert reporter.stages == [("prompt", 1, STEPS)]
    assert_same_results(tmp_path / "run", uninterrupted)


def test_a_run_killed_before_the_first_checkpoint_of_a_stage_repeats_it(
    tmp_path, pairs, teacher, uninterrupted
):
    run = start(tmp_path / "run", tables(pairs, teacher), reporter=Failing(STEPS + 1))
    with pytest.raises(KeyboardInterrupt):
        run.run()

    assert resume(tmp_path / "run").run().finished

    assert_same_results(tmp_path / "run", uninterrupted)


def test_worker_processes_change_nothing(tmp_path, pairs, teacher, uninterrupted):
    changed = tables(pairs, teacher, data={"workers": 1})

    assert not start(tmp_path / "run", changed, StopAfter(2)).run().finished
    assert resume(tmp_path / "run").run().finished

    assert_same_results(tmp_path / "run", uninterrupted)


def test_low_rank_updates_resume_as_well(tmp_path, pairs, teacher):
    train = {"image_encoder": False, "prompt_encoder": False, "mask_decoder": False}
    changed = tables(pairs, teacher, prompt_stage={"steps": 2, "train": train, "lora": {}})
    del changed["encoder_stage"]
    start(tmp_path / "whole", changed).run()

    assert not start(tmp_path / "cut", changed, StopAfter(1)).run().finished
    assert resume(tmp_path / "cut").run().finished

    whole, cut = (load_file(tmp_path / n / "student.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_resuming_a_finished_run_trains_no_further(tmp_path, pairs, teacher):
    changed = tables(pairs, teacher, encoder_stage={"steps": 1}, prompt_stage={"steps": 1})
    start(tmp_path / "run", changed).run()
    weights = load_file(tmp_path / "run" / "student.safetensors")
    metrics = rows(tmp_path / "run", "prompt")
    reporter = RecordingReporter()

    assert resume(tmp_path / "run", reporter=reporter).run().finished

    assert reporter.stages == [("prompt", 1, 1)]  # starts at its end
    again = load_file(tmp_path / "run" / "student.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert rows(tmp_path / "run", "prompt") == metrics


@pytest.fixture
def stopped(tmp_path, pairs, teacher):
    """A run that was stopped in its second stage."""
    changed = tables(pairs, teacher, encoder_stage={"steps": 1})
    assert not start(tmp_path / "run", changed, StopAfter(2)).run().finished
    return tmp_path / "run"


def test_a_damaged_checkpoint_stops_the_resume(stopped):
    path = stopped / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(RunError, match=r"last.pt is damaged: .*; delete it to start over"):
        resume(stopped).run()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"edgeseg_tiny"', '"edgeseg_xs"', "does not fit its config.json: .*; restore config.json"),
        ('"ema_decay": null', '"ema_decay": 0.5', "does not fit its config.json: .*"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, pairs, teacher, old, new, message):
    changed = run_tables(pairs, teacher, prompt_stage={"steps": 2, "batch_size": 1})
    start(tmp_path / "run", changed, StopAfter(1)).run()
    file = tmp_path / "run" / "config.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new).replace('"image_size": null', '"image_size": 64', 1))

    with pytest.raises(RunError, match=message):
        resume(tmp_path / "run").run()


def test_a_checkpoint_of_a_stage_that_was_taken_out_is_refused(tmp_path, pairs, teacher):
    changed = tables(pairs, teacher)
    start(tmp_path / "run", changed, StopAfter(1)).run()
    (tmp_path / "run" / "config.json").unlink()
    del changed["encoder_stage"]
    (tmp_path / "other").mkdir()
    other = start(tmp_path / "other", changed)
    (tmp_path / "other" / "checkpoints").mkdir()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.rename(tmp_path / "other" / "checkpoints" / "last.pt")

    with pytest.raises(RunError, match=r"is of stage 'encoder', but its config.json has \['prompt"):
        other.run()

"""Takes steps and runs as one of the processes that torchrun starts; `test_processes` starts it.

Usage: python one_of_two_processes.py OUT PHOTOS BARE TEACHER
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from scripted_nets import prompts_on
from tiny_runs import RecordingReporter, StopAfter, resume, run_tables, start

from edgeseg.distill.config import EngineConfig
from edgeseg.distill.processes import build_fabric, share_norms
from edgeseg.distill.stage_config import EncoderStageConfig, PromptStageConfig
from edgeseg.distill.stages import EncoderStage, PromptStage
from edgeseg.distill.step import take_step
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import NetTeacher
from edgeseg.errors import ConfigError
from edgeseg.modeling.registry import build_model

PROMPT = PromptStageConfig(
    steps=1,
    max_grad_norm=5.0,
    refinement_rounds=1,
    mask_prompt_share=0.5,
    targets={"ground_truth": 1.0},
    train={"prompt_encoder": True},
)
ENCODER = EncoderStageConfig(steps=1, max_grad_norm=0.5)
SCENARIOS = {
    "encoder": (ENCODER, (0, 0, 0, 0)),
    "even prompts": (PROMPT, (2, 2, 2, 2)),
    "uneven prompts": (PROMPT, (3, 0, 1, 2)),
    "one process without prompts": (PROMPT, (0, 0, 2, 1)),
    "no mask fed back": (PROMPT.model_copy(update={"mask_prompt_share": 0.0}), (1, 1, 1, 1)),
    "no prompts at all": (PROMPT, (0, 0, 0, 0)),
}


def take_scenario(fabric, config, counts, positions=range(8, 12)):
    """Take one step on this process's share of a batch; return losses, norm, stop and weights."""
    torch.manual_seed(0)
    student, teacher = build_model("edgeseg_tiny").eval(), NetTeacher(build_model("vit_tiny"))
    is_encoder = isinstance(config, EncoderStageConfig)
    stage = (EncoderStage if is_encoder else PromptStage)(student, teacher, config)
    student.requires_grad_(False)
    for part in stage.learning_parts():
        part.requires_grad_(True)
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(learning.values(), lr=1.0)

    local = len(counts) // fabric.world_size
    part = slice(local * fabric.global_rank, local * (fabric.global_rank + 1))
    batch = share(whole_batch(counts), counts, part)
    random = StepRandom(1, positions[part], batch.counts)
    report = take_step(fabric, stage, batch, optimizer, random, stop=fabric.global_rank == 1)
    return {
        "losses": report.losses,
        "grad_norm": report.grad_norm,
        "stop": report.stop,
        "weights": {name: p.detach().clone() for name, p in learning.items()},
        "without_gradient": sorted(name for name, p in learning.items() if p.grad is None),
    }


def whole_batch(counts):
    """Build a batch of images of several shapes, different in every number."""
    generator = torch.Generator().manual_seed(5)
    total = sum(counts)
    corner = torch.rand(total, 2, generator=generator) * 12
    boxes = torch.cat([corner, corner + 5 + torch.rand(total, 2, generator=generator) * 8], dim=1)
    batch = prompts_on(
        [(33, 50), (50, 33), (40, 40), (30, 60)],
        counts,
        [k % 2 == 0 for k in range(total)],
        boxes.tolist(),
        (corner + 3).tolist(),
        torch.rand(total, 16, 16, generator=generator) > 0.5,
    )
    return replace(
        batch,
        student_images=torch.randn(4, 3, 64, 64, generator=generator),
        teacher_images=torch.randn(4, 3, 128, 128, generator=generator),
    )


def share(batch, counts, part):
    """Cut out some images of a batch with their prompts."""
    prompts = slice(sum(counts[: part.start]), sum(counts[: part.stop]))
    return replace(
        batch,
        names=batch.names[part],
        domains=batch.domains[part],
        student_images=batch.student_images[part],
        teacher_images=batch.teacher_images[part],
        image_hw=batch.image_hw[part],
        counts=batch.counts[part],
        masks=batch.masks[prompts],
        boxes_xyxy=batch.boxes_xyxy[prompts],
        points_xy=batch.points_xy[prompts],
        use_box=batch.use_box[prompts],
    )


def labelled_run(bare, teacher, cache):
    """Return the settings of a run that labels, caches, trains and evaluates."""
    settings = run_tables(
        bare,
        teacher,
        prompt_stage={"steps": 2, "batch_size": 4},
        evaluation={"prompt_sets": ["box"], "panel_images": 0, "max_images_a_domain": 1},
    )
    settings["engine"]["ema_decay"] = 0.9
    settings["data"]["train"][0]["format"] = "images"
    settings["teacher"] |= {"labels": {"points_per_side": 2}, "cache": str(cache)}
    return settings


def main(out, photos, bare, teacher):
    """Do everything the tests look at; the first process saves what it found."""
    torch.set_num_threads(1)
    fabric = build_fabric(EngineConfig(accelerator="cpu"))
    found = {name: take_scenario(fabric, *each) for name, each in SCENARIOS.items()}
    try:
        share_norms(fabric, build_model("edgeseg_tiny"))
    except ConfigError as error:
        found["shared norms"] = str(error)

    reporter = RecordingReporter()
    settings = labelled_run(bare, teacher, out / "cache")
    found["finished"] = start(out / "run", settings, reporter=reporter).run().finished
    found["messages"] = reporter.messages

    # One process is asked to stop; both do, and both resume.
    settings = run_tables(photos, teacher, prompt_stage={"steps": 3, "batch_size": 4})
    only_mine = StopAfter(2) if fabric.global_rank == 1 else StopAfter(99)
    found["stopped"] = not start(out / "stopped", settings, only_mine).run().finished
    found["resumed"] = resume(out / "stopped").run().finished
    torch.save(found, out / f"rank{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

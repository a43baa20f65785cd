"""Takes sharpness-aware steps as one of two processes; `test_flat_runs` starts it.

Usage: python flat_of_two_processes.py OUT PHOTOS
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from one_of_two_processes import PROMPT, share, whole_batch
from tiny_runs import run_tables, start

from edgeseg.distill.config import EngineConfig
from edgeseg.distill.flat_minima import SharpnessAware
from edgeseg.distill.flat_step import take_flat_step
from edgeseg.distill.processes import build_fabric
from edgeseg.distill.stages import PromptStage
from edgeseg.distill.step_random import StepRandom
from edgeseg.modeling.registry import build_model

TRUTH = PROMPT.model_copy(
    update={"targets": PROMPT.targets.model_copy(update={"teacher": 0.0, "ground_truth": 1.0})}
)
SCENARIOS = {
    "gradual": ("gradual", (2, 1, 1, 3)),
    "pooled": ("pooled", (2, 1, 1, 3)),
    "per domain": ("per_domain", (2, 1, 1, 3)),
    "one process without prompts of a domain": ("gradual", (0, 1, 2, 1)),
    "a domain without prompts": ("gradual", (0, 1, 0, 2)),
}


def take_scenario(fabric, method, counts):
    """Take one step on this process's share of two domains; return what it did."""
    torch.manual_seed(0)
    student = build_model("edgeseg_tiny").eval()
    stage = PromptStage(student, None, TRUTH)
    student.requires_grad_(False)
    for part in stage.learning_parts():
        part.requires_grad_(True)
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(learning.values(), lr=1.0)
    aware = SharpnessAware(optimizer, student, 0.05, method, seed=2)

    local = len(counts) // fabric.world_size
    part = slice(local * fabric.global_rank, local * (fabric.global_rank + 1))
    whole = replace(whole_batch(counts), domains=("a", "b", "a", "b"))
    batch = share(whole, counts, part)
    random = StepRandom(1, range(8, 12)[part], batch.counts)
    stop = fabric.global_rank == 1
    report = take_flat_step(fabric, stage, batch, aware, random, step=4, stop=stop)
    return {
        "losses": report.losses,
        "grad_norm": report.grad_norm,
        "stop": report.stop,
        "weights": {name: p.detach().clone() for name, p in learning.items()},
    }


def flat_tables(photos, **flat):
    """Return the settings of a run over the domains in a folder, everything random at once."""
    tables = run_tables(
        photos,
        seed=3,
        flat_minima={"rho": 0.05, **flat},
        augmentation={"crop": {}, "color": {}},
        prompt_stage={
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "max_grad_norm": 1.0,
            "mask_prompt_share": 0.5,
            "targets": {"teacher": 0.0, "ground_truth": 1.0},
        },
    )
    tables["data"]["balance_domains"] = True
    return tables


def main(out, photos):
    """Do everything the tests look at; each process saves what it found."""
    torch.set_num_threads(1)
    fabric = build_fabric(EngineConfig(accelerator="cpu"))
    found = {name: take_scenario(fabric, *each) for name, each in SCENARIOS.items()}
    run = start(out / "run", flat_tables(photos, domains_a_step=2)).run()
    found["finished"] = run.finished
    torch.save(found, out / f"rank{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

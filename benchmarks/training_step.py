"""Measure one training step of stage 2 and where its time goes, beside a straightforward step.

The straightforward step has the same images, prompts, weights and losses, but keeps memory in NCHW,
gathers the embedding of every prompt by index, runs segment-anything's own decoder on it and
upsamples each instance to the full input size before the loss. Each has a process of its own, since
ours also sets the process's allocator; they take their steps in turns, on the same real images, and
the other one waits. See benchmarks/README.md.
"""

import argparse
import copy
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor

from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig
from edgeseg.data.batches import TrainingBatch
from edgeseg.data.loading import TrainingLoader, build_loader
from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.data.training import TrainingDataset
from edgeseg.distill.allocator import keep_freed_memory
from edgeseg.distill.losses import MaskLossWeights, content_mask, ground_truth_masks, mask_losses
from edgeseg.distill.optimization import freeze_norms
from edgeseg.distill.prompt_losses import disagreement_clicks, model_frame
from edgeseg.distill.stage_config import PromptStageConfig, TargetsConfig
from edgeseg.distill.stages import PromptStage
from edgeseg.distill.step_random import StepRandom
from edgeseg.files import write_atomically
from edgeseg.modeling.prompt_batch import PromptGroups
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.transformer import TwoWayAttentionBlock

WEIGHTS = MaskLossWeights()


class StraightforwardStep:
    """The baseline: the same two rounds of box prompts, decoded by segment-anything's modules."""

    def __init__(self, net: PromptableNet) -> None:
        self.encoder = copy.deepcopy(net.image_encoder).to(memory_format=torch.contiguous_format)
        self.size, grid = net.image_size, net.image_size // 16
        width, full = net.embed_dim, (self.size, self.size)
        block = cast(TwoWayAttentionBlock, net.mask_decoder.transformer.layers[0])
        mlp_dim = block.mlp.lin1.out_features
        self.prompts = PromptEncoder(width, (grid, grid), full, 16)
        transformer = TwoWayTransformer(2, width, num_heads=8, mlp_dim=mlp_dim)
        self.decoder = MaskDecoder(transformer_dim=width, transformer=transformer)
        for part, name in ((self.prompts, "prompt_encoder"), (self.decoder, "mask_decoder")):
            state = getattr(net, name).state_dict()
            part.load_state_dict({key: state[key] for key in part.state_dict()})
        for part in (self.prompts, self.decoder):
            part.requires_grad_(part is self.decoder)

    def loss(self, batch: TrainingBatch, random: StepRandom) -> Tensor:
        """Return the mean mask loss of both rounds, computed at the full input size."""
        counts, full = batch.counts, (self.size, self.size)
        frame = model_frame(batch.image_hw, self.size)
        index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        embedding = self.encoder(batch.student_images.contiguous()).embedding
        boxes = batch.boxes_xyxy * frame.scale_xy.repeat(1, 2)[index] - 0.5
        valid = content_mask(frame.content_hw, self.size, full)[index]
        targets = F.interpolate(batch.masks[:, None].float(), full) > 0
        points, total = None, torch.zeros(())
        for round_index in range(2):
            sparse, dense = self.prompts(points=points, boxes=boxes, masks=None)
            answers = [
                self.decoder.predict_masks(
                    embedding[[i]],
                    self.prompts.get_dense_pe(),
                    sparse[index == i],
                    dense[index == i],
                )
                for i in range(len(counts))
            ]
            scores = torch.cat([answer[1] for answer in answers])
            low_res = torch.cat([answer[0] for answer in answers])
            logits = F.interpolate(low_res, full, mode="bilinear", align_corners=False)
            losses = mask_losses(logits.flatten(2), targets.flatten(2), valid.flatten(2), WEIGHTS)
            total = total + ground_truth_masks(losses).total / (2 * len(index))
            mine = logits.detach()[torch.arange(len(index)), scores.argmax(dim=1)] > 0
            draw = random.uniform("clicks", round_index, PromptGroups(counts))
            cells, labels = disagreement_clicks(mine, targets[:, 0], valid[:, 0], draw)
            points = (cells[:, None], labels[:, None].clamp(min=-1))
        return total


def our_loss(stage: PromptStage, batch: TrainingBatch, random: StepRandom) -> Tensor:
    """Return the same loss through the code that trains."""
    part = stage.losses(batch, random)["truth_mask"]
    return part.total / part.count


def timed(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> dict[str, float]:
    """Return the loss and the seconds of forward and backward pass."""
    for parameter in parameters:
        parameter.grad = None
    started = time.perf_counter()
    value = loss()
    forward_s = time.perf_counter() - started
    value.backward()
    backward_s = time.perf_counter() - started - forward_s
    return {"loss": float(value.detach()), "forward_s": forward_s, "backward_s": backward_s}


def encoder_seconds(net: PromptableNet, batch: TrainingBatch) -> float:
    """Return the seconds of the image encoder's forward pass."""
    started = time.perf_counter()
    net.encode(batch.student_images.contiguous(memory_format=torch.channels_last))
    return time.perf_counter() - started


def take_steps(options: argparse.Namespace, ours: bool, turns: Connection) -> None:
    """Take a step whenever told to and answer with its figures."""
    if ours:
        keep_freed_memory()
    torch.manual_seed(0)
    net = build_model(options.model, options.image_size, imagenet=True)
    net = net.to(memory_format=torch.channels_last).train()
    freeze_norms(net)
    net.prompt_encoder.requires_grad_(False)
    if ours:
        config = PromptStageConfig(
            steps=1, targets=TargetsConfig(teacher=0, ground_truth=1), box_share=1.0
        )
        stage = PromptStage(net, None, config)
        parameters = [p for p in net.parameters() if p.requires_grad]
    else:
        baseline = StraightforwardStep(net)
        freeze_norms(baseline.encoder.train())
        parameters = [*baseline.encoder.parameters(), *baseline.decoder.parameters()]

    batches = iter(build_batches(options))
    for step in range(options.rounds + 1):
        turns.recv()
        started = time.perf_counter()
        batch = next(batches)
        loading_s = time.perf_counter() - started
        positions = range(step * options.batch_size, (step + 1) * options.batch_size)
        random = StepRandom(0, positions, batch.counts)
        loss = (
            (lambda: our_loss(stage, batch, random))  # noqa: B023
            if ours
            else (lambda: baseline.loss(batch, random))  # noqa: B023
        )
        row = {"prompts": sum(batch.counts), "loading_s": loading_s, **timed(loss, parameters)}
        if ours:
            row["encoder_forward_s"] = encoder_seconds(net, batch)
        turns.send(row)


def build_batches(options: argparse.Namespace) -> TrainingLoader:
    """Open the training stream."""
    records = list_records([SourceConfig(format="sa1b", path=options.data, split="train")])
    records = [r for r in records if not options.domains or r.domain in options.domains]
    dataset = TrainingDataset(
        records,
        0,
        options.image_size,
        max_instances=options.instances,
        box_share=1.0,
        augmentation=AugmentationConfig(crop=CropConfig(), color=ColorConfig()),
        balance_domains=True,
    )
    return build_loader(dataset, 0, options.rounds + 1, options.batch_size, num_workers=1)


def alternate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Let both processes step in turns and return a row a step."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for ours in (True, False):
        end, other_end = context.Pipe()
        process = context.Process(target=take_steps, args=(options, ours, other_end))
        process.start()
        other_end.close()  # so that waiting for a process that failed ends
        ends.append(end)
        processes.append(process)
    rows = []
    for _ in range(options.rounds + 1):
        figures = []
        for end in ends:
            end.send("step")
            try:
                figures.append(end.recv())
            except EOFError:
                for process in processes:
                    process.terminate()
                raise SystemExit("a measuring process failed; its error stands above") from None
        row, other = figures
        row["straightforward_s"] = other["forward_s"] + other["backward_s"]
        row["straightforward_loss"] = other["loss"]
        print(json.dumps(row), flush=True)
        rows.append(row)
    for process in processes:
        process.join()
    return rows


def main() -> None:
    """Time both steps alternately, print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="$EDGESEG_DATA", help="SA-1B folder with train splits")
    parser.add_argument("--domains", nargs="*", help="only these; default: all")
    parser.add_argument("--model", default="edgeseg_s")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training_step.json"))
    options = parser.parse_args()
    rows = alternate(options)

    def median(name: str) -> float:
        return statistics.median(row[name] for row in rows[1:])  # the first step warms up

    step_s = median("forward_s") + median("backward_s")
    names = ("model", "image_size", "batch_size", "instances", "domains")
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{name: getattr(options, name) for name in names},
        "images_per_s": options.batch_size / step_s,
        "straightforward_images_per_s": options.batch_size / median("straightforward_s"),
        "speedup": median("straightforward_s") / step_s,
        "loading_share": median("loading_s") / (median("loading_s") + step_s),
        "median": {name: median(name) for name in rows[0]},
        "steps": rows,
    }
    text = json.dumps(result, indent=2)
    write_atomically(options.out, lambda path: path.write_text(text + "\n", "utf-8"))
    print(
        f"{result['images_per_s']:.2f} images/s, straightforward "
        f"{result['straightforward_images_per_s']:.2f}, {result['speedup']:.1f} times; "
        f"loading {result['loading_share']:.1%}"
    )


if __name__ == "__main__":
    main()

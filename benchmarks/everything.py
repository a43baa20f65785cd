"""Everything in an image: proposals, grids, and the package's own generator, on the same weights.

    EDGESEG_DATA=... python benchmarks/everything.py MODEL

All rows run the same network in PyTorch with folded norms; see `edgeseg.bench.pytorch_searches`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from edgeseg.bench.machine import describe_machine
from edgeseg.bench.pytorch_searches import all_searches
from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.objects import select_records
from edgeseg.evaluation.recall import ImageAnswers, average_recall
from edgeseg.files import write_atomically
from edgeseg.modeling.checkpoints import load_model

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run every search on every image in turns and write recall, prompts and seconds down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="released model, model folder or weight file")
    parser.add_argument("--data", default="$EDGESEG_DATA")
    parser.add_argument("--images", type=int, default=3, help="of each domain")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--min-score", type=float, default=0.3)
    parser.add_argument("--min-stability", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=RESULTS / "everything.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    source = SourceConfig(format="sa1b", path=expand_path(Path(options.data)), split="val")
    records = select_records(
        list_records([source]), EvaluationConfig(max_images_a_domain=options.images)
    )
    net = load_model(options.model)
    searches = all_searches(net, options.min_score, options.min_stability)
    answers: dict[str, dict[str, list[ImageAnswers]]] = {name: {} for name in searches}
    costs: dict[str, list[tuple[float, int]]] = {name: [] for name in searches}
    for number, record in enumerate(records):
        image = record.read_image()
        targets = record.read_masks((image.shape[0], image.shape[1]))
        for name, run in searches.items():
            if number == 0:
                run(image)  # the first run of anything is slow
            started = time.perf_counter()
            masks, num_prompts = run(image)
            costs[name].append((time.perf_counter() - started, num_prompts))
            found = ImageAnswers(targets, masks, None, -np.arange(len(masks), dtype=np.float64))
            answers[name].setdefault(record.domain, []).append(found)
        print(f"{number + 1} of {len(records)}: {record.name}", flush=True)

    results = {}
    for name, domains in answers.items():
        recalls = {domain: average_recall(images, "masks") for domain, images in domains.items()}
        limits = next(iter(recalls.values()))
        results[name] = {
            "recall": {n: float(np.mean([r[n] for r in recalls.values()])) for n in limits},
            "recall_by_domain": recalls,
            "mean_seconds": float(np.mean([seconds for seconds, _ in costs[name]])),
            "mean_prompts": float(np.mean([prompts for _, prompts in costs[name]])),
        }
        shown = ", ".join(f"AR@{n} {100 * r:.1f}" for n, r in results[name]["recall"].items())  # type: ignore[attr-defined]
        cost = results[name]
        print(
            f"{name:26} {shown}, {cost['mean_prompts']:.0f} prompts, {cost['mean_seconds']:.2f} s"
        )
    document = {
        "machine": describe_machine(("torch", "segment-anything")),
        "model": options.model,
        "threads": options.threads,
        "num_images": len(records),
        "min_score": options.min_score,
        "min_stability": options.min_stability,
        "rows": results,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_atomically(options.out, lambda temporary: temporary.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()

"""A batch of several domains taken apart, so that each can be learned from on its own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edgeseg.data.batches import TrainingBatch
from edgeseg.errors import DataError


def domain_of(domains: Sequence[str]) -> str:
    """Return the one domain that all images of a batch are of.

    Args:
        domains: Domain of each image.

    Raises:
        DataError: There are several, or none.
    """
    if len(set(domains)) != 1:
        raise DataError(
            f"a batch of one domain is wanted, got {_counted(domains)}; a mixed one would be "
            "learned from as if it were a domain of its own, so split it with `rows_by_domain`"
        )
    return domains[0]


def rows_by_domain(domains: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of each domain's images in a batch, domains sorted by name.

    Args:
        domains: Domain of each image.

    Raises:
        DataError: The domains have different numbers of images, or there are none.
    """
    rows: dict[str, list[int]] = {name: [] for name in sorted(set(domains))}
    for row, name in enumerate(domains):
        rows[name].append(row)
    if len({len(of_domain) for of_domain in rows.values()}) != 1:
        raise DataError(
            f"a step wants equally many images of each domain, got {_counted(domains)}; draw them "
            "with data.balance_domains = true and a batch size that the domains divide"
        )
    return rows


def pick_images(batch: TrainingBatch, rows: Sequence[int]) -> TrainingBatch:
    """Return some images of a batch with all their objects.

    Args:
        batch: B images.
        rows: Places of the wanted images, in the wanted order.
    """
    images = torch.tensor(rows, dtype=torch.int64, device=batch.image_hw.device)
    ends = np.cumsum([0, *batch.counts])
    objects = torch.tensor(
        [k for row in rows for k in range(ends[row], ends[row + 1])],
        dtype=torch.int64,
        device=batch.masks.device,
    )
    student_images = batch.student_images[images]
    is_shared = batch.teacher_images is batch.student_images  # stays one tensor
    return replace(
        batch,
        names=tuple(batch.names[row] for row in rows),
        domains=tuple(batch.domains[row] for row in rows),
        student_images=student_images,
        teacher_images=student_images if is_shared else _picked(batch.teacher_images, images),
        teacher_embedding=_picked(batch.teacher_embedding, images),
        image_hw=batch.image_hw[images],
        counts=tuple(batch.counts[row] for row in rows),
        masks=batch.masks[objects],
        boxes_xyxy=batch.boxes_xyxy[objects],
        points_xy=batch.points_xy[objects],
        use_box=batch.use_box[objects],
    )


def _picked(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def _counted(domains: Sequence[str]) -> str:
    counts = {name: domains.count(name) for name in sorted(set(domains))}
    return ", ".join(f"{count} of {name}" for name, count in counts.items()) or "no images"

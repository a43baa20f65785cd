"""How many objects a model's region proposals find, by their boxes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError, EdgesegError
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.objects import Record, select_records
from edgeseg.evaluation.recall import LIMITS, ImageAnswers, average_recall
from edgeseg.proposals import Proposals

MAX_BOX_IOU = 0.7
"""Largest IoU of two proposals of an image that both count."""


class ProposingSegmenter(Protocol):
    """What can be measured; `edgeseg.runtime.Segmenter` is one."""

    def encode(self, image: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - its own business
        """Encode one image, (H, W, 3) uint8 RGB."""

    def propose(self, encoded: Any) -> Proposals:  # noqa: ANN401
        """Return boxes that probably hold an object."""


@dataclass(frozen=True)
class ProposalRecall:
    """Average recall of boxes, 0 to 1, by the number of proposals of an image that count.

    Attributes:
        domains: Of each domain.
        mean: Mean over the domains.
        num_images: Images with objects.
        num_objects: Objects in them.
    """

    domains: dict[str, dict[int, float]]
    mean: dict[int, float]
    num_images: int
    num_objects: int

    def summary(self) -> str:
        """Return the means in one line."""
        figures = ", ".join(f"AR@{limit} {value:.3f}" for limit, value in self.mean.items())
        return f"proposed boxes {figures} ({self.num_objects} objects in {self.num_images} images)"


def proposal_recall(
    segmenter: ProposingSegmenter, records: Iterable[Record], config: EvaluationConfig
) -> ProposalRecall:
    """Measure the proposals on images with masks; all objects of an image count.

    Args:
        segmenter: A model with proposals.
        records: Images with masks.
        config: Which images; how many objects it wants of an image does not matter here.

    Raises:
        DataError: No image could be read that has an object.
        WeightsError: The model has no proposals.
    """
    found: dict[str, list[ImageAnswers]] = {}
    for record in select_records(records, config):
        try:
            image = record.read_image()
            targets = record.read_masks((image.shape[0], image.shape[1]))
        except (EdgesegError, OSError, ValueError):
            continue  # the evaluation of masks reports it
        if not targets:
            continue
        proposals = segmenter.propose(segmenter.encode(image)).suppressed(MAX_BOX_IOU)
        answers = ImageAnswers(targets, None, proposals.boxes_xyxy, proposals.scores)
        found.setdefault(record.domain, []).append(answers)
    if not found:
        raise DataError("no image has an object to be found; give images with masks")
    domains = {domain: average_recall(images, "boxes") for domain, images in found.items()}
    images = [image for of_domain in found.values() for image in of_domain]
    return ProposalRecall(
        domains=domains,
        mean={limit: float(np.mean([d[limit] for d in domains.values()])) for limit in LIMITS},
        num_images=len(images),
        num_objects=sum(len(image.targets) for image in images),
    )

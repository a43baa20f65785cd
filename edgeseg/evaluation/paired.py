"""Two segmenters on the same images: is one better, or are these images just lucky?

The unit that is drawn again is the image, not the object: objects of one image are alike, and
counting each would make intervals too narrow.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.evaluation.clicks import PromptableSegmenter
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.evaluator import evaluate
from edgeseg.evaluation.objects import Record, select_records

_NUM_RESAMPLES = 10_000
_TAIL_PERCENT = 2.5


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What one segmenter gave on every image.

    Attributes:
        names: Name of each image.
        ious: Mean IoU of the objects of each image, (n,) float64, by prompt set.
        num_objects: Objects of all images.
    """

    names: tuple[str, ...]
    ious: dict[str, NDArray[np.float64]]
    num_objects: int


@dataclass(frozen=True)
class Gain:
    """How much better the second of two segmenters is.

    Attributes:
        before: Mean IoU of the first over the images, 0 to 1.
        after: Mean IoU of the second.
        low: Lower end of the 95 % interval of the mean difference.
        high: Its upper end.
        num_images: Images that both were asked about.
    """

    before: float
    after: float
    low: float
    high: float
    num_images: int

    @property
    def value(self) -> float:
        """Mean difference, second minus first."""
        return self.after - self.before

    def __str__(self) -> str:
        return (
            f"{100 * self.before:.1f} -> {100 * self.after:.1f} "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        )


def score_images(
    segmenter: PromptableSegmenter[Any],
    records: Iterable[Record],
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> ImageScores:
    """Measure a segmenter image by image.

    Args:
        segmenter: What is measured.
        records: Images with masks; one without any object is left out.
        config: Prompt sets, and which images and objects are taken; floors are not measured.
        progress: Called after each image with the number done and of all.

    Raises:
        DataError: There was no object to measure.
    """
    config = config.model_copy(update={"grabcut": None, "boundary": False})
    selected = select_records(records, config)
    names: list[str] = []
    rows: list[list[float]] = []
    num_objects = 0
    for number, record in enumerate(selected, start=1):
        try:
            report = evaluate(segmenter, [record], config)
        except DataError:  # nothing to measure in it, or it cannot be read
            continue
        finally:
            if progress is not None:
                progress(number, len(selected))
        names.append(record.name)
        rows.append([report.row(name).mean.iou or 0.0 for name in config.prompt_sets])
        num_objects += sum(count.num_objects for count in report.domains.values())
    if not rows:
        raise DataError(
            f"none of {len(selected)} images has an object that can be measured; give images with "
            "annotations"
        )
    columns = np.array(rows).T
    ious = dict(zip(config.prompt_sets, columns, strict=True))
    return ImageScores(tuple(names), ious, num_objects)


def gain(before: ImageScores, after: ImageScores, prompt_set: str) -> Gain:
    """Compare two segmenters on the images that both were asked about.

    The interval is a percentile bootstrap over images (Efron 1979), with a fixed seed.

    Raises:
        DataError: They were not asked about the same images.
    """
    if before.names != after.names:
        raise DataError(
            f"the same images must be given to both, got {len(before.names)} and "
            f"{len(after.names)}, {len(set(before.names) & set(after.names))} of them in common"
        )
    first, second = before.ious[prompt_set], after.ious[prompt_set]
    low, high = mean_interval(second - first)
    return Gain(float(first.mean()), float(second.mean()), low, high, len(first))


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, resampling the values."""
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = array[rng.integers(len(array), size=(_NUM_RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.percentile(means, (_TAIL_PERCENT, 100 - _TAIL_PERCENT)).tolist()
    return low, high

"""The training stream: any position gives the same sample, in any process and after any resume."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from edgeseg.data.augmentation import AugmentationConfig
from edgeseg.data.domain_draws import DomainDraws
from edgeseg.data.donors import DonorPool
from edgeseg.data.records import ImageRecord
from edgeseg.data.samples import SampleSettings, TrainingSample, build_sample
from edgeseg.data.stream_order import StreamOrder
from edgeseg.errors import ConfigError, DataError, ImageError

EmbeddingLookup = Callable[[str], NDArray[np.float16]]
"""From the name of a record to its (C, h, w) float16 teacher embedding; picklable when workers are
started by spawning."""
_MAX_ATTEMPTS = 32
"""Records tried for one position; so many broken ones in a row are no accident."""


class TrainingDataset(Dataset[TrainingSample]):
    """Samples by position, from 0 on without end.

    An item depends on the records, the settings, the seed and the position, on nothing else. A
    record that cannot be read is replaced by the next one of its permutation and reported in the
    sample; so is one whose objects were to be pasted, and then nothing is pasted.

    Args:
        records: What to learn from, in a fixed order (`list_records` sorts).
        seed: Not negative.
        student_size: Side S of the student's square input, in pixels; a multiple of 4.
        teacher_size: Side T of the teacher's input, in pixels, or None to make none.
        max_instances: Most objects of one image; drawn at random when it has more.
        box_share: Chance that an object starts from its box rather than from its point.
        box_jitter: Largest shift of a box's edge as a share of its side, below 0.5.
        center_share: Chance that an object's point is its centre rather than any of its pixels.
        augmentation: What may happen to an image, or None.
        embedding_lookup: Gives cached teacher embeddings, or None. A cached embedding belongs to
            the image as it is, so it excludes augmentation.
        with_instances: Whether objects and prompts are wanted, or images alone.
        balance_domains: Whether all domains come equally often.
        draws: Which domains each step learns from, for steps of some domains only.

    Raises:
        ConfigError: A setting is out of range or contradicts another one.
        DataError: There are no records, or none of them has masks although objects are wanted.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        seed: int,
        student_size: int,
        teacher_size: int | None = None,
        *,
        max_instances: int = 16,
        box_share: float = 0.5,
        box_jitter: float = 0.1,
        center_share: float = 0.0,
        augmentation: AugmentationConfig | None = None,
        embedding_lookup: EmbeddingLookup | None = None,
        with_instances: bool = True,
        balance_domains: bool = False,
        draws: DomainDraws | None = None,
    ) -> None:
        if not records:
            raise DataError("there are no records to learn from; check the data sources")
        if with_instances and not any(record.annotations for record in records):
            raise DataError(
                f"none of the {len(records)} records has masks; give data with annotations, or "
                "images alone with with_instances=False"
            )
        if embedding_lookup is not None and augmentation is not None:
            raise ConfigError(
                "cached teacher embeddings belong to images as they are, but augmentation is on; "
                "remove the augmentation or compute the embeddings on the fly"
            )
        self.records = records
        self.settings = SampleSettings(
            student_size=student_size,
            teacher_size=teacher_size,
            with_instances=with_instances,
            max_instances=max_instances,
            box_share=box_share,
            box_jitter=box_jitter,
            center_share=center_share,
            augmentation=augmentation,
        )
        self.embedding_lookup = embedding_lookup
        self.donors = DonorPool(records) if self.settings.paste else None
        self.order = StreamOrder(
            [record.domain for record in records], seed, balance_domains, draws
        )

    @property
    def num_records(self) -> int:
        """Number of records; so many positions are one epoch when domains are not balanced."""
        return len(self.records)

    def __getitem__(self, position: int) -> TrainingSample:
        """Return the sample at a position.

        Raises:
            DataError: Every record that was tried for this position is broken.
        """
        broken: list[str] = []
        for attempt in range(min(_MAX_ATTEMPTS, self.order.num_candidates(position))):
            record = self.records[self.order.record_index(position, attempt)]
            rng = self.order.sample_rng(position, attempt)
            try:
                sample = build_sample(record, self.settings, rng, self.donors)
            except (DataError, ImageError) as error:
                broken.append(str(error))
                continue
            return replace(
                sample,
                teacher_embedding=self._embedding(record.name),
                broken=(*broken, *sample.broken),
            )
        raise DataError(
            f"all {len(broken)} records tried for position {position} are broken; repair or remove "
            f"them. The first ones: {'; '.join(broken[:5])}"
        )

    def _embedding(self, name: str) -> NDArray[np.float16] | None:
        return None if self.embedding_lookup is None else self.embedding_lookup(name)

"""Training images as a few fixed views, whose features are computed once.

A view is drawn like any augmentation, but once, so the encoder's features of it can be kept:
flipping an embedding is not embedding a flipped image, and cropping even less. Which objects are
learned, and where a prompt falls, is drawn anew each time a view comes up.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.data.augmentation import AugmentationConfig, View
from edgeseg.data.chosen_objects import choose_objects
from edgeseg.data.records import ImageRecord
from edgeseg.data.samples import SampleSettings, TrainingSample, build_sample, view_pixels
from edgeseg.data.stream_order import StreamOrder
from edgeseg.data.training import EmbeddingLookup
from edgeseg.distill.embedding_cache import (
    CacheKey,
    CacheProgress,
    EmbeddingCache,
    EmbeddingCacheWriter,
    fill_cache,
)
from edgeseg.distill.teacher_cache import PREPROCESSING
from edgeseg.errors import ConfigError, DataError, ImageError
from edgeseg.modeling.checkpoints import fingerprint

_BATCH_SIZE = 4
_SHARD_SIZE = 16


@dataclass(frozen=True, eq=False)
class FixedView:
    """One way to see one training image.

    Attributes:
        name: A hash of the image file and of how it is seen: the same pixels, whatever they are
            called.
        record: The image.
        view: How it is seen.
    """

    name: str
    record: ImageRecord
    view: View

    @classmethod
    def of(cls, record: ImageRecord, image_hash: bytes, view: View) -> "FixedView":
        """Name a view of an image."""
        facts = asdict(view)
        matrix = facts.pop("color_matrix")
        digest = hashlib.sha256(image_hash)
        digest.update(repr(sorted(facts.items())).encode())
        digest.update(b"" if matrix is None else matrix.tobytes())
        return cls(digest.hexdigest()[:32], record, view)


def draw_views(
    records: Sequence[ImageRecord],
    num_views: int,
    augmentation: AugmentationConfig,
    image_size: int,
    seed: int,
) -> tuple[list[FixedView], list[str]]:
    """Draw the views of images: the first is the image as it is.

    A view depends on the seed, the image file and the view's number, so more images or more views
    leave those that are there as they are.

    Args:
        records: Images with masks.
        num_views: Views of each.
        augmentation: What may happen to an image.
        image_size: Side of the square model input; every view shows an object at this size.
        seed: Not negative.

    Returns:
        The views, and a message for every image that cannot be used.

    Raises:
        ConfigError: There are to be no views, or objects of other images are to be pasted in.
        DataError: No image can be used.
    """
    if num_views < 1:
        raise ConfigError(f"views must be at least 1, got {num_views}")
    if augmentation.paste is not None:
        raise ConfigError(
            "objects of other images cannot be pasted into views whose features are kept; remove "
            "augmentation.paste"
        )
    views: list[FixedView] = []
    broken: list[str] = []
    for record in records:
        try:
            views += _views_of(record, num_views, augmentation, image_size, seed)
        except (DataError, ImageError) as error:
            broken.append(str(error))
    if not views:
        raise DataError(
            f"none of {len(records)} images can be used; the first one: "
            f"{broken[0] if broken else 'there are none'}; give images with masks"
        )
    return views, broken


def _views_of(
    record: ImageRecord,
    num_views: int,
    augmentation: AugmentationConfig,
    image_size: int,
    seed: int,
) -> list[FixedView]:
    image_hw = record.read_image().shape[:2]
    hw = (int(image_hw[0]), int(image_hw[1]))
    rles = record.read_masks(hw)
    if not rles:
        raise DataError(f"{record.name} has no masks; annotate it or leave it out")
    image_hash = hashlib.sha256(record.image.read()).digest()
    image_number = int.from_bytes(image_hash[:8], "big")
    views = []
    for number in range(num_views):
        rng = np.random.default_rng([seed, image_number, number])
        happens = augmentation if number else None
        view, _ = choose_objects(rles, image_size, 1, happens, hw, rng)
        views.append(FixedView.of(record, image_hash, view))
    return views


class CachedViews(Dataset[TrainingSample]):
    """Training samples by position, from 0 on without end, with what a pack reads of each.

    Args:
        views: Of the training images.
        settings: Of the samples.
        seed: Of the order, the objects and the prompts; not negative.
        lookup: From the name of a view to what the pack reads of it.
        balance_domains: Whether all domains come equally often.
    """

    def __init__(
        self,
        views: Sequence[FixedView],
        settings: SampleSettings,
        seed: int,
        lookup: EmbeddingLookup,
        balance_domains: bool = False,
    ) -> None:
        self.views = views
        self.settings = settings
        self.lookup = lookup
        domains = [view.record.domain for view in views]
        self.order = StreamOrder(domains, seed, balance_domains)

    def __getitem__(self, position: int) -> TrainingSample:
        """Return the sample at a position.

        Raises:
            DataError: The image cannot be read any more.
        """
        seen = self.views[self.order.record_index(position)]
        rng = self.order.sample_rng(position)
        sample = build_sample(seen.record, self.settings, rng, fixed_view=seen.view)
        return replace(sample, teacher_embedding=self.lookup(seen.name))


def cache_views(
    folder: Path,
    net: AdaptedNet,
    views: Sequence[FixedView],
    progress: Callable[[CacheProgress], None] | None = None,
) -> EmbeddingLookup:
    """Compute what a pack reads of every view, keep it in a folder, and return its look-up.

    What is there already is kept; an interruption loses a few images.

    Args:
        folder: Of caches; each base model, and what packs read of it, has its own folder inside.
        net: Whose base is asked.
        views: All views that will be looked up.
        progress: Called now and then.

    Raises:
        CacheError: The disk is too small.
    """
    decoder = net.mask_decoder  # its projections make the high-resolution features
    sources = [net.image_encoder, decoder.high_res_s8, decoder.high_res_s4]
    key = CacheKey(
        fingerprint(nn.ModuleList(part for part in sources if part is not None)),
        net.image_size,
        f"{PREPROCESSING}; {net.reads}",
        (net.read_shapes().length, 1, 1),
    )
    folder = folder / key.fingerprint[:16]
    by_name = {seen.name: seen for seen in views}  # two views may happen to be equal

    def embed(names: Sequence[str]) -> NDArray[np.float16]:
        pixels = [_model_input(by_name[name], net.image_size) for name in names]
        images = torch.from_numpy(np.stack(pixels)).contiguous(memory_format=torch.channels_last)
        rows = net.read_shapes().pack(net.read(images))
        return rows.half().cpu().numpy()[:, :, None, None]

    net.eval()
    if EmbeddingCacheWriter(folder, key, _SHARD_SIZE).missing(list(by_name)):
        fill_cache(
            folder,
            key,
            list(by_name),
            embed,
            batch_size=_BATCH_SIZE,
            shard_size=_SHARD_SIZE,
            on_progress=progress,
        )
    return EmbeddingCache(folder, key).lookup


def _model_input(seen: FixedView, image_size: int) -> NDArray[np.float32]:
    return view_pixels(seen.view.of_image(seen.record.read_image()), seen.view, image_size)

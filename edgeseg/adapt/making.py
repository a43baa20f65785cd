"""Makes a pack: from a folder of annotated images to a folder that an application loads."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.cached_views import CachedViews, cache_views, draw_views
from edgeseg.adapt.config import AdaptConfig
from edgeseg.adapt.stage import AdaptStage
from edgeseg.adapt.torch_packs import image_vectors
from edgeseg.adapt.training import train_pack
from edgeseg.data.records import ImageRecord
from edgeseg.data.samples import SampleSettings
from edgeseg.errors import ConfigError
from edgeseg.evaluation.paired import ImageScores, gain, score_images
from edgeseg.modeling.checkpoints import fingerprint
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.packs import NAME_PATTERN, PackBase, PackFigures, PackManifest, write_pack
from edgeseg.runtime.segmenter import Segmenter
from edgeseg.versions import installed_versions

_NO_HASH = "0" * 64  # `write_pack` puts the right one in its place


@dataclass(frozen=True)
class Domain:
    """Images of one kind.

    Attributes:
        name: Of the pack.
        training: Annotated images to learn from.
        validation: Annotated images to judge by; may be empty.
        described: What they are, in words, for the manifest.
        licence: Of what comes of them.
    """

    name: str
    training: Sequence[ImageRecord]
    validation: Sequence[ImageRecord]
    described: str
    licence: str

    def __post_init__(self) -> None:
        if not re.match(NAME_PATTERN, self.name):
            raise ConfigError(
                f"a domain's name must be small letters, digits, _ and -, got {self.name!r}; it "
                "becomes the name of a folder"
            )
        seen = {record.image for record in self.training}
        shared = sorted(str(record.image) for record in self.validation if record.image in seen)
        if shared:
            raise ConfigError(
                f"{len(shared)} images of {self.name} are both learned from and judged by, such as "
                f"{shared[0]}; give each to one of the two"
            )


def make_pack(
    base: PromptableNet,
    domain: Domain,
    config: AdaptConfig,
    folder: Path,
    cache: Path,
    message: Callable[[str], None] = lambda text: None,
) -> PackManifest:
    """Train a pack for a domain, judge it on images it has not seen, and write it.

    Args:
        base: The network; it is frozen from here on.
        domain: The images.
        config: How.
        folder: Of the pack, named as the domain.
        cache: Folder for kept features; what it holds already is not computed again.
        message: Shows a line to whoever started this.

    Raises:
        DataError: There is no image that can be learned from.
        DivergedError: A loss is not finite.
        CacheError: The cache belongs to another base, or the disk is too small.
    """
    started = time.perf_counter()
    net = AdaptedNet(base, config.pack)
    num_objects = fit(net, domain.training, config, cache, message)
    message("features for the router")
    vectors = image_vectors(base, spread(domain.training, config.max_vectors))
    figures = _figures(base, net, domain, config, message)
    manifest = PackManifest(
        name=domain.name,
        base=PackBase(model=base.name, image_size=base.image_size, fingerprint=fingerprint(base)),
        kind=config.pack.kind,
        settings=config.pack.model_dump(mode="json"),
        adapter_sha256=_NO_HASH,
        vectors_sha256=_NO_HASH,
        trained_on=domain.described,
        num_images=len(domain.training),
        num_objects=num_objects,
        seconds=round(time.perf_counter() - started, 1),
        licence=domain.licence,
        figures=figures,
        versions=installed_versions(("edgeseg", "torch", "timm")),
    )
    return write_pack(folder, manifest, net.pack_state(), vectors)


def fit(
    net: AdaptedNet,
    records: Sequence[ImageRecord],
    config: AdaptConfig,
    cache: Path,
    message: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a pack on images, in place.

    Returns:
        How many masks the images have.
    """
    size = net.image_size
    views, broken = draw_views(records, config.views, config.augmentation, size, config.seed)
    for text in broken:
        message(f"left out: {text}")
    message(f"{len(views)} views of {len({v.record.name for v in views})} images")
    lookup = cache_views(cache, net, views)
    training = config.training
    settings = SampleSettings(
        student_size=size,
        max_instances=training.max_instances,
        box_share=training.box_share,
        box_jitter=training.box_jitter,
        augmentation=config.augmentation,
    )
    dataset = CachedViews(views, settings, config.seed, lookup)
    stage = AdaptStage(net, training)

    def show(done: int, of: int, loss: float) -> None:
        if done == of or done % 20 == 0:
            message(f"step {done} of {of}, loss {loss:.3f}")

    train_pack(stage, dataset, config.seed, show, workers=config.workers)
    plain = {view.record.name: view for view in reversed(views)}.values()
    return sum(len(v.record.read_masks(v.view.image_hw)) for v in plain)


def spread(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Return so many records, evenly spread over the list."""
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]


def scores_of(
    net: PromptableNet, records: Sequence[ImageRecord], config: AdaptConfig
) -> ImageScores:
    """Measure a network, with or without a pack, image by image."""
    return score_images(Segmenter(TorchBackend(net, fused=True)), records, config.evaluation)


def _figures(
    base: PromptableNet,
    net: AdaptedNet,
    domain: Domain,
    config: AdaptConfig,
    message: Callable[[str], None],
) -> tuple[PackFigures, ...]:
    if not domain.validation:
        return ()
    message(f"judging by {len(domain.validation)} images")
    before = scores_of(base, domain.validation, config)
    after = scores_of(net, domain.validation, config)
    figures = []
    for prompt_set in config.evaluation.prompt_sets:
        found = gain(before, after, prompt_set)
        message(f"{prompt_set}: {found}")
        figures.append(
            PackFigures(
                prompt_set=prompt_set,
                base=found.before,
                adapted=found.after,
                gain_interval=(found.low, found.high),
                num_images=found.num_images,
                num_objects=after.num_objects,
            )
        )
    return tuple(figures)

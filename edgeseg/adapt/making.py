"""Makes a pack: from a folder of annotated images to a folder that an application loads."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.cached_views import CachedViews, FixedView, cache_views, draw_views
from edgeseg.adapt.config import AdaptConfig
from edgeseg.adapt.stage import AdaptStage
from edgeseg.adapt.torch_packs import image_vectors
from edgeseg.adapt.training import train_pack
from edgeseg.data.records import ImageRecord, evenly
from edgeseg.data.samples import SampleSettings
from edgeseg.errors import ConfigError
from edgeseg.evaluation.paired import ImageScores, gain, score_images
from edgeseg.modeling.checkpoints import fingerprint
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.packs import NAME_PATTERN, PackBase, PackFigures, PackManifest, write_pack
from edgeseg.routing import BASE, DomainVectors
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
        if not re.fullmatch(NAME_PATTERN, self.name) or self.name == BASE:
            raise ConfigError(
                f"a domain's name must be small letters, digits, _ and -, and not {BASE!r}, got "
                f"{self.name!r}; it becomes the name of a folder"
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
        ConfigError: There are too few for the router.
        DivergedError: A loss is not finite.
        CacheError: The disk is too small.
    """
    started = time.perf_counter()
    net = AdaptedNet(base, config.pack)
    views = usable_views(net, domain.training, config, message)
    images = [view.record for view in views[:: config.views]]
    vectors = image_vectors(base, evenly(images, config.max_vectors))
    DomainVectors(domain.name, vectors)  # too few are refused before the long work
    fit(net, views, config, cache, message)
    figures = _figures(base, net, domain, config, message)
    manifest = PackManifest(
        name=domain.name,
        base=PackBase(model=base.name, image_size=base.image_size, fingerprint=fingerprint(base)),
        kind=config.pack.kind,
        settings=config.pack.model_dump(mode="json"),
        adapter_sha256=_NO_HASH,
        vectors_sha256=_NO_HASH,
        trained_on=domain.described,
        num_images=len(images),
        num_objects=sum(len(v.record.read_masks(v.view.image_hw)) for v in views[:: config.views]),
        seconds=round(time.perf_counter() - started, 1),
        licence=domain.licence,
        figures=figures,
        versions=installed_versions(("edgeseg", "torch", "timm")),
    )
    return write_pack(folder, manifest, net.pack_state(), vectors)


def usable_views(
    net: AdaptedNet,
    records: Sequence[ImageRecord],
    config: AdaptConfig,
    message: Callable[[str], None] = lambda text: None,
) -> list[FixedView]:
    """Return the views of all images that can be used, `config.views` of each, and tell the others.

    Raises:
        DataError: No image can be used.
    """
    views, broken = draw_views(
        records, config.views, config.augmentation, net.image_size, config.seed
    )
    for text in broken:
        message(f"left out: {text}")
    return views


def fit(
    net: AdaptedNet,
    views: Sequence[FixedView],
    config: AdaptConfig,
    cache: Path,
    message: Callable[[str], None] = lambda text: None,
) -> None:
    """Train the pack of a network on views, in place.

    Raises:
        DivergedError: A loss is not finite.
        CacheError: The disk is too small.
    """
    message(f"features of {len(views)} views")
    lookup = cache_views(cache, net, views)
    training = config.training
    settings = SampleSettings(
        student_size=net.image_size,
        max_instances=training.max_instances,
        box_share=training.box_share,
        box_jitter=training.box_jitter,
        augmentation=config.augmentation,
    )
    dataset = CachedViews(views, settings, config.seed, lookup)

    def show(done: int, of: int, loss: float) -> None:
        if done == of or done % 20 == 0:
            message(f"step {done} of {of}, loss {loss:.3f}")

    train_pack(AdaptStage(net, training), dataset, config.seed, show, workers=config.workers)


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

"""A base model with packs: which one an image needs is found out or told, and then applied.

The base runs once an image, whatever packs there are. A pack turns what the base computed into
another embedding; one with a decoder of its own also answers the prompts.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.proposals import CellProposals
from edgeseg.routing import BASE, AdaptableImage, Route, Router
from edgeseg.runtime.backend import Backend, ProposingBackend, takes_rgb


@runtime_checkable
class AdaptableBackend(Backend, Protocol):
    """A base model that packs can be added to."""

    def encode_adaptable(self, pixels: NDArray[Any]) -> AdaptableImage:
        """Encode one preprocessed image; see `Backend.encode`."""


class Decoder(Protocol):
    """Answers prompts on features; every `Backend` does."""

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer prompts; see `Backend.decode`."""


class Pack(Protocol):
    """What one domain adds to the base."""

    @property
    def decoder(self) -> Decoder | None:
        """What answers prompts on adapted features; None for the base itself."""

    def adapt(self, pixels: NDArray[Any], image: AdaptableImage) -> NDArray[Any]:
        """Return the adapted (1, D, S/16, S/16) embedding of an image."""


class PackedBackend:
    """A backend that adapts itself to each image.

    Features carry the number of their pack, so that answers do not depend on what was asked before.

    Args:
        base: The base model.
        packs: By name of the domain.
        router: Chooses among them; it knows the same names. None if all is told.
        told: Name of the pack for all images, "base" for none of them; None asks the router.

    Raises:
        ConfigError: There is no pack of the name that is told, nothing chooses, or the router knows
            other names.
    """

    def __init__(
        self,
        base: AdaptableBackend,
        packs: Mapping[str, Pack],
        router: Router | None,
        told: str | None = None,
    ) -> None:
        self.base = base
        self.packs = dict(packs)
        self.router = router
        self.told = told
        self._names = (BASE, *self.packs)
        if told is not None and told not in self._names:
            raise ConfigError(f"there is no pack {told!r}; choose one of {', '.join(self._names)}")
        if told is None and router is None:
            raise ConfigError(
                "packs without a router choose nothing; give vectors of natural images, or tell "
                "which pack to use"
            )
        if router is not None and set(router.names) != set(self._names):
            raise ConfigError(
                f"the router knows {', '.join(router.names[1:])}, but there are the packs "
                f"{', '.join(self.packs)}; make it of these packs"
            )

    @property
    def name(self) -> str:
        """Name of the base."""
        return self.base.name

    @property
    def image_size(self) -> int:
        """Side S of the square input, in pixels."""
        return self.base.image_size

    @property
    def normalises(self) -> bool:
        """Whether the base takes bytes."""
        return takes_rgb(self.base)

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode one image, adapted to its domain; see `Backend.encode`."""
        image = self.base.encode_adaptable(pixels)
        chosen = self.told or self._route(image).name or BASE
        number = np.array(self._names.index(chosen))
        if chosen == BASE:
            return (*image.features, number)
        embedding = self.packs[chosen].adapt(pixels, image)
        return (embedding, *image.features[1:], number)

    def route(self, pixels: NDArray[Any]) -> Route:
        """Say which pack an image needs, and how sure that is.

        Raises:
            ConfigError: There is no router.
        """
        return self._route(self.base.encode_adaptable(pixels))

    def pack_of(self, features: tuple[NDArray[Any], ...]) -> str | None:
        """Return the name of the pack that made features, or None for the base."""
        number = int(features[-1])
        return self._names[number] if number else None

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer prompts; see `Backend.decode`."""
        chosen = self.pack_of(features)
        own = self.packs[chosen].decoder if chosen is not None else None
        return (own or self.base).decode(
            features[:-1], points_xy, point_labels, mask_logits, has_mask
        )

    def propose(self, features: tuple[NDArray[Any], ...]) -> CellProposals:
        """Propose boxes; see `ProposingBackend.propose`.

        Raises:
            WeightsError: The base has no proposals.
        """
        if not isinstance(self.base, ProposingBackend):
            raise WeightsError(f"the model {self.name} proposes nothing; use one that does")
        return self.base.propose(features[:-1])

    def _route(self, image: AdaptableImage) -> Route:
        if self.router is None:
            raise ConfigError("there is no router; give vectors of natural images")
        return self.router.choose(image.router_feature)

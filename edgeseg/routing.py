"""Which domain an image belongs to, told by a vector of features: the choice among adapted packs.

A few vectors of every domain are kept, no images. From them come linear keys, one a domain, in
closed form (linear discriminant analysis with a shrunk covariance), so that adding a domain takes
milliseconds, needs no random numbers, and touches nothing of the other domains. Natural images are
a class of their own, which means "no pack"; so does an image far from everything that is known.

Sources: a router that picks one adapter an image, Yang et al. 2024, CoSAM/MoDA, arXiv:2412.06418;
shrinkage, Friedman 1989, Regularized Discriminant Analysis. Their router has trained tokens and no
class for natural images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError

BASE = "base"
"""Name of the class of images that need no pack."""
_MIN_VECTORS = 2
"""Vectors a domain needs: with one there is no telling how much its images differ."""


@dataclass(frozen=True, eq=False)
class AdaptableImage:
    """What the base makes of an image, as far as packs and their router want to know.

    Attributes:
        features: What `Backend.encode` would have returned, the embedding first.
        neck_input: (1, C, S/16, S/16) float, what the encoder's neck takes.
        router_feature: (D,) float, by which the router knows the domain.
    """

    features: tuple[NDArray[Any], ...]
    neck_input: NDArray[Any]
    router_feature: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class DomainVectors:
    """What is remembered of a domain.

    Attributes:
        name: Of the domain's pack.
        vectors: (M, F) float32, features of M images, M at least 2.

    Raises:
        ConfigError: The vectors have another shape or are not finite.
    """

    name: str
    vectors: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.vectors.shape
        if len(shape) != 2 or shape[0] < _MIN_VECTORS or shape[1] < 1:
            raise ConfigError(
                f"the vectors of {self.name} must be (M, F) with at least {_MIN_VECTORS} images, "
                f"got {shape}; give more images of the domain"
            )
        if not np.isfinite(self.vectors).all():
            raise ConfigError(
                f"the vectors of {self.name} are not finite; check the weights they come from"
            )


@dataclass(frozen=True)
class Route:
    """What the router says of an image.

    Attributes:
        name: The domain's name, or None for no pack.
        shares: Chance of every class, `Router.names` in order; they sum to one.
        distance: Distance to the nearest class, in standard deviations a feature.
        is_known: Whether that is no farther than images of the class are.
    """

    name: str | None
    shares: tuple[float, ...]
    distance: float
    is_known: bool


class Router:
    """Chooses a domain by linear keys.

    Args:
        base: Vectors of images that need no pack; their name does not matter.
        domains: Vectors of every domain, each name once.
        shrinkage: Share of the covariance that is replaced by the same variance in every direction,
            above 0 and at most 1; few vectors need more of it.
        slack: An image farther from a class than this many times its farthest own vector is
            unknown.

    Raises:
        ConfigError: Names repeat, widths differ, or a number is out of range.
    """

    def __init__(
        self,
        base: DomainVectors,
        domains: Sequence[DomainVectors],
        shrinkage: float = 0.2,
        slack: float = 1.25,
    ) -> None:
        classes = [DomainVectors(BASE, base.vectors), *domains]
        _check(classes, shrinkage, slack)
        self.names = tuple(each.name for each in classes)
        groups = [each.vectors.astype(np.float64) for each in classes]
        everything = np.concatenate(groups)
        self._center = everything.mean(axis=0)
        self._spread = everything.std(axis=0) + 1e-6
        groups = [(group - self._center) / self._spread for group in groups]
        self._means = np.stack([group.mean(axis=0) for group in groups])  # (T + 1, F)
        self._precision = _precision(groups, self._means, shrinkage)  # (F, F)
        self._keys = self._means @ self._precision
        self._biases = -0.5 * (self._keys * self._means).sum(axis=1)
        self._limits = slack * np.array(
            [self._farthest(g, m) for g, m in zip(groups, self._means, strict=True)]
        )

    @property
    def width(self) -> int:
        """Numbers of a feature vector, F."""
        return len(self._center)

    def choose(self, feature: NDArray[np.floating]) -> Route:
        """Choose for an image.

        Args:
            feature: (F,) float.

        Raises:
            ConfigError: The feature has another width.
        """
        if feature.shape != (self.width,):
            raise ConfigError(
                f"a feature must be ({self.width},), got {feature.shape}; take it from the encoder "
                "the packs were made for"
            )
        placed = (feature.astype(np.float64) - self._center) / self._spread
        scores = self._keys @ placed + self._biases
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = int(scores.argmax())
        distance = float(self._distances(placed[None] - self._means[best])[0])
        is_known = distance <= self._limits[best]
        name = self.names[best] if best and is_known else None
        return Route(name, tuple(shares.tolist()), distance, bool(is_known))

    def _distances(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the root of the mean square of (n, F) offsets, in standard deviations: (n,)."""
        squares = ((offsets @ self._precision) * offsets).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0) / self.width)

    def _farthest(self, group: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
        """Return the largest distance of a vector to the mean of the others of its class."""
        without_itself = len(group) / (len(group) - 1)
        return float(self._distances((group - mean) * without_itself).max())


def _precision(
    groups: list[NDArray[np.float64]], means: NDArray[np.float64], shrinkage: float
) -> NDArray[np.float64]:
    """Return the inverse of the shrunk covariance within classes."""
    offsets = np.concatenate([g - m for g, m in zip(groups, means, strict=True)])
    covariance = offsets.T @ offsets / max(1, len(offsets) - len(groups))
    width = len(covariance)
    # The small number is for classes whose vectors are all equal.
    even = (np.trace(covariance) / width + 1e-9) * np.eye(width)
    inverse: NDArray[np.float64] = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * even)
    return inverse


def _check(classes: Sequence[DomainVectors], shrinkage: float, slack: float) -> None:
    names = [each.name for each in classes]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"every domain needs a name of its own, other than {BASE!r}, got {names[1:]}"
        )
    widths = {each.name: each.vectors.shape[1] for each in classes}
    if len(set(widths.values())) > 1:
        raise ConfigError(
            f"all vectors must have one width, got {widths}; make them with one base model"
        )
    if not 0 < shrinkage <= 1:
        raise ConfigError(f"shrinkage must be above 0 and at most 1, got {shrinkage}")
    if not slack > 0:
        raise ConfigError(f"slack must be above 0, got {slack}")

"""Inputs and outputs of a Core ML model, as an app sees them.

Scale and bias of an image input are operations of the program, not part of the description. The
pixels that reach the program are 0 to 255 in the declared channel order.

Source: FeatureTypes.proto of the Core ML specification.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.element_types import element_type
from edgeseg.exporter.mil.values import Message

Bounds = tuple[int, int | None]
"""Smallest and largest size of a dimension; None is no limit."""

_ARRAY_TYPES = {
    "FLOAT32": "fp32",
    "DOUBLE": "fp64",
    "FLOAT16": "fp16",
    "INT32": "int32",
    "INT8": "int8",
}
_IMAGE_TYPES = {
    "RGB": "uint8",
    "BGR": "uint8",
    "GRAYSCALE": "uint8",
    "GRAYSCALE_FLOAT16": "fp16",
}


@dataclass(frozen=True)
class Feature:
    """One input or output of a model.

    Attributes:
        name: As apps use it.
        dtype: Element type of the array as MIL names it; "uint8" for most images.
        shape: Default sizes; (H, W, 3) or (H, W) for an image; empty where nothing is stated.
        accepted: The shapes that are taken: alternatives, each with bounds for every dimension.
        colors: "RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"; None for an array.
        description: What the author wrote about it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    accepted: tuple[tuple[Bounds, ...], ...] = ()
    colors: str | None = None
    description: str = ""

    @property
    def is_image(self) -> bool:
        """Whether apps hand over an image rather than an array."""
        return self.colors is not None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of this shape may be given.

        >>> Feature("x", "fp32", (1, 4), (((1, 1), (2, None)),)).accepts((1, 9))
        True
        """
        return any(
            len(bounds) == len(shape)
            and all(
                low <= size <= (high or size)
                for size, (low, high) in zip(shape, bounds, strict=True)
            )
            for bounds in self.accepted
        )

    def __str__(self) -> str:
        kind = f"{self.colors} image" if self.is_image else self.dtype
        return f"'{self.name}' {kind} {' or '.join(map(_written, self.accepted)) or self.shape}"


def read_feature(description: Message) -> Feature:
    """Return the feature of a FeatureDescription message.

    Raises:
        ExportError: It is neither an array nor an image, or of unknown type.
    """
    which = description.type.WhichOneof("Type")
    if which == "multiArrayType":
        return _array_feature(description)
    if which == "imageType":
        return _image_feature(description)
    raise ExportError(
        f"input or output '{description.name}' has type {which}; only arrays and images are known"
    )


def bind_inputs(
    features: Sequence[Feature], arrays: Mapping[str, np.ndarray]
) -> Mapping[str, Tensor]:
    """Return the tensors that a program takes for the arrays that an app gives.

    Every input must be given, also one for which the model has a default.

    Args:
        features: The inputs of the model.
        arrays: Arrays by input name: of the declared shape and kind; for images (H, W, 3) uint8
            RGB whatever the declared channel order, (H, W) uint8, or (H, W) floating.

    Returns:
        By name, float32 or integer; images as (1, 3 or 1, H, W) float32, values as given.

    Raises:
        ExportError: An input is missing, unexpected, or has a wrong shape, kind or value.
    """
    names = {feature.name for feature in features}
    if names != set(arrays):
        raise ExportError(
            f"inputs must be {sorted(names)}, got {sorted(arrays)}; missing: "
            f"{sorted(names - set(arrays))}, unexpected: {sorted(set(arrays) - names)}"
        )
    return {
        feature.name: _tensor(feature, np.asarray(arrays[feature.name])) for feature in features
    }


def _tensor(feature: Feature, array: np.ndarray) -> Tensor:
    element = element_type(feature.dtype)
    numpy_kind = np.floating if element.is_float else np.integer
    if not feature.accepts(array.shape) or not np.issubdtype(array.dtype, numpy_kind):
        raise ExportError(
            f"input {feature} got an array of shape {array.shape} and type {array.dtype}; give it "
            f"that shape, with {'floating' if element.is_float else 'integer'} values"
        )
    if not element.is_float and array.size:
        low, high = element.bounds
        if array.min() < low or array.max() > high:
            raise ExportError(
                f"input {feature} got values from {array.min()} to {array.max()}; "
                f"they must lie between {low} and {high}"
            )
    if feature.is_image:
        return _pixels(feature, array)
    return torch.from_numpy(array.astype(np.float32 if element.is_float else np.int32))


def _pixels(feature: Feature, array: np.ndarray) -> Tensor:
    channels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if feature.colors == "BGR":
        channels = channels[::-1]
    return torch.from_numpy(channels[None].astype(np.float32))


def _array_feature(description: Message) -> Feature:
    array = description.type.multiArrayType
    code = array.ArrayDataType.Name(array.dataType)
    if code not in _ARRAY_TYPES:
        raise ExportError(f"input or output '{description.name}' has the array type {code}")
    shape = tuple(map(int, array.shape))
    flexibility = array.WhichOneof("ShapeFlexibility")
    accepted: tuple[tuple[Bounds, ...], ...] = (tuple((size, size) for size in shape),)
    if flexibility == "enumeratedShapes":
        shapes = array.enumeratedShapes.shapes
        accepted = tuple(tuple((int(n), int(n)) for n in each.shape) for each in shapes)
    elif flexibility == "shapeRange":
        accepted = (tuple(map(_bounds, array.shapeRange.sizeRanges)),)
    return Feature(
        description.name,
        _ARRAY_TYPES[code],
        shape,
        accepted,
        description=description.shortDescription,
    )


def _image_feature(description: Message) -> Feature:
    image = description.type.imageType
    colors = image.ColorSpace.Name(image.colorSpace)
    if colors not in _IMAGE_TYPES:
        raise ExportError(f"input or output '{description.name}' has the colour layout {colors}")
    channels: tuple[int, ...] = (3,) if colors in ("RGB", "BGR") else ()
    shape = (int(image.height), int(image.width), *channels)
    flexibility = image.WhichOneof("SizeFlexibility")
    sizes: list[tuple[Bounds, Bounds]] = [((shape[0], shape[0]), (shape[1], shape[1]))]
    if flexibility == "enumeratedSizes":
        every = image.enumeratedSizes.sizes
        sizes = [((int(s.height),) * 2, (int(s.width),) * 2) for s in every]
    elif flexibility == "imageSizeRange":
        each = image.imageSizeRange
        sizes = [(_bounds(each.heightRange), _bounds(each.widthRange))]
    last = tuple((size, size) for size in channels)
    return Feature(
        description.name,
        _IMAGE_TYPES[colors],
        shape,
        tuple((*size, *last) for size in sizes),
        colors,
        description.shortDescription,
    )


def _bounds(size_range: Message) -> Bounds:
    upper = int(size_range.upperBound)
    return int(size_range.lowerBound), upper if upper > 0 else None


def _written(bounds: tuple[Bounds, ...]) -> str:
    sizes = (str(low) if low == high else f"{low}..{high or ''}" for low, high in bounds)
    return f"({', '.join(sizes)})"

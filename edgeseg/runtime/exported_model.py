"""An exported encoder and decoder as one model, whatever program runs the two files.

A backend gives two graphs that take and return arrays by name. Everything else is here, once: names
and sizes are checked against `edgeseg.signature`, arrays get the element types that the files
declare, and prompts the sizes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ImageError, WeightsError
from edgeseg.export_manifest import ExportManifest, read_export
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.proposals import CellProposals
from edgeseg.runtime.prompt_slots import EmptyMasks, fill_slots
from edgeseg.signature import (
    HAS_MASK,
    HIGH_RES_S4,
    HIGH_RES_S8,
    IMAGE,
    IMAGE_EMBEDDING,
    IMAGE_RGB,
    IOU_SCORES,
    LOW_RES_LOGITS,
    MASK_LOGITS,
    POINT_LABELS,
    POINTS_XY_MODEL,
    PROPOSAL_BOXES_XYXY_MODEL,
    PROPOSAL_CLICK_LOGITS,
    PROPOSAL_SCORES,
    PROPOSAL_STRIDES,
    PromptSlots,
    TensorSpec,
)

_FEATURES = (IMAGE_EMBEDDING, HIGH_RES_S8, HIGH_RES_S4)
_PROPOSALS = (PROPOSAL_BOXES_XYXY_MODEL, PROPOSAL_SCORES, PROPOSAL_CLICK_LOGITS)
_PROMPTS = (POINTS_XY_MODEL, POINT_LABELS, MASK_LOGITS, HAS_MASK)


class Graph(Protocol):
    """One loaded file; threads may call `run` at the same time."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What the file takes, as the file itself says."""

    @property
    def output_names(self) -> Sequence[str]:
        """Names of what `run` returns."""

    @property
    def runs_on(self) -> tuple[str, ...]:
        """What really runs the file, by its program's names, most operations first."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Compute all outputs from all inputs, by name."""


class ExportedModel:
    """The files of a folder as one `Backend`. Threads may share it as far as the graphs.

    Args:
        manifest: Of the folder they come from.
        encoder: Image in, features out.
        decoder: Features and prompts in, logits and scores out.
        proposals: Features in, boxes and scores out, or None for a model that proposes nothing.

    Attributes:
        name: Registry name of the exported model.
        image_size: Side S of the square input, in pixels.
        normalises: Whether `encode` takes (S, S, 3) uint8 instead of normalised floats.
        slots: How many prompts and points the decoder takes in one call; more are split up.
        runs_on: For "encoder", "decoder" and "proposals" what really runs it, such as an execution
            provider.

    Raises:
        WeightsError: The graphs are not what the manifest and `edgeseg.signature` say.
    """

    def __init__(
        self,
        manifest: ExportManifest,
        encoder: Graph,
        decoder: Graph,
        proposals: Graph | None = None,
    ) -> None:
        self.name = manifest.model
        self.image_size = manifest.image_size
        self.normalises = manifest.normalises
        self.runs_on = {"encoder": encoder.runs_on, "decoder": decoder.runs_on}
        self._encoder, self._decoder, self._proposals = encoder, decoder, proposals
        given = {spec.name: spec for spec in decoder.inputs}
        self._features = [given[name] for name in _FEATURES if name in given]
        names = [spec.name for spec in self._features]
        _check_preprocessing(manifest)
        _check_names("encoder", encoder, [self._image_name], names)
        _check_names(
            "decoder",
            decoder,
            [IMAGE_EMBEDDING, *names[1:], *_PROMPTS],
            [LOW_RES_LOGITS, IOU_SCORES],
        )
        if proposals is not None:
            self.runs_on["proposals"] = proposals.runs_on
            _check_names("proposals", proposals, names[:2], list(_PROPOSALS))
        side, quarter = self.image_size, self.image_size // 4
        image_shape = (side, side, 3) if self.normalises else (1, 3, side, side)
        _check_size(encoder.inputs[0], image_shape)
        _check_size(given[MASK_LOGITS], ("N", 1, quarter, quarter))
        self._specs = given
        self.slots = PromptSlots(*map(_fixed, given[POINTS_XY_MODEL].shape[:2]))
        self._empty_masks = EmptyMasks(quarter, np.dtype(given[MASK_LOGITS].dtype))

    @property
    def _image_name(self) -> str:
        return IMAGE_RGB if self.normalises else IMAGE

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Turn one model input into features of the element types that the decoder takes."""
        (image,) = self._encoder.inputs
        answers = self._encoder.run({image.name: cast(pixels, image.dtype)})
        return tuple(cast(answers[spec.name], spec.dtype) for spec in self._features)

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer N prompts on one image; see `edgeseg.runtime.backend.Backend`.

        Raises:
            ImageError: The features are not those of this model's encoder.
            PromptError: A prompt has more points than the decoder has slots.
        """
        self._check_features(features)
        feeds = {
            spec.name: cast(feature, spec.dtype)
            for spec, feature in zip(self._features, features, strict=True)
        }
        quarter = self.image_size // 4
        logits = np.empty((len(points_xy), 4, quarter, quarter), np.float32)
        scores = np.empty((len(points_xy), 4), np.float32)
        start = 0
        for part in fill_slots(
            points_xy, point_labels, mask_logits, has_mask, self.slots, self._empty_masks
        ):
            arrays: tuple[NDArray[Any], ...]
            arrays = part.points_xy, part.point_labels, part.mask_logits, part.has_mask
            for name, array in zip(_PROMPTS, arrays, strict=True):
                feeds[name] = cast(array, self._specs[name].dtype)
            answers = self._decoder.run(feeds)
            self._check_answers(answers, len(part.points_xy))
            rows = slice(start, start + part.num_prompts)
            logits[rows] = answers[LOW_RES_LOGITS][: part.num_prompts]
            scores[rows] = answers[IOU_SCORES][: part.num_prompts]
            start = rows.stop
        return logits, scores

    def propose(self, features: tuple[NDArray[Any], ...]) -> CellProposals:
        """Propose boxes on one image; see `edgeseg.runtime.backend.ProposingBackend`.

        Raises:
            ImageError: The features are not those of this model's encoder.
            WeightsError: There is no file for it.
        """
        if self._proposals is None:
            raise WeightsError(
                f"the exported {self.name} proposes nothing; export weights that have a proposal "
                "head"
            )
        self._check_features(features)
        given = dict(zip((spec.name for spec in self._features), features, strict=True))
        feeds = {spec.name: cast(given[spec.name], spec.dtype) for spec in self._proposals.inputs}
        answers = self._proposals.run(feeds)
        found = [np.asarray(answers[name], np.float32) for name in _PROPOSALS]
        total = sum((self.image_size // stride) ** 2 for stride in PROPOSAL_STRIDES)
        expected = [(1, total, 4), (1, total), (1, total)]
        if [array.shape for array in found] != expected:
            raise WeightsError(
                f"the proposals of {self.name} must be arrays {_shapes(expected)}, got "
                f"{_shapes([array.shape for array in found])}; export it with `edgeseg export`"
            )
        return CellProposals(*(array[0] for array in found))

    def _check_features(self, features: tuple[NDArray[Any], ...]) -> None:
        expected = [spec.shape for spec in self._features]
        got = [feature.shape for feature in features]
        if len(got) != len(expected) or not all(map(_fits, expected, got)):
            raise ImageError(
                f"the features must be those of {self.name}'s encoder, {_shapes(expected)}, got "
                f"{_shapes(got)}; encode the image with this model"
            )

    def _check_answers(self, answers: Mapping[str, NDArray[Any]], num_rows: int) -> None:
        quarter = self.image_size // 4
        expected = (num_rows, 4, quarter, quarter), (num_rows, 4)
        got = answers[LOW_RES_LOGITS].shape, answers[IOU_SCORES].shape
        if got != expected:  # one row would be spread over all prompts silently
            raise WeightsError(
                f"the decoder of {self.name} must answer with {_shapes(expected)}, got "
                f"{_shapes(got)}; export it with `edgeseg export`"
            )


def read_graphs(
    folder: Path, expected_format: Literal["onnx", "coreml"]
) -> tuple[ExportManifest, dict[str, Path]]:
    """Read an exported folder; return its manifest and the paths of what `ExportedModel` takes.

    Returns:
        The manifest; "encoder", "decoder" and, if there is one, "proposals", with their paths.

    Raises:
        WeightsError: There is no such folder, it is damaged, of another format, or has no pair.
    """
    manifest = read_export(folder)
    if manifest.format != expected_format:
        usable = {"onnx": "load it with backend='onnx'", "coreml": "load it with backend='coreml'"}
        advice = usable.get(manifest.format, "its files are for programs written for SAM")
        raise WeightsError(
            f"{folder} holds {manifest.format} files, this backend runs {expected_format}; "
            f"{advice}, or export another target"
        )
    encoder, decoder = manifest.file("encoder"), manifest.file("decoder")
    if encoder is None or decoder is None:
        roles = ", ".join(file.role for file in manifest.files) or "nothing"
        raise WeightsError(
            f"{folder} must hold an encoder and a decoder, got {roles}; export a target with both"
        )
    paths = {file.role: folder / file.path for file in manifest.files if file.role != "fused"}
    return manifest, {str(role): path for role, path in paths.items()}


def cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return an array with an element type, itself if it has it; float16 saturates.

    >>> cast(np.float32([1e9]), "float16").item()
    65504.0
    """
    if dtype == "float16" and array.dtype != np.float16:
        limit = np.finfo(np.float16).max
        array = np.clip(array, -limit, limit)
    return np.ascontiguousarray(array, np.dtype(dtype))


def _check_preprocessing(manifest: ExportManifest) -> None:
    """Refuse a model that needs pixels scaled in a way that `edgeseg.preprocess` does not do."""
    ours = PIXEL_MEAN.tolist() + PIXEL_STD.tolist()
    theirs = [*manifest.pixel_mean, *manifest.pixel_std]
    if not manifest.normalises and not np.allclose(theirs, ours, rtol=1e-6):
        raise WeightsError(
            f"{manifest.model} was exported for pixels with mean and deviation {theirs}, this "
            f"EdgeSeg prepares them with {ours}; export again with normalisation inside the graph"
        )


def _check_names(role: str, graph: Graph, inputs: list[str], outputs: list[str]) -> None:
    got = [spec.name for spec in graph.inputs]
    if sorted(got) != sorted(inputs) or not set(outputs) <= set(graph.output_names):
        raise WeightsError(
            f"the {role} must take {', '.join(inputs)} and return {', '.join(outputs)}, got "
            f"{', '.join(got)} and {', '.join(graph.output_names)}; export it with `edgeseg export`"
        )


def _check_size(spec: TensorSpec, expected: tuple[int | str, ...]) -> None:
    if not _fits(spec.shape, expected):
        raise WeightsError(
            f"{spec.name} must have the shape {_shapes([expected])} that export.json says, got "
            f"{_shapes([spec.shape])}; export again"
        )


def _fits(first: Sequence[int | str], second: Sequence[int | str]) -> bool:
    """Compare two shapes; a letter fits any size."""
    return len(first) == len(second) and all(
        ours == theirs or isinstance(ours, str) or isinstance(theirs, str)
        for ours, theirs in zip(first, second, strict=True)
    )


def _fixed(size: int | str) -> int | None:
    return size if isinstance(size, int) else None


def _shapes(shapes: Sequence[Sequence[int | str]]) -> str:
    return " ".join(f"({', '.join(map(str, shape))})" for shape in shapes)

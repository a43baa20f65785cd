"""Network output to masks: upsampling, choice of the mask token, scores, run-length codes.

Logits are upsampled, never thresholded masks, so that edges are smooth. A low-res cell covers
S / cells model pixels, and the place of its centre in the image is used exactly, also when the
content ends inside a cell. Only the part of the image that can be on the object is computed.

Source: choice of the mask and stability score follow SAM (Kirillov et al. 2023, arXiv:2304.02643);
the run-length code is the one of the COCO annotations (Lin et al. 2014, arXiv:1405.0312).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeseg.geometry import ModelFrame
from edgeseg.mask_crop import MaskCrop, tight_rectangle
from edgeseg.prompts import ABSENT

_Axis = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]

_BAND_ROWS = 64
"""Rows of a mask that are interpolated at once."""


def num_content_cells(frame: ModelFrame, cells: int) -> tuple[int, int]:
    """Return how many rows and columns of a (cells, cells) grid have their centre in the image.

    >>> num_content_cells(ModelFrame((480, 640), 512), 128)
    (96, 128)
    """
    stride = frame.image_size / cells
    rows, cols = (max(1, int(np.ceil(size / stride - 0.5))) for size in frame.content_hw)
    return rows, cols


def content_logits(low_res_logits: NDArray[np.float32], frame: ModelFrame) -> NDArray[np.float32]:
    """Cut the padding off (..., S/4, S/4) logits; return a view (..., rows, columns)."""
    rows, cols = num_content_cells(frame, low_res_logits.shape[-1])
    return low_res_logits[..., :rows, :cols]


def upsample_logits(low_res_logits: NDArray[np.float32], frame: ModelFrame) -> NDArray[np.float32]:
    """Bring the logits of one mask to the size of the image, bilinearly.

    Args:
        low_res_logits: (S/4, S/4) float32 in the model frame.
        frame: The place of the image in the model input.

    Returns:
        (H, W) float32; beyond the centres of the outermost content cells the value stays constant.
    """
    cells = content_logits(low_res_logits, frame)
    rows, cols = _axes(frame, low_res_logits.shape[-1])
    return _between_rows(_between_columns(cells, cols), rows)


def crop_of_logits(low_res_logits: NDArray[np.float32], frame: ModelFrame) -> MaskCrop:
    """Return the mask of one object, logits above zero at image size, without its surroundings.

    Args:
        low_res_logits: (S/4, S/4) float32 in the model frame.
        frame: The place of the image in the model input.

    Returns:
        The same pixels as `upsample_logits(...) > 0`.
    """
    cells = content_logits(low_res_logits, frame)
    left, top, right, bottom = tight_rectangle(cells > 0)
    if right == left:
        return MaskCrop(np.zeros((0, 0), np.bool_), (0, 0), frame.image_hw)
    rows, cols = _axes(frame, low_res_logits.shape[-1])
    y0, rows = _touching(rows, top, bottom)  # a mean of cells that are all outside is outside
    x0, cols = _touching(cols, left, right)
    wide = _between_columns(cells, cols)
    mask = np.empty((len(rows[0]), len(cols[0])), np.bool_)
    for start in range(0, len(mask), _BAND_ROWS):  # the floats of a photograph are never all there
        band = slice(start, start + _BAND_ROWS)
        part = rows[0][band], rows[1][band], rows[2][band]
        np.greater(_between_rows(wide, part), 0, out=mask[band])
    left, top, right, bottom = tight_rectangle(mask)
    return MaskCrop(mask[top:bottom, left:right].copy(), (x0 + left, y0 + top), frame.image_hw)


def upsample_masks(low_res_logits: NDArray[np.float32], frame: ModelFrame) -> NDArray[np.bool_]:
    """Turn (N, S/4, S/4) logits into (N, H, W) bool masks, one float mask in memory at a time."""
    masks = np.zeros((len(low_res_logits), *frame.image_hw), np.bool_)
    for mask, logits in zip(masks, low_res_logits, strict=True):
        crop_of_logits(logits, frame).paste(mask)
    return masks


@lru_cache(maxsize=16)  # the masks of an image come one after another
def _axes(frame: ModelFrame, grid: int) -> tuple[_Axis, _Axis]:
    """Return for every row and every column of the image the two cells it lies between."""
    axes = []
    content_cells = num_content_cells(frame, grid)
    for size, content, num_cells in zip(
        frame.image_hw, frame.content_hw, content_cells, strict=True
    ):
        cells_a_pixel = content / size * grid / frame.image_size
        position = np.clip((np.arange(size) + 0.5) * cells_a_pixel - 0.5, 0, num_cells - 1)
        lower = position.astype(np.intp)
        upper = np.minimum(lower + 1, num_cells - 1)
        axes.append((lower, upper, (position - lower).astype(np.float32)))
    return axes[0], axes[1]


def _touching(axis: _Axis, first: int, end: int) -> tuple[int, _Axis]:
    """Keep the pixels that lie between cells of which one is in first..end - 1."""
    lower, upper, weight = axis
    start = int(np.searchsorted(upper, first))
    stop = int(np.searchsorted(lower, end))
    return start, (lower[start:stop], upper[start:stop], weight[start:stop])


def _between_columns(cells: NDArray[np.float32], cols: _Axis) -> NDArray[np.float32]:
    """Interpolate (rows, columns) cells to (rows, W): the narrow axis first, it is cheaper."""
    lower, upper, weight = cols
    wide = cells[:, lower]
    wide += (cells[:, upper] - wide) * weight
    return wide


def _between_rows(wide: NDArray[np.float32], rows: _Axis) -> NDArray[np.float32]:
    """Interpolate (rows, W) to (H, W)."""
    lower, upper, weight = rows
    full = wide[lower]
    full += (wide[upper] - full) * weight[:, None]
    return full


def choose_mask(
    iou_scores: NDArray[np.float32],
    point_labels: NDArray[np.int64],
    has_mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return which of the four mask tokens answers each prompt, by SAM's rule.

    A single point can mean a whole, a part or a sub-part: the best-scored of tokens 1 to 3 answers.
    A box, several points or a mask prompt leave little doubt: token 0 answers, which was trained
    for them.

    Args:
        iou_scores: (N, 4) float32, predicted IoU of each token.
        point_labels: (N, P) int64, labels as packed for the network; box corners count as points,
            absent slots do not.
        has_mask: (N,) bool, true where a mask prompt is given; None when there is none.

    Returns:
        (N,) int64, 0 to 3.

    >>> choose_mask(np.float32([[0.9, 0.1, 0.3, 0.2]] * 2), np.array([[1, ABSENT], [2, 3]]))
    array([2, 0])
    """
    is_ambiguous = (point_labels != ABSENT).sum(axis=1) == 1
    if has_mask is not None:
        is_ambiguous &= ~has_mask
    return np.where(is_ambiguous, 1 + iou_scores[:, 1:].argmax(axis=1), 0).astype(np.int64)


def stability_score(logits: NDArray[np.float32], offset: float = 1.0) -> NDArray[np.float32]:
    """Return how little each mask changes when its threshold moves.

    It is the IoU of the mask above +offset and the mask above -offset. Give logits without
    padding: `content_logits` or `upsample_logits`.

    Args:
        logits: (..., H, W) float32.
        offset: Distance of the two thresholds from zero, in logits.

    Returns:
        (...) float32 in 0..1; 0 for a mask that is empty at the lower threshold.

    >>> stability_score(np.float32([[2.0, 0.5, -0.5, -2.0]])).item()
    0.3333333432674408
    """
    inner = np.count_nonzero(logits > offset, axis=(-2, -1))
    outer = np.count_nonzero(logits > -offset, axis=(-2, -1))
    return (np.asarray(inner) / np.maximum(outer, 1)).astype(np.float32)

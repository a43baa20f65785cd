"""A backend whose answers one can see: it marks the cells that the prompts name."""

import numpy as np


class CellBackend:
    """Answers a point with its low-res cell and a box with the cells in it.

    Token t marks t more cells to the right of a point, so the four answers differ. A mask prompt
    is added to the logits. The scores are those given.
    """

    def __init__(self, scores=(0.9, 0.3, 0.8, 0.5), image_size=64, name="cells"):
        self.name = name
        self.image_size = image_size
        self.scores = np.float32(scores)
        self.calls = []

    def encode(self, pixels):
        assert pixels.shape == (1, 3, self.image_size, self.image_size)
        assert pixels.dtype == np.float32
        return (pixels.mean(axis=1), pixels)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        assert len(features) == 2
        self.calls.append((points_xy, point_labels, mask_logits, has_mask))
        side = self.image_size // 4
        logits = np.full((len(points_xy), 4, side, side), -1, np.float32)
        for row, (points, labels) in enumerate(zip(points_xy // 4, point_labels, strict=True)):
            cells = points.astype(int)
            for (x, y), label in zip(cells, labels, strict=True):
                if label == 1:
                    for token in range(4):
                        logits[row, token, y, x : x + 1 + token] = 1
            if 2 in labels:
                (x0, y0), (x1, y1) = cells[labels == 2][0], cells[labels == 3][0]
                logits[row, :, y0:y1, x0:x1] = 1
        if mask_logits is not None:
            logits[has_mask] += mask_logits[has_mask]
        return logits, np.tile(self.scores, (len(points_xy), 1))

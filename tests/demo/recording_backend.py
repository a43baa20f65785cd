"""A backend with proposals that remembers its calls, for a second program to get the same ones."""

import numpy as np

from edgeseg.proposals import CellProposals
from edgeseg.signature import ModelShape


class RecordingBackend:
    """Answers prompts with blobs at their places, of sizes that their labels and tokens give."""

    name = "recording"
    image_size = 64

    def __init__(self, seed=0, proposes=True):
        self.calls = []
        rng = np.random.default_rng(seed)
        num_cells = ModelShape(64, 32, has_high_res=False).num_proposals
        centres, sizes = rng.uniform(0, 64, (num_cells, 2)), rng.uniform(4, 30, (num_cells, 2))
        self.proposed = CellProposals(
            np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32),
            rng.uniform(0, 1, num_cells).astype(np.float32) ** 2,
            rng.normal(size=num_cells).astype(np.float32),
        )
        if proposes:
            self.propose = lambda features: self.proposed

    def encode(self, pixels):
        return (pixels,)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        assert mask_logits is None
        y, x = np.mgrid[:16, :16] * 4 + 2.0
        logits = np.empty((len(points_xy), 4, 16, 16), np.float32)
        scores = np.empty((len(points_xy), 4), np.float32)
        for row, (points, labels) in enumerate(zip(points_xy, point_labels, strict=True)):
            here = points[labels >= 0]
            middle = here.mean(axis=0)
            reach = 6 + np.ptp(here, axis=0).mean() / 2
            distance = np.hypot(x - middle[0], (y - middle[1]) * 1.3)
            for token in range(4):
                logits[row, token] = (reach * (1 + token / 2) - distance) / 3
                scores[row, token] = 0.5 + 0.4 * np.sin(middle.sum() + 2 * token)
        self.calls.append((points_xy, point_labels, logits, scores))
        return logits, scores

    def calls_as_values(self):
        """Return the calls as the page's decoder would see and answer them."""
        return [
            {"lowResLogits": logits.ravel(), "iouScores": scores.ravel()}
            for _, _, logits, scores in self.calls
        ]

    def proposals_as_values(self):
        """Return what is proposed in the page's terms."""
        return {
            "boxes": self.proposed.boxes_xyxy.ravel(),
            "scores": self.proposed.scores,
            "clickLogits": self.proposed.click_logits,
        }

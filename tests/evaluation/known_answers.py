"""Records and a segmenter whose answers are written down beforehand.

Images are 24 x 32 and the model input is 128, so a low-res cell is exactly an image pixel.
"""

from dataclasses import dataclass, field

import numpy as np

from edgeseg.geometry import ModelFrame
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import encode_rle

IMAGE_HW = (24, 32)


def rectangle(left, top, right, bottom, image_hw=IMAGE_HW):
    mask = np.zeros(image_hw, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


@dataclass
class KnownRecord:
    """A record held in memory; `error` is raised instead of giving the image."""

    name: str
    masks: list
    domain: str = "shapes"
    error: Exception | None = None
    image_hw: tuple = IMAGE_HW

    def read_image(self):
        if self.error is not None:
            raise self.error
        return np.zeros((*self.image_hw, 3), np.uint8)

    def read_masks(self, image_hw):
        assert image_hw == self.image_hw
        return [encode_rle(mask) for mask in self.masks]


@dataclass
class KnownEncoded:
    frame: ModelFrame


@dataclass
class KnownSegmenter:
    """Answers prompts with masks from a table.

    `answers` maps the first prompt, the box (x0, y0, x1, y1) or the first point (x, y) in image
    pixels, to a list of answers: the first prompt gets the first, one click later the second, and
    so on; the last one stays. An answer is a mask for all tokens, or a list of four.
    """

    answers: dict
    scores: tuple = (0.5, 0.5, 0.5, 0.5)
    image_size: int = 128
    calls: list = field(default_factory=list)

    def encode(self, image):
        return KnownEncoded(ModelFrame(image.shape[:2], self.image_size))

    def predict_logits(self, encoded, prompts):
        self.calls.append(list(prompts))
        side = self.image_size // 4
        logits = np.full((len(prompts), 4, side, side), -1, np.float32)
        for row, prompt in enumerate(prompts):
            for token, mask in enumerate(self.answer(prompt)):
                scaled = np.kron(mask, np.ones((side // 32, side // 32)))
                height, width = scaled.shape
                logits[row, token, :height, :width] = scaled * 2 - 1
        return logits, np.tile(np.float32(self.scores), (len(prompts), 1))

    def answer(self, prompt: Prompt):
        num_clicks = len(prompt.points_xy)
        if prompt.box_xyxy is None:
            key, num_clicks = tuple(prompt.points_xy[0].tolist()), num_clicks - 1
        else:
            key = tuple(prompt.box_xyxy.tolist())
        answers = self.answers[key]
        answer = answers[min(num_clicks, len(answers) - 1)]
        return answer if isinstance(answer, list) else [answer] * 4

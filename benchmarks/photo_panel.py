"""Twenty prompts on photographs outside the training sets, as one picture for a model card.

    edgeseg quickstart        # leaves the photographs in quickstart/photos
    python benchmarks/photo_panel.py MODEL --photos quickstart/photos --out panel.jpg

Nothing is chosen by the outcome: prompts stand in `panel_prompts.toml`, and every answer is the
one that the model's own scores prefer.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.files import write_atomically
from edgeseg.images import read_image
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.prompts import Prompt
from edgeseg.runtime.drawing import draw_prompts
from edgeseg.runtime.segmenter import Segmenter

PROMPTS = Path(__file__).parent / "panel_prompts.toml"
TILE_PX = 256
COLUMNS = 5
BAR_PX = 22


def tile(segmenter: Segmenter, photos: Path, asked: dict[str, Any]) -> NDArray[np.uint8]:
    """Return (TILE_PX, TILE_PX, 3) uint8 RGB: a photograph, a prompt and the answer to it."""
    image = read_image(photos / asked["photo"])
    points = [asked["point_xy"]] if "point_xy" in asked else []
    prompt = Prompt(points_xy=points, box_xyxy=asked.get("box_xyxy"))
    masks = segmenter.segment(segmenter.encode(image), prompt)
    picture = draw_prompts(masks.overlay(image), [prompt])
    scale = TILE_PX / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((TILE_PX, TILE_PX, 3), 32, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    text = f"{asked['of']}  {masks.scores[0]:.2f}"
    cv2.rectangle(canvas, (0, TILE_PX - BAR_PX), (TILE_PX, TILE_PX), (32, 32, 32), cv2.FILLED)
    cv2.putText(canvas, text, (6, TILE_PX - 6), 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def main() -> None:
    """Draw the panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="released model, model folder or weight file")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".jpg or .png")
    options = parser.parse_args()
    segmenter = Segmenter(TorchBackend(load_model(options.model), fused=True))
    asked = tomllib.loads(PROMPTS.read_text("utf-8"))["prompt"]
    tiles = [tile(segmenter, options.photos, one) for one in asked]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    panel = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    write_atomically(options.out, lambda temporary: cv2.imwrite(str(temporary), panel))
    print(f"{options.out}: {len(asked)} prompts")


if __name__ == "__main__":
    main()

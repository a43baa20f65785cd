"""A released model, exported as users do, in Chromium on real photographs."""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
from driven_page import DrivenPage, ListeningServer, mask_iou, open_browser, served

import edgeseg
from edgeseg.cli import main
from edgeseg.demo.site import build_site
from edgeseg.demo.web_runtime import find_runtime
from edgeseg.errors import MissingExtraError
from edgeseg.images import read_image
from edgeseg.manifest import find_weights
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import decode_rle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODEL = "edgeseg_m"
PLACES = {
    "astronaut": ((220, 110), (250, 400), (90, 20, 380, 500)),
    "coffee": ((300, 150), (480, 300), (150, 40, 430, 300)),
}
"""Photograph -> a click, a place that is not meant, and a box."""


@pytest.fixture(scope="module")
def export(request, tmp_path_factory):
    """The model for the target `web`; kept until the model or what exports it changes."""
    digest = hashlib.sha256(find_weights(MODEL).read_bytes())
    for folder in ("edgeseg/exporter", "edgeseg/modeling"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update((ROOT / "export/targets/web.toml").read_bytes())
    digest.update(version("torch").encode())
    kept = request.config.cache.mkdir("edgeseg_web") / digest.hexdigest()[:16]
    if not kept.exists():
        out = tmp_path_factory.mktemp("exports") / "web"
        assert main(["export", MODEL, str(out), "--target", "web"]) == 0
        shutil.rmtree(kept.parent)
        kept.parent.mkdir()
        out.rename(kept)
    return kept


@pytest.fixture(scope="module")
def driven(export, tmp_path_factory):
    """The page with the model."""
    downloads = tmp_path_factory.mktemp("downloads")
    try:
        site = build_site(export, find_runtime())
    except MissingExtraError as error:
        pytest.skip(str(error))
    with served(ListeningServer(site)) as server, open_browser(downloads) as browser:
        yield DrivenPage(browser, downloads).load(server.url)


@pytest.fixture(scope="module")
def segmenter(export):
    return edgeseg.load(export)


@pytest.mark.parametrize("name", PLACES)
def test_the_page_gives_the_masks_of_python(driven, segmenter, tmp_path, name):
    data = pytest.importorskip("skimage.data")
    path = tmp_path / f"{name}.png"
    cv2.imwrite(str(path), getattr(data, name)()[..., ::-1])
    image = read_image(path)
    point, other, box = PLACES[name]

    driven.open_photo(path, image.shape[:2])
    point_xy = driven.click(*point)
    clicked, _ = driven.saved_mask()
    negative_xy = driven.click(*other, shift=True)
    without_other, _ = driven.saved_mask()
    driven.press("clear")
    box_xyxy = driven.drag(box[:2], box[2:])
    boxed, _ = driven.saved_mask()

    encoded = segmenter.encode(image)
    prompts = [Prompt([point_xy, negative_xy], [1, 0]), Prompt(box_xyxy=box_xyxy)]
    expected = segmenter.segment(encoded, prompts).masks
    assert mask_iou(clicked == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    assert mask_iou(without_other == 255, expected[0]) >= 0.98
    assert mask_iou(boxed == 255, expected[1]) >= 0.98
    assert 0.01 < expected[1].mean() < 0.9  # something, and not everything


def test_everything_mode_finds_what_python_finds(driven, segmenter, tmp_path):
    data = pytest.importorskip("skimage.data")
    path = tmp_path / "coffee.png"
    cv2.imwrite(str(path), data.coffee()[..., ::-1])

    driven.open_photo(path, (400, 600))
    driven.press("everything")
    found = json.loads(driven.saved("json"))["annotations"]

    expected = segmenter.segment_everything(read_image(path)).masks.masks
    ours = np.float32([decode_rle(row["segmentation"]).ravel() for row in found])
    theirs = np.float32(expected.reshape(len(expected), -1))
    both = theirs @ ours.T  # (theirs, ours), in pixels
    either = theirs.sum(axis=1)[:, None] + ours.sum(axis=1) - both
    alike = (both / either).max(axis=1) >= 0.98
    # One that is just good enough here may just not be good enough there.
    assert alike.sum() >= 0.95 * len(theirs) > 20
    assert abs(len(ours) - len(theirs)) <= 0.05 * len(theirs)

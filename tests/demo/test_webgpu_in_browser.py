"""The page on WebGPU, by Chromium's adapter in software: the same code with another provider.

It shows that the runtime starts under the page's policy and that masks are those of Python; it says
nothing about speed, and nothing about any graphics card.
"""

import cv2
import pytest
from brightness_model import write_brightness_model
from driven_page import DrivenPage, ListeningServer, mask_iou, open_browser, served

import edgeseg
from edgeseg.demo.site import build_site
from edgeseg.demo.web_runtime import find_runtime
from edgeseg.errors import MissingExtraError
from edgeseg.images import read_image
from edgeseg.prompts import Prompt

SOFTWARE_ADAPTER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
NAME_OF_ADAPTER = """
const [done] = arguments;
const asked = navigator.gpu?.requestAdapter() ?? Promise.resolve(null);
asked.then((adapter) => done(adapter?.info.architecture ?? ""), () => done(""));
"""


def test_webgpu_gives_the_masks_of_python(tmp_path):
    data = pytest.importorskip("skimage.data")
    export = write_brightness_model(tmp_path / "export")
    try:
        site = build_site(export, find_runtime())
    except MissingExtraError as error:
        pytest.skip(str(error))
    photo, downloads = tmp_path / "coffee.png", tmp_path / "downloads"
    cv2.imwrite(str(photo), data.coffee()[..., ::-1])
    downloads.mkdir()
    segmenter = edgeseg.load(export)
    encoded = segmenter.encode(read_image(photo))

    with (
        served(ListeningServer(site)) as server,
        open_browser(downloads, *SOFTWARE_ADAPTER) as browser,
    ):
        browser.get(server.url + "licences.txt")  # of the same place, without the model
        if not browser.execute_async_script(NAME_OF_ADAPTER):
            pytest.skip("this Chromium has no WebGPU adapter in software")
        page = DrivenPage(browser, downloads)
        page.log()  # that there is no icon of a text
        page.load(f"{server.url}?provider=webgpu").open_photo(photo, (400, 600))
        provider, note = page.state("provider"), page.part("provider").get_attribute("title")
        point_xy = page.click(300, 150)
        clicked, _ = page.saved_mask()
        page.press("clear")
        box_xyxy = page.drag((150, 40), (430, 300))
        boxed, _ = page.saved_mask()
        complaints = page.log()

    (expected,) = segmenter.segment(encoded, Prompt(box_xyxy=box_xyxy)).masks
    assert (provider, note) == ("webgpu", "")  # it did not fall back to WebAssembly
    assert mask_iou(clicked == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    assert mask_iou(boxed == 255, expected) >= 0.98
    assert complaints == []

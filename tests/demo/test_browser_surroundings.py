"""The page in Chromium under other conditions: keyboards, phones, other hosts, and its policy."""

import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from brightness_model import write_brightness_model
from driven_page import DrivenPage, ListeningServer, mask_iou, served

import edgeseg
from edgeseg.demo.site import build_site, read_site, write_site
from edgeseg.demo.web_runtime import find_runtime
from edgeseg.images import read_image
from edgeseg.prompts import Prompt

REMEMBER_WORKERS = """
window.workers = [];
window.Worker = class extends Worker {
  constructor(url, options) {
    super(url, options);
    workers.push(String(url));
  }
};
"""
POST_A_PHOTO = """
const [url, done] = arguments;
fetch(url, { method: "POST", body: "a photo", mode: "no-cors" }).catch(() => {}).finally(done);
"""


def test_all_can_be_done_by_keyboard(browser, server, site, downloads, segmenter):
    """From the address to a saved mask without a pointer."""
    from selenium.webdriver.common.keys import Keys

    page = DrivenPage(browser, downloads).load(server.url)
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.get_attribute("data-sample") == "cat.jpg":
            break
    with page.answered():
        browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "canvas"
    page.type(*[Keys.ARROW_LEFT] * 3, *[Keys.ARROW_UP] * 2)  # each a fortieth of 451 pixels
    with page.answered():
        page.type(Keys.ENTER)
    picture, _ = page.saved_mask()
    page.type("b", *[Keys.ARROW_RIGHT] * 8, *[Keys.ARROW_DOWN] * 6)
    with page.answered():
        page.type("b")
    boxed, _ = page.saved_mask()
    with page.answered():
        page.type(Keys.BACKSPACE)
    undone, _ = page.saved_mask()

    image = read_image(site["samples/cat.jpg"])
    height, width = image.shape[:2]
    step = width / 40
    point = (width / 2 - 3 * step, height / 2 - 2 * step)
    box = (*point, point[0] + 8 * step, point[1] + 6 * step)
    encoded = segmenter.encode(image)
    assert mask_iou(picture == 255, segmenter.segment_click(encoded, point).masks[0]) >= 0.98
    (expected,) = segmenter.segment(encoded, Prompt([point], box_xyxy=box)).masks
    assert mask_iou(boxed == 255, expected) >= 0.98
    np.testing.assert_array_equal(picture, undone)


def test_a_phone_has_all_tools_under_the_thumb(
    browser, server, downloads, astronaut, image, segmenter, encoded
):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page = DrivenPage(browser, downloads).load(server.url)
        page.open_photo(astronaut, image.shape[:2])
        for name in ("point", "box", "include", "exclude", "everything", "undo", "png", "json"):
            place = page.part(name).rect
            assert place["width"] >= 44  # what a thumb hits
            assert place["height"] >= 44
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= 390
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390

        screen, point_xy = page.on_screen(200, 120)
        with page.answered():
            page.touch("touchStart", *screen)
            page.touch("touchEnd")
        tapped, _ = page.saved_mask()
        screen, negative_xy = page.on_screen(300, 120)
        with page.answered():  # held for longer than a tap: not on the object
            page.touch("touchStart", *screen)
        page.touch("touchEnd")
        pressed, _ = page.saved_mask()
        page.press("clear")
        page.part("box").click()
        (begin, first), (end, last) = page.on_screen(120, 60), page.on_screen(330, 300)
        with page.answered():
            page.touch("touchStart", *begin)
            page.touch("touchMove", *end)
            page.touch("touchEnd")
        boxed, _ = page.saved_mask()
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert mask_iou(tapped == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    prompts = [Prompt([point_xy, negative_xy], [1, 0]), Prompt(box_xyxy=(*first, *last))]
    expected = segmenter.segment(encoded, prompts).masks
    assert mask_iou(pressed == 255, expected[0]) >= 0.98
    assert mask_iou(boxed == 255, expected[1]) >= 0.98


def test_a_photo_that_was_turned_is_upright_and_a_large_one_is_whole(
    browser, server, downloads, image, segmenter, tmp_path
):
    pillow = pytest.importorskip("PIL.Image")
    large = cv2.resize(image, (5200, 4100), interpolation=cv2.INTER_CUBIC)
    exif = pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    path = tmp_path / "large.jpg"
    pillow.fromarray(large).save(path, quality=92, exif=exif)
    upright = read_image(path)
    assert upright.shape == (5200, 4100, 3)

    page = DrivenPage(browser, downloads).load(server.url)
    page.open_photo(path, upright.shape[:2])
    point_xy = page.click(2600, 2300)
    mask, document = page.saved_mask()

    expected = segmenter.segment_click(segmenter.encode(upright), point_xy).masks[0]
    assert mask.shape == (5200, 4100)
    assert mask_iou(mask == 255, expected) >= 0.98
    assert document["masks"][0]["segmentation"]["size"] == [5200, 4100]


def test_a_file_that_is_no_picture_is_refused_and_the_photo_stays(shown, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")

    shown.part("file").send_keys(str(path))
    shown.wait(lambda: shown.text("error"))

    assert "cannot read notes.txt as a picture; choose a JPEG, PNG" in shown.text("error")
    shown.click(200, 120)  # and the photo that was open can still be pointed at
    assert shown.part("png").is_enabled()


def test_the_policy_stops_every_connection_to_another_place(shown, site):
    with served(ListeningServer(site)) as elsewhere:
        script = """
            const [url, done] = arguments;
            const stopped = [];
            addEventListener("securitypolicyviolation", (e) => stopped.push(e.effectiveDirective));
            const tries = [
              () => fetch(url, { method: "POST", body: "a photo", mode: "no-cors" }),
              () => new Promise((ok, no) => {
                const image = new Image();
                image.onload = ok;
                image.onerror = () => no(new Error("stopped"));
                image.src = url + "icon.svg";
              }),
              () => { if (!navigator.sendBeacon(url, "a photo")) throw new Error("stopped"); },
              () => import(url + "app.js"),
            ];
            Promise.allSettled(tries.map(async (attempt) => attempt())).then((results) =>
              setTimeout(() => done([results.map((result) => result.status), stopped]), 300));
        """
        outcomes, stopped = shown.browser.execute_async_script(script, elsewhere.url)

        assert elsewhere.requests == []
    assert outcomes[0] == outcomes[1] == outcomes[3] == "rejected"
    assert {"connect-src", "img-src", "script-src-elem"} <= set(stopped)


def test_the_worker_with_the_photo_has_the_same_policy(shown):
    script = """
        const [done] = arguments;
        const source = "fetch('https://example.invalid/').catch(() => {});" +
          "addEventListener('securitypolicyviolation', (e) => postMessage(e.blockedURI));";
        const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
        const worker = new Worker(url, { type: "module" });
        worker.onmessage = ({ data }) => done(data);
    """

    assert "example.invalid" in shown.browser.execute_async_script(script)


def test_nothing_but_files_was_asked_of_the_server_and_nothing_was_wrong(shown, server):
    methods = {method for method, _ in server.requests}
    found = [path for _, path in server.requests if path.startswith("/model/encoder.onnx?sha256=")]

    assert methods == {"GET"}
    assert found
    shown.log()  # of tests that ask for trouble
    shown.click(200, 120)
    assert shown.log() == []


def test_a_static_host_that_sends_no_headers_serves_the_page_without_threads(
    browser, site, downloads, astronaut, image, segmenter, encoded, tmp_path
):
    write_site(site, tmp_path / "site")

    class Plain(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Plain, directory=str(tmp_path / "site"))
    remember = {"source": REMEMBER_WORKERS}
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", remember)
    with (
        served(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as host,
        served(ListeningServer(site)) as elsewhere,
    ):
        page = DrivenPage(browser, downloads).load(f"http://127.0.0.1:{host.server_port}/")
        threads = page.state("threads")
        page.open_photo(astronaut, image.shape[:2])
        point_xy = page.click(200, 120)
        mask, _ = page.saved_mask()
        browser.execute_async_script(POST_A_PHOTO, elsewhere.url)
        workers = browser.execute_script("return workers")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)

    assert threads == "1"
    assert mask_iou(mask == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    assert elsewhere.requests == []  # the policy stands in the page itself
    assert [url[:5] for url in workers] == ["blob:"]  # a blob inherits the policy of the page


def test_a_model_that_wants_normalised_numbers_gets_them(
    browser, downloads, astronaut, image, tmp_path
):
    export = write_brightness_model(tmp_path / "export", normalises=False)
    with served(ListeningServer(build_site(export, find_runtime()))) as server:
        page = DrivenPage(browser, downloads).load(server.url)
        page.open_photo(astronaut, image.shape[:2])
        point_xy = page.click(200, 120)
        mask, _ = page.saved_mask()

    segmenter = edgeseg.load(export)
    expected = segmenter.segment_click(segmenter.encode(image), point_xy).masks[0]
    assert mask_iou(mask == 255, expected) >= 0.98


def test_a_photo_chosen_before_the_model_is_here_is_opened_afterwards(
    browser, server, downloads, astronaut
):
    page = DrivenPage(browser, downloads)
    browser.get(server.url)
    page.part("file").send_keys(str(astronaut))

    page.wait(lambda: page.state("state") == "ready")

    assert page.text("status").startswith("astronaut.png, 512 × 400.")


def test_a_page_opened_as_a_file_says_that_it_has_to_be_served(browser, site):
    browser.get(site["index.html"].as_uri())

    page = DrivenPage(browser, None)
    assert "serve the folder with edgeseg demo" in page.text("status")
    assert page.state("state") == "loading"


def test_an_upload_without_its_model_says_so(browser, site, downloads, tmp_path):
    write_site(site, tmp_path / "site")
    shutil.rmtree(tmp_path / "site" / "model")
    (tmp_path / "site" / "model").mkdir()
    (tmp_path / "site" / "model" / "export.json").write_text('{"files": []}')

    with served(ListeningServer(read_site(tmp_path / "site"))) as server:
        page = DrivenPage(browser, downloads).load(server.url)

        assert page.state("state") == "failed"
        assert page.text("error") == (
            "the model has no encoder and decoder; export it with --target web"
        )

"""The page in a headless Chromium, driven as a person would: by pointer, touch, keyboard, files."""

import json
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from edgeseg.demo.server import DemoServer

TIMEOUT_S = 120
"""Machines that test may be busy with other things."""
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


@contextmanager
def open_browser(downloads, *arguments):
    """Start a browser with an empty profile; skip the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}", *arguments):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=driver)
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.set_script_timeout(TIMEOUT_S)
            folder = {"behavior": "allow", "downloadPath": str(downloads)}
            browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
            yield browser
        finally:
            browser.quit()


class ListeningServer(DemoServer):
    """Remembers the method and the address of every request."""

    def __init__(self, site):
        self.requests = []
        super().__init__(site)

    def finish_request(self, request, client_address):
        remembered = self.requests

        class Handler(self.RequestHandlerClass):
            def parse_request(self):
                is_whole = super().parse_request()
                remembered.append((self.command, self.path))
                return is_whole

        Handler(request, client_address, self)


@contextmanager
def served(server):
    """Serve in the background."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class DrivenPage:
    """The page and what a person does with it; places are pixels of the photo."""

    def __init__(self, browser, downloads):
        self.browser = browser
        self.downloads = downloads

    def load(self, url):
        """Open the page and wait until the model is there."""
        self.browser.get(url)
        self.wait(lambda: self.state("state") in ("empty", "failed"))
        return self

    def state(self, name):
        return self.browser.execute_script("return document.body.dataset[arguments[0]]", name)

    def text(self, name):
        return self.part(name).text

    def part(self, name):
        return self.browser.find_element("id", name)

    def wait(self, is_true):
        end = time.monotonic() + TIMEOUT_S
        while not is_true():
            assert time.monotonic() < end, f"{self.text('status')} | {self.text('error')}"
            time.sleep(0.02)

    @contextmanager
    def answered(self):
        """Wait for the answer to what is done inside."""
        before = int(self.state("answers") or 0)
        yield
        self.wait(lambda: int(self.state("answers") or 0) > before)
        assert self.state("state") == "ready"
        assert self.text("error") == ""

    def open_photo(self, path, image_hw):
        """Choose a file of a known size, as the dialog of the browser would."""
        with self.answered():
            self.part("file").send_keys(str(path))
        self.image_hw = image_hw
        return self

    def press(self, name):
        """Press a button that answers."""
        with self.answered():
            self.part(name).click()
        return self

    def type(self, *keys):
        """Type on the photo."""
        self.part("canvas").send_keys(*keys)
        return self

    def on_screen(self, x, y):
        """Return whole screen pixels at a place of the photo, and the exact place of those."""
        left, top, width, height = self._rectangle()
        image_height, image_width = self.image_hw
        screen = round(left + x / image_width * width), round(top + y / image_height * height)
        exact = (screen[0] - left) / width * image_width, (screen[1] - top) / height * image_height
        return screen, exact

    def click(self, x, y, shift=False):
        """Click, and return the exact place."""
        screen, exact = self.on_screen(x, y)
        modifiers = 8 if shift else 0
        with self.answered():
            self._mouse("mouseMoved", screen, 0, modifiers)
            self._mouse("mousePressed", screen, 1, modifiers)
            self._mouse("mouseReleased", screen, 0, modifiers)
        return exact

    def move(self, x, y):
        """Hover over a place."""
        self._mouse("mouseMoved", self.on_screen(x, y)[0], 0)

    def drag(self, first, last):
        """Drag a box, and return it exactly: x0 y0 x1 y1."""
        (begin, exact_begin), (end, exact_end) = self.on_screen(*first), self.on_screen(*last)
        middle = tuple((a + b) // 2 for a, b in zip(begin, end, strict=True))
        with self.answered():
            self._mouse("mousePressed", begin, 1)
            self._mouse("mouseMoved", middle, 1)
            self._mouse("mouseMoved", end, 1)
            self._mouse("mouseReleased", end, 0)
        return (*exact_begin, *exact_end)

    def touch(self, kind, *screen):
        """Put a finger on the screen, move it or lift it: touchStart, touchMove or touchEnd."""
        points = [{"x": screen[0], "y": screen[1]}] if screen else []
        command = {"type": kind, "touchPoints": points}
        self.browser.execute_cdp_cmd("Input.dispatchTouchEvent", command)

    def saved_mask(self):
        """Press PNG and JSON, and return the mask of the picture and the document."""
        return self.saved("png"), json.loads(self.saved("json"))

    def saved(self, kind):
        """Press a button that saves, and return the picture's pixels or the document's text."""
        for path in self.downloads.iterdir():
            path.unlink()
        self.part(kind).click()
        self.wait(lambda: list(self.downloads.glob(f"*.{kind}")))
        (path,) = self.downloads.glob(f"*.{kind}")
        if kind == "json":
            return path.read_text("utf-8")
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)

    def log(self):
        """Return what the browser complains about since the last call."""
        found = self.browser.get_log("browser")
        return [entry["message"] for entry in found if "No available adapters" not in str(entry)]

    def _rectangle(self):
        script = (
            "const r = document.getElementById('canvas').getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height];"
        )
        return self.browser.execute_script(script)

    def _mouse(self, kind, screen, buttons, modifiers=0):
        button = "none" if kind == "mouseMoved" and not buttons else "left"
        command = {"type": kind, "x": screen[0], "y": screen[1], "button": button}
        command |= {"buttons": buttons, "modifiers": modifiers, "clickCount": 1}
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", command)


def mask_iou(ours, theirs):
    """Return the IoU of two bool masks."""
    return np.count_nonzero(ours & theirs) / max(1, np.count_nonzero(ours | theirs))

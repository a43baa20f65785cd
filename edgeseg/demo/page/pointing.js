/** Mouse, pen and finger on the canvas, as clicks and boxes in the photo. */

import { boxBetween } from "./history.js";

const DRAG_PX = 6;
const LONG_PRESS_MS = 500;

/**
 * Listen to a canvas.
 *
 * A mouse hovers, clicks and drags boxes; Shift or the right button says that a click is not on the
 * object. A finger taps, presses long for that, and drags boxes once the box tool is chosen, since
 * it scrolls the page otherwise.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {import("./controller.js").Controller} controller
 * @param {import("./view.js").View} view
 * @param {() => void} forgetCursor Of the keyboard.
 */
export function listenToPointer(canvas, controller, view, forgetCursor) {
  let press = null;

  const forget = () => {
    clearTimeout(press?.timer);
    press = null;
    view.setRubber(null);
  };
  const isNegative = (event) => event.shiftKey || event.button === 2;

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (!controller.isReady || !event.isPrimary || event.button === 1) return;
    forget();
    const place = view.toPhoto(event.clientX, event.clientY);
    press = { event, place, box: null, isDrag: false, timer: 0 };
    forgetCursor();
    if (event.pointerType === "touch" && controller.tool === "point") {
      press.timer = setTimeout(() => {
        press = null;
        navigator.vibrate?.(20);
        controller.click(place, true);
      }, LONG_PRESS_MS);
    } else {
      canvas.setPointerCapture(event.pointerId);
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!controller.isReady || !event.isPrimary) return;
    const place = view.toPhoto(event.clientX, event.clientY);
    if (!press) {
      if (event.pointerType !== "touch") controller.hover(place);
      return;
    }
    const { clientX, clientY } = press.event;
    press.isDrag ||= Math.hypot(event.clientX - clientX, event.clientY - clientY) > DRAG_PX;
    if (!press.isDrag || !controller.canDrawBox) return;
    if (event.pointerType === "touch" && controller.tool === "point") {
      forget(); // the page scrolls
      return;
    }
    press.box = boxBetween(press.place, place, controller.frame);
    view.setRubber(press.box);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!press || !event.isPrimary) return;
    const { box, isDrag, place, event: began } = press;
    forget();
    if (box) controller.drawBox(box);
    else if (!isDrag) controller.click(place, isNegative(began));
  });
  canvas.addEventListener("pointercancel", forget);
  canvas.addEventListener("pointerleave", () => {
    if (!press) controller.leave();
  });
}

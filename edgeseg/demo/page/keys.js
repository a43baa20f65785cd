/** The keyboard on the canvas: a cursor that arrows move, and a key for every tool. */

import { boxBetween } from "./history.js";

/** Shares of the longer side of the photo that an arrow moves the cursor, without and with Shift. */
const [STEP, SMALL_STEP] = [1 / 40, 1 / 400];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Listen to a canvas that has the focus.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {import("./controller.js").Controller} controller
 * @param {import("./view.js").View} view
 * @returns {() => void} Forgets the cursor: there is a new photo, or the mouse is used.
 */
export function listenToKeys(canvas, controller, view) {
  let cursor = null;
  let corner = null;

  const middle = () => ({ x: controller.frame.imageWidth / 2, y: controller.frame.imageHeight / 2 });
  const place = () => (cursor ??= middle());
  const show = () => {
    view.setCursor(place());
    view.setRubber(corner && boxBetween(corner, place(), controller.frame));
  };
  const forgetCorner = () => {
    corner = null;
    view.setRubber(null);
  };

  function move([dx, dy], isSmall) {
    const { imageWidth, imageHeight } = controller.frame;
    const step = Math.max(1, Math.max(imageWidth, imageHeight) * (isSmall ? SMALL_STEP : STEP));
    const { x, y } = place();
    cursor = {
      x: Math.min(Math.max(x + dx * step, 0.5), imageWidth - 0.5),
      y: Math.min(Math.max(y + dy * step, 0.5), imageHeight - 0.5),
    };
    show();
    if (!corner) controller.hover(cursor);
  }

  function box() {
    if (!controller.canDrawBox) return;
    if (!corner) {
      corner = { ...place() };
      show();
      controller.say("First corner set. Move to the other corner and press B or Enter.");
      return;
    }
    const drawn = boxBetween(corner, place(), controller.frame);
    forgetCorner();
    if (drawn) controller.drawBox(drawn);
    else controller.say("The box holds no pixel. Move the cursor away from its first corner.");
  }

  function click(isNegative) {
    if (corner || (controller.tool === "box" && controller.canDrawBox)) box();
    else controller.click({ ...place() }, isNegative);
    show();
  }

  function escape() {
    if (corner) forgetCorner();
    else controller.leaveEverything();
  }

  const actions = {
    Enter: (event) => click(event.shiftKey),
    " ": (event) => click(event.shiftKey),
    "-": () => click(true),
    b: box,
    Backspace: () => controller.undo(),
    z: (event) => (event.ctrlKey || event.metaKey) && controller.undo(),
    Delete: () => controller.clear(),
    e: () => controller.everything(),
    n: (event) => controller.nextObject(event.shiftKey ? -1 : 1),
    s: () => controller.otherSize(),
    p: () => controller.savePng(),
    j: () => controller.saveJson(),
    Escape: escape,
  };

  canvas.addEventListener("keydown", (event) => {
    if (!controller.isReady) return;
    const arrow = ARROWS[event.key];
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
    if (arrow && !hasModifier) move(arrow, event.shiftKey);
    else if (actions[key] && (key === "z") === hasModifier) actions[key](event);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => view.setCursor(null));

  return function forgetCursor() {
    cursor = null;
    forgetCorner();
    view.setCursor(null);
  };
}

/** The canvas: the photo, masks in colour over it, and what was pointed at. */

import { cropOfLogits, isInside } from "./masks.js";
import { MASK_RGB, objectRgb, tintOf } from "./tint.js";

const [PREVIEW_ALPHA, MASK_ALPHA, OBJECT_ALPHA] = [70, 115, 95];
const POSITIVE_COLOUR = "#16a34a";
const NEGATIVE_COLOUR = "#dc2626";

/** Draws at the next frame what has changed since the last one. */
export class View {
  #canvas;
  #context;
  #photo = null;
  #backdrop = null;
  #tint = document.createElement("canvas");
  #content = { kind: "nothing" };
  #objects = { of: null, width: 0, crops: [] };
  #prompt = { points: [], box: null };
  #rubber = null;
  #cursor = null;
  #isWaiting = false;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  /** Show a photo without anything on it. */
  setPhoto(photo) {
    this.#photo?.picture.close?.();
    this.#photo = photo;
    this.#content = { kind: "nothing" };
    this.#prompt = { points: [], box: null };
    this.#cursor = null;
    this.#rubber = null;
    this.fit();
  }

  /** Fit the photo into its place on the screen. */
  fit() {
    if (!this.#photo) return;
    const { imageWidth, imageHeight } = this.#photo.frame;
    const room = this.#canvas.parentElement.getBoundingClientRect();
    const maxHeight = Math.max(240, window.innerHeight * 0.68);
    const scale = Math.min(room.width / imageWidth, maxHeight / imageHeight);
    const width = Math.max(1, Math.round(imageWidth * scale));
    const height = Math.max(1, Math.round(imageHeight * scale));
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${height}px`;
    const density = Math.min(2, window.devicePixelRatio || 1);
    for (const surface of [this.#canvas, this.#tint]) {
      surface.width = Math.max(1, Math.round(width * density));
      surface.height = Math.max(1, Math.round(height * density));
    }
    this.#backdrop = document.createElement("canvas");
    this.#backdrop.width = this.#canvas.width;
    this.#backdrop.height = this.#canvas.height;
    const context = this.#backdrop.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#photo.picture, 0, 0, this.#backdrop.width, this.#backdrop.height);
    this.#paint();
  }

  /** Show the mask of a candidate, lighter while it is only a preview; null shows none. */
  showMask(candidate, isPreview = false) {
    this.#content = candidate ? { kind: "mask", candidate, isPreview } : { kind: "nothing" };
    this.#paint();
  }

  /** Show many objects, and which of them is chosen, -1 for none. */
  showObjects(candidates, chosen) {
    if (this.#content.candidates === candidates && this.#content.chosen === chosen) return;
    this.#content = { kind: "objects", candidates, chosen };
    this.#paint();
  }

  /** The smallest of the objects shown that covers a point of the photo, -1 if none does. */
  objectAt({ x, y }) {
    const { frame } = this.#photo;
    const across = (x / frame.imageWidth) * this.#canvas.width;
    const down = (y / frame.imageHeight) * this.#canvas.height;
    const { candidates } = this.#content;
    let found = -1;
    this.#cropsOf(candidates).forEach((crop, index) => {
      const isSmaller = found < 0 || candidates[index].numCells < candidates[found].numCells;
      if (isSmaller && isInside(crop, across, down)) found = index;
    });
    return found;
  }

  setPrompt(prompt) {
    this.#prompt = prompt;
    this.#drawSoon();
  }

  /** The box that is being drawn, or null. */
  setRubber(box) {
    this.#rubber = box;
    this.#drawSoon();
  }

  /** The place of the keyboard's cursor in the photo, or null. */
  setCursor(cursor) {
    this.#cursor = cursor;
    this.#drawSoon();
  }

  /** Bring a place on the screen into the photo; it may lie outside. */
  toPhoto(clientX, clientY) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const { imageWidth, imageHeight } = this.#photo.frame;
    return {
      x: ((clientX - left) / width) * imageWidth,
      y: ((clientY - top) / height) * imageHeight,
    };
  }

  #paint() {
    if (!this.#photo) return;
    const context = this.#tint.getContext("2d");
    context.clearRect(0, 0, this.#tint.width, this.#tint.height);
    const { kind, candidate, isPreview, candidates, chosen } = this.#content;
    if (kind === "mask") {
      this.#tintWith(this.#crop(candidate), MASK_RGB, isPreview ? PREVIEW_ALPHA : MASK_ALPHA);
    } else if (kind === "objects") {
      const crops = this.#cropsOf(candidates);
      const shown = chosen < 0 ? candidates.map((_, index) => index) : [chosen];
      shown.sort((a, b) => candidates[b].numCells - candidates[a].numCells);
      const alpha = chosen < 0 ? OBJECT_ALPHA : MASK_ALPHA;
      for (const index of shown) this.#tintWith(crops[index], objectRgb(index), alpha);
    }
    this.#drawSoon();
  }

  /** The masks of all objects, computed once as long as they and the screen stay the same. */
  #cropsOf(candidates) {
    const { width } = this.#tint;
    if (this.#objects.of !== candidates || this.#objects.width !== width) {
      this.#objects = { of: candidates, width, crops: candidates.map((one) => this.#crop(one)) };
    }
    return this.#objects.crops;
  }

  #crop({ logits }) {
    return cropOfLogits(logits, this.#photo.frame, this.#tint.width, this.#tint.height);
  }

  #tintWith(crop, rgb, alpha) {
    if (!crop.pixels.length) return;
    const outlinePx = Math.max(1, Math.round(this.#pixelsAPoint() * 1.25));
    const layer = document.createElement("canvas");
    layer.width = crop.width;
    layer.height = crop.height;
    const data = new ImageData(tintOf(crop, rgb, alpha, outlinePx), crop.width, crop.height);
    layer.getContext("2d").putImageData(data, 0, 0);
    this.#tint.getContext("2d").drawImage(layer, crop.left, crop.top);
  }

  #pixelsAPoint() {
    return this.#canvas.width / (this.#canvas.clientWidth || this.#canvas.width);
  }

  #drawSoon() {
    if (this.#isWaiting || !this.#photo) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => {
      this.#isWaiting = false;
      this.#draw();
    });
  }

  #draw() {
    const context = this.#context;
    context.drawImage(this.#backdrop, 0, 0);
    context.drawImage(this.#tint, 0, 0);
    const unit = this.#pixelsAPoint();
    if (this.#prompt.box) this.#drawBox(this.#prompt.box, unit, []);
    if (this.#rubber) this.#drawBox(this.#rubber, unit, [6 * unit, 4 * unit]);
    for (const point of this.#prompt.points) this.#drawPoint(point, unit);
    if (this.#cursor) this.#drawCursor(this.#cursor, unit);
  }

  #place({ x, y }) {
    const { imageWidth, imageHeight } = this.#photo.frame;
    return [(x / imageWidth) * this.#canvas.width, (y / imageHeight) * this.#canvas.height];
  }

  #drawBox(box, unit, dash) {
    const context = this.#context;
    const [left, top] = this.#place({ x: box[0], y: box[1] });
    const [right, bottom] = this.#place({ x: box[2], y: box[3] });
    context.save();
    for (const [colour, width] of [["rgba(0, 0, 0, 0.55)", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * unit;
      if (colour === "#fff") context.setLineDash(dash);
      context.strokeRect(left, top, right - left, bottom - top);
    }
    context.restore();
  }

  /** A disc with a plus or a minus, so that colour is not the only difference. */
  #drawPoint(point, unit) {
    const context = this.#context;
    const [x, y] = this.#place(point);
    context.beginPath();
    context.arc(x, y, 8 * unit, 0, 2 * Math.PI);
    context.fillStyle = point.label ? POSITIVE_COLOUR : NEGATIVE_COLOUR;
    context.fill();
    context.lineWidth = 2 * unit;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    context.moveTo(x - 4 * unit, y);
    context.lineTo(x + 4 * unit, y);
    if (point.label) {
      context.moveTo(x, y - 4 * unit);
      context.lineTo(x, y + 4 * unit);
    }
    context.stroke();
  }

  #drawCursor(cursor, unit) {
    const context = this.#context;
    const [x, y] = this.#place(cursor);
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * unit;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 4 * dx * unit, y + 4 * dy * unit);
        context.lineTo(x + 14 * dx * unit, y + 14 * dy * unit);
      }
      context.stroke();
    }
  }
}

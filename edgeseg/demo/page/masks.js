/**
 * Low-res logits to masks.
 *
 * Logits are upsampled, never thresholded masks, so that edges are smooth: the arithmetic of
 * `edgeseg/postprocess.py`, in float32 like there, so that the pixels are the same.
 *
 * @typedef {object} MaskCrop A mask of which only the rectangle it covers is kept.
 * @property {Uint8Array} pixels (height, width), 1 on the object.
 * @property {number} width
 * @property {number} height
 * @property {number} left Column of the rectangle in the image.
 * @property {number} top Row of the rectangle in the image.
 * @property {number} imageWidth
 * @property {number} imageHeight
 */

import { linearTaps } from "./taps.js";

const { fround } = Math;

/** How many rows or columns of low-res cells have their centre on the photo. */
export function numContentCells(content, imageSize, cells) {
  return Math.max(1, Math.ceil(content / (imageSize / cells) - 0.5));
}

/** Rows and columns of low-res cells on the photo, of a (side, side) grid. */
export function contentCells(frame) {
  const side = frame.imageSize / 4;
  return {
    side,
    rows: numContentCells(frame.contentHeight, frame.imageSize, side),
    columns: numContentCells(frame.contentWidth, frame.imageSize, side),
  };
}

/**
 * The mask of one object: upsampled logits above zero, without its surroundings.
 *
 * @param {Float32Array} logits (S/4, S/4) in the model frame.
 * @param {import("./frame.js").Frame} frame
 * @param {number} width Of the result: that of the photo, or of the screen.
 * @param {number} height
 * @returns {MaskCrop}
 */
export function cropOfLogits(
  logits,
  frame,
  width = frame.imageWidth,
  height = frame.imageHeight,
) {
  const { side, rows, columns } = contentCells(frame);
  const cells = tightRectangle(columns, rows, (x, y) => logits[y * side + x] > 0);
  if (!cells) return emptyCrop(width, height);
  const along = (content, size) => ((content / size) * side) / frame.imageSize;
  const across = touching(
    linearTaps(width, columns, along(frame.contentWidth, width)), cells.left, cells.right);
  const down = touching(
    linearTaps(height, rows, along(frame.contentHeight, height)), cells.top, cells.bottom);
  const wide = betweenColumns(logits, side, rows, across);
  const numColumns = across.end - across.start;
  const mask = new Uint8Array(numColumns * (down.end - down.start));
  for (let y = down.start; y < down.end; y += 1) {
    const above = down.taps.sources[2 * y] * numColumns;
    const below = down.taps.sources[2 * y + 1] * numColumns;
    const weight = down.taps.weights[2 * y + 1];
    const start = (y - down.start) * numColumns;
    for (let x = 0; x < numColumns; x += 1) {
      const near = wide[above + x];
      const step = fround(fround(wide[below + x] - near) * weight);
      mask[start + x] = fround(near + step) > 0 ? 1 : 0;
    }
  }
  const found = { pixels: mask, width: numColumns, height: down.end - down.start };
  return tightened({ ...found, left: across.start, top: down.start, imageWidth: width, imageHeight: height });
}

/** Keep the pixels that lie between cells of which one is in first..end - 1. */
function touching(taps, first, end) {
  const numPixels = taps.starts.length - 1;
  let start = 0;
  while (start < numPixels && taps.sources[2 * start + 1] < first) start += 1;
  let stop = start;
  while (stop < numPixels && taps.sources[2 * stop] < end) stop += 1;
  return { taps, start, end: stop };
}

/** Interpolate (rows, columns) cells to (rows, width): the narrow axis first, it is cheaper. */
function betweenColumns(logits, side, rows, { taps, start, end }) {
  const width = end - start;
  const wide = new Float32Array(rows * width);
  for (let row = 0; row < rows; row += 1) {
    for (let x = start; x < end; x += 1) {
      const near = logits[row * side + taps.sources[2 * x]];
      const far = logits[row * side + taps.sources[2 * x + 1]];
      wide[row * width + x - start] = near + fround(fround(far - near) * taps.weights[2 * x + 1]);
    }
  }
  return wide;
}

function emptyCrop(width, height) {
  const nothing = { pixels: new Uint8Array(0), width: 0, height: 0, left: 0, top: 0 };
  return { ...nothing, imageWidth: width, imageHeight: height };
}

/** Leave out rows and columns at the edges that hold nothing. */
function tightened(crop) {
  const { pixels, width, height, imageWidth, imageHeight } = crop;
  const found = tightRectangle(width, height, (x, y) => pixels[y * width + x] === 1);
  if (!found) return emptyCrop(imageWidth, imageHeight);
  const tightWidth = found.right - found.left;
  const tight = new Uint8Array(tightWidth * (found.bottom - found.top));
  for (let y = found.top; y < found.bottom; y += 1) {
    const row = pixels.subarray(y * width + found.left, y * width + found.right);
    tight.set(row, (y - found.top) * tightWidth);
  }
  return {
    ...crop,
    pixels: tight,
    width: tightWidth,
    height: found.bottom - found.top,
    left: crop.left + found.left,
    top: crop.top + found.top,
  };
}

/** The smallest rectangle around what is on, its right and bottom outside; null if nothing is. */
export function tightRectangle(width, height, isOn) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y += 1) {
    let x = 0;
    while (x < width && !isOn(x, y)) x += 1;
    if (x === width) continue;
    left = Math.min(left, x);
    for (x = width - 1; !isOn(x, y); ) x -= 1;
    right = Math.max(right, x + 1);
    top = Math.min(top, y);
    bottom = y + 1;
  }
  return bottom > top ? { left, top, right, bottom } : null;
}

/** Number of pixels on the object. */
export function areaOf(crop) {
  return crop.pixels.reduce((sum, pixel) => sum + pixel, 0);
}

/** Whether a pixel of the image is on the object. */
export function isInside(crop, x, y) {
  const column = Math.floor(x) - crop.left;
  const row = Math.floor(y) - crop.top;
  const isNear = column >= 0 && row >= 0 && column < crop.width && row < crop.height;
  return isNear && crop.pixels[row * crop.width + column] === 1;
}

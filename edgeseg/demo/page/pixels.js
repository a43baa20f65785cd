/**
 * A photo to the model input, band by band, so that a large photo is never held as a whole.
 *
 * Areas are averaged when the photo shrinks, it is bilinear when it grows, as `edgeseg/preprocess.py`
 * does with OpenCV. The browser's own scaling is not used: every browser has another one.
 */

import { PADDING_RGB } from "./signature.js";
import { areaTaps, linearTaps, tapsByCell } from "./taps.js";

const PIXEL_MEAN = [123.675, 116.28, 103.53];
const PIXEL_STD = [58.395, 57.12, 57.375];

/** Takes the rows of a photo from top to bottom and gives the model input. */
export class PixelScaler {
  #frame;
  #columns;
  #rows;
  #sums;
  #nextRow = 0;

  /** @param {import("./frame.js").Frame} frame The place of the photo in the model input. */
  constructor(frame) {
    const { imageWidth, imageHeight, contentWidth, contentHeight } = frame;
    const shrinks = Math.max(imageWidth, imageHeight) > frame.imageSize;
    const taps = (pixels, cells) =>
      shrinks ? areaTaps(pixels, cells) : linearTaps(pixels, cells, cells / pixels);
    this.#frame = frame;
    this.#columns = taps(contentWidth, imageWidth);
    this.#rows = tapsByCell(taps(contentHeight, imageHeight), imageHeight);
    this.#sums = new Float32Array(contentHeight * contentWidth * 3);
  }

  /**
   * Add the next rows of the photo.
   *
   * @param {Uint8ClampedArray | Uint8Array} rgba (rows, imageWidth, 4) bytes; the fourth is not read.
   */
  addRows(rgba) {
    const { imageWidth, contentWidth } = this.#frame;
    const line = new Float32Array(contentWidth * 3);
    const numRows = rgba.length / (4 * imageWidth);
    for (let row = 0; row < numRows; row += 1, this.#nextRow += 1) {
      this.#squeeze(rgba, 4 * imageWidth * row, line);
      for (const [pixelRow, weight] of this.#rows[this.#nextRow]) {
        const start = pixelRow * line.length;
        for (let k = 0; k < line.length; k += 1) this.#sums[start + k] += weight * line[k];
      }
    }
  }

  /** Scale one row of the photo to the width of the content. */
  #squeeze(rgba, start, line) {
    const { sources, weights, starts } = this.#columns;
    for (let column = 0; column + 1 < starts.length; column += 1) {
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let tap = starts[column]; tap < starts[column + 1]; tap += 1) {
        const weight = weights[tap];
        const place = start + 4 * sources[tap];
        red += weight * rgba[place];
        green += weight * rgba[place + 1];
        blue += weight * rgba[place + 2];
      }
      line[3 * column] = red;
      line[3 * column + 1] = green;
      line[3 * column + 2] = blue;
    }
  }

  /** @returns {Uint8Array} (S, S, 3) RGB, padded at the right and bottom with PADDING_RGB. */
  finish() {
    const { imageSize, contentWidth, contentHeight, imageHeight } = this.#frame;
    if (this.#nextRow !== imageHeight) {
      throw new Error(`a photo of ${imageHeight} rows gave ${this.#nextRow}; open it again`);
    }
    const padded = new Uint8Array(imageSize * imageSize * 3);
    for (let k = 0; k < padded.length; k += 1) padded[k] = PADDING_RGB[k % 3];
    for (let y = 0; y < contentHeight; y += 1) {
      const from = y * contentWidth * 3;
      const to = y * imageSize * 3;
      for (let k = 0; k < contentWidth * 3; k += 1) {
        padded[to + k] = Math.floor(this.#sums[from + k] + 0.5);
      }
    }
    return padded;
  }
}

/**
 * Normalise a model input for graphs that do not do it themselves.
 *
 * @param {Uint8Array} padded (S, S, 3) RGB, what `PixelScaler` gave.
 * @param {import("./frame.js").Frame} frame The place of the photo in it.
 * @returns {Float32Array} (1, 3, S, S); the padding is zero.
 */
export function normalised(padded, frame) {
  const { imageSize, contentWidth, contentHeight } = frame;
  const planes = new Float32Array(3 * imageSize * imageSize);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let y = 0; y < contentHeight; y += 1) {
      for (let x = 0; x < contentWidth; x += 1) {
        const value = padded[3 * (y * imageSize + x) + channel];
        planes[(channel * imageSize + y) * imageSize + x] =
          (value - PIXEL_MEAN[channel]) / PIXEL_STD[channel];
      }
    }
  }
  return planes;
}

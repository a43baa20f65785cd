/** Photos as people have them, decoded by the browser. */

import { makeFrame } from "./frame.js";
import { PixelScaler, normalised } from "./pixels.js";
import { IMAGE_RGB } from "./signature.js";

const BAND_PIXELS = 2_000_000;
/** No browser refuses a canvas of this width. */
const MAX_TILE_PX = 4096;
/** What is kept for the screen is no larger: a photo of 48 megapixels takes 190 MB. */
const MAX_SHOWN_PX = 2560;

/**
 * Decode a photo, upright, and scale it for the model.
 *
 * Stored colours are taken as they are, as Python does, without converting a colour profile.
 *
 * @param {Blob} file
 * @param {string} name What to call it in messages and downloads.
 * @param {{imageSize: number, imageName: string}} description Of the model.
 * @returns {Promise<{name: string, frame: import("./frame.js").Frame, picture: ImageBitmap,
 *   pixels: Uint8Array | Float32Array}>} The picture for the screen, which may be smaller than the
 *   photo, and the model input.
 */
export async function openPhoto(file, name, { imageSize, imageName }) {
  const bitmap = await decode(file, name);
  const frame = makeFrame(bitmap.width, bitmap.height, imageSize);
  const bytes = await scaled(bitmap, frame);
  const pixels = imageName === IMAGE_RGB ? bytes : normalised(bytes, frame);
  return { name, frame, picture: await forScreen(bitmap), pixels };
}

async function decode(file, name) {
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
    });
  } catch {
    throw new Error(
      `cannot read ${name} as a picture; choose a JPEG, PNG, WebP or AVIF file ` +
        "(HEIC only opens in Safari)",
    );
  }
}

/** Scale band by band; the page can answer in between. */
async function scaled(bitmap, frame) {
  const { width, height } = bitmap;
  const scaler = new PixelScaler(frame);
  const rowsABand = Math.max(1, Math.min(height, MAX_TILE_PX, Math.floor(BAND_PIXELS / width)));
  const canvas = makeCanvas(Math.min(width, MAX_TILE_PX), rowsABand);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  for (let top = 0; top < height; top += rowsABand) {
    const rows = Math.min(rowsABand, height - top);
    scaler.addRows(readBand(context, bitmap, top, rows));
    await new Promise((resolve) => setTimeout(resolve));
  }
  return scaler.finish();
}

function readBand(context, bitmap, top, rows) {
  const band = new Uint8ClampedArray(4 * bitmap.width * rows);
  for (let left = 0; left < bitmap.width; left += MAX_TILE_PX) {
    const width = Math.min(MAX_TILE_PX, bitmap.width - left);
    context.fillRect(0, 0, width, rows); // black, where the photo is transparent
    context.drawImage(bitmap, left, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    if (width === bitmap.width) return data;
    for (let y = 0; y < rows; y += 1) {
      const line = data.subarray(4 * width * y, 4 * width * (y + 1));
      band.set(line, 4 * (bitmap.width * y + left));
    }
  }
  return band;
}

async function forScreen(bitmap) {
  const scale = MAX_SHOWN_PX / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const small = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return small;
}

function makeCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

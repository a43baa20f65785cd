/** What a user takes away: a mask or all objects, as a picture or as run lengths. */

import { areaOf, cropOfLogits } from "./masks.js";
import { encodeGreyPng } from "./png.js";
import { encodeCrop } from "./run_lengths.js";

/** White on the object, black elsewhere, at the size of the photo, as `edgeseg segment` writes it. */
export function maskPng(candidate, frame) {
  const { imageWidth, imageHeight } = frame;
  const grey = new Uint8Array(imageWidth * imageHeight);
  paste(grey, cropOfLogits(candidate.logits, frame), 255);
  return encodeGreyPng(grey, imageWidth, imageHeight);
}

/** The layout of `edgeseg segment --rle`. */
export function maskJson(candidate, frame, name) {
  const segmentation = encodeCrop(cropOfLogits(candidate.logits, frame));
  return toBlob({ image: name, masks: [{ segmentation, score: candidate.score, prompt: 0 }] });
}

/** One number an object, its id in the JSON file and one more; small ones lie over large ones. */
export function objectsPng(candidates, frame) {
  const { imageWidth, imageHeight } = frame;
  const grey = new Uint8Array(imageWidth * imageHeight);
  largestFirst(candidates, frame).forEach(({ crop }, id) => paste(grey, crop, id + 1));
  return encodeGreyPng(grey, imageWidth, imageHeight);
}

/** The layout of SA-1B, as `edgeseg segment --everything` writes it. */
export function objectsJson(candidates, frame, name) {
  const { imageWidth: width, imageHeight: height } = frame;
  const annotations = largestFirst(candidates, frame).map(({ candidate, crop, area }, id) => ({
    id,
    segmentation: encodeCrop(crop),
    area,
    bbox: [crop.left, crop.top, crop.width, crop.height],
    predicted_iou: candidate.score,
    point_coords: [[candidate.point.x, candidate.point.y]],
    stability_score: candidate.stability,
    crop_box: [0, 0, width, height],
  }));
  return toBlob({ image: { file_name: name, height, width }, annotations });
}

/**
 * What there is to save, or null: a mask, or all objects if none is chosen.
 *
 * @param {import("./candidates.js").Candidate | undefined} mask
 * @param {import("./candidates.js").Candidate[]} all
 * @param {{frame: import("./frame.js").Frame, name: string}} photo
 * @returns {{png: () => Promise<Blob>, json: () => Blob, stem: string} | null}
 */
export function takeAway(mask, all, { frame, name }) {
  if (!mask && !all.length) return null;
  return {
    png: () => (mask ? maskPng(mask, frame) : objectsPng(all, frame)),
    json: () => (mask ? maskJson(mask, frame, name) : objectsJson(all, frame, name)),
    stem: `${stemOf(name)}-${mask ? "mask" : "objects"}`,
  };
}

/** Let the browser save a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A file name without its suffix. */
export function stemOf(name) {
  return name.replace(/\.[^.]*$/, "") || "photo";
}

function largestFirst(candidates, frame) {
  return candidates
    .map((candidate) => ({ candidate, crop: cropOfLogits(candidate.logits, frame) }))
    .filter(({ crop }) => crop.pixels.length) // a lone cell may fall between pixels
    .map((object) => ({ ...object, area: areaOf(object.crop) }))
    .sort((a, b) => b.area - a.area);
}

function paste(grey, crop, value) {
  for (let y = 0; y < crop.height; y += 1) {
    const start = (crop.top + y) * crop.imageWidth + crop.left;
    for (let x = 0; x < crop.width; x += 1) {
      if (crop.pixels[y * crop.width + x]) grey[start + x] = value;
    }
  }
}

function toBlob(value) {
  return new Blob([`${JSON.stringify(value)}\n`], { type: "application/json" });
}

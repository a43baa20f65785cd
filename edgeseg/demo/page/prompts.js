/**
 * What the user points at, for one object, in pixels of the photo.
 *
 * @typedef {object} Prompt
 * @property {Array<{x: number, y: number, label: number}>} points POSITIVE or NEGATIVE ones.
 * @property {number[] | null} box x0 y0 x1 y1, or none.
 */

import { ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT } from "./signature.js";

/**
 * Bring N prompts into the model frame and into arrays of one length P.
 *
 * @param {Prompt[]} prompts They may differ in kind and length.
 * @param {import("./frame.js").Frame} frame
 * @returns {{pointsXY: Float32Array, labels: number[], numPrompts: number, numPoints: number}}
 *   (N, P, 2) x then y in model pixels, 0 in absent slots; (N, P).
 */
export function packPrompts(prompts, frame) {
  const rows = prompts.map((prompt) => slots(prompt));
  const numPoints = Math.max(1, ...rows.map((row) => row.length));
  const pointsXY = new Float32Array(prompts.length * numPoints * 2);
  const labels = new Array(prompts.length * numPoints).fill(ABSENT);
  rows.forEach((row, n) => {
    row.forEach(([x, y, label], p) => {
      const slot = n * numPoints + p;
      pointsXY[2 * slot] = Math.fround(x) * frame.scaleX;
      pointsXY[2 * slot + 1] = Math.fround(y) * frame.scaleY;
      labels[slot] = label;
    });
  });
  return { pointsXY, labels, numPrompts: prompts.length, numPoints };
}

function slots({ points, box }) {
  const found = points.map(({ x, y, label }) => [x, y, label]);
  if (box) found.push([box[0], box[1], BOX_TOP_LEFT], [box[2], box[3], BOX_BOTTOM_RIGHT]);
  return found;
}

/** Whether a prompt may mean a whole, a part or a sub-part, so that tokens 1 to 3 answer it. */
export function isAmbiguous({ points, box }) {
  return points.length === 1 && !box;
}

/** A positive click. */
export function clickAt(x, y) {
  return { x, y, label: 1 };
}

/**
 * Masks that were answered, before it is decided which of them stay: the filters of
 * `edgeseg/runtime/candidates.py`, on low-res cells.
 *
 * @typedef {object} Candidate
 * @property {Float32Array} logits (S/4, S/4) in the model frame.
 * @property {number} score The IoU the model predicts.
 * @property {number} confidence What decides between two equal masks.
 * @property {number} stability How little it changes when its threshold moves, 0..1.
 * @property {{x: number, y: number}} point What it answers: a click, or the middle of a box.
 * @property {Uint8Array} isOn Content cells on the object.
 * @property {number} numCells How many there are.
 * @property {{left: number, top: number, right: number, bottom: number}} cells Around them.
 */

import { contentCells, tightRectangle } from "./masks.js";

/**
 * Make a candidate of an answer, or null if its mask is empty.
 *
 * @param {{logits: Float32Array, score: number, chance: number, point: {x: number, y: number}}}
 *   answer The chance is how likely there is an object at all.
 * @param {import("./frame.js").Frame} frame
 * @returns {Candidate | null}
 */
export function makeCandidate({ logits, score, chance, point }, frame) {
  const { side, rows, columns } = contentCells(frame);
  const cells = tightRectangle(columns, rows, (x, y) => logits[y * side + x] > 0);
  if (!cells) return null;
  const isOn = new Uint8Array(rows * columns);
  let [inner, outer, numCells] = [0, 0, 0];
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      const logit = logits[y * side + x];
      if (logit > 1) inner += 1;
      if (logit > -1) outer += 1;
      if (logit > 0) {
        isOn[y * columns + x] = 1;
        numCells += 1;
      }
    }
  }
  const confidence = score * chance;
  const stability = inner / Math.max(outer, 1);
  return { logits, score, confidence, stability, point, isOn, numCells, cells };
}

/** The IoU of two masks, cell by cell. */
export function cellIou(first, second) {
  const [a, b] = [first.cells, second.cells];
  const apart = a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom;
  if (apart) return 0;
  let both = 0;
  for (let k = 0; k < first.isOn.length; k += 1) both += first.isOn[k] & second.isOn[k];
  return both / (first.numCells + second.numCells - both);
}

/**
 * Leave out masks that overlap a better one too much.
 *
 * @param {Candidate[]} candidates
 * @param {number} maxIou
 * @returns {Candidate[]} The others, best first.
 */
export function withoutEqualMasks(candidates, maxIou) {
  const sorted = [...candidates].sort((a, b) => b.confidence - a.confidence); // stable
  const kept = [];
  for (const one of sorted) {
    if (kept.every((other) => cellIou(one, other) <= maxIou)) kept.push(one);
  }
  return kept;
}

/**
 * Boxes that probably hold an object: `edgeseg/proposals.py` and the boxes of a click of
 * `edgeseg/runtime/granularity.py`.
 *
 * @typedef {object} CellProposals What each cell of the network's levels says, finest level first.
 * @property {Float32Array} boxes (A, 4) x0 y0 x1 y1 in model pixels.
 * @property {Float32Array} scores (A,) chance of an object times the IoU of its box.
 * @property {Float32Array} clickLogits (A,) whose softmax over the cells of a click are chances.
 *
 * @typedef {object} Proposal
 * @property {number[]} box x0 y0 x1 y1 in pixels of the photo, inside it.
 * @property {number} score 0..1
 */

import { boxIou, byScore } from "./boxes.js";
import { PROPOSAL_STRIDES } from "./signature.js";

const MAX_PROPOSALS = 1000;
const MIN_SIDE_PX = 1;
const NUM_MERGED = 2;
const MIN_MERGED_IOU = 0.5;

/**
 * Bring what a network proposes into the frame of the photo.
 *
 * @param {CellProposals} cells
 * @param {import("./frame.js").Frame} frame
 * @returns {Proposal[]} The most confident first.
 */
export function readProposals(cells, frame) {
  return byScore(cells.scores)
    .slice(0, MAX_PROPOSALS)
    .map((cell) => ({ box: boxInPhoto(cells.boxes, cell, frame), score: cells.scores[cell] }))
    .filter(({ box }) => Math.min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE_PX);
}

function boxInPhoto(boxes, cell, { scaleX, scaleY, imageWidth, imageHeight }) {
  const within = (value, largest) => Math.min(Math.max(Math.fround(value), 0), largest);
  const [x0, y0, x1, y1] = boxes.subarray(4 * cell, 4 * cell + 4);
  return [
    within(x0 / scaleX, imageWidth),
    within(y0 / scaleY, imageHeight),
    within(x1 / scaleX, imageWidth),
    within(y1 / scaleY, imageHeight),
  ];
}

/**
 * The boxes that a click may mean, one of each level.
 *
 * @param {CellProposals} cells
 * @param {number} x In pixels of the photo.
 * @param {number} y
 * @param {import("./frame.js").Frame} frame
 * @returns {Proposal[]} The likeliest first; scores are chances, which sum to 1.
 */
export function clickProposals(cells, x, y, frame) {
  const under = cellsUnder(x * frame.scaleX, y * frame.scaleY, frame.imageSize);
  const logits = under.map((cell) => cells.clickLogits[cell]);
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  const chances = powers.map((power) => power / sum);
  return byScore(chances).map((level) => {
    const [x0, y0, x1, y1] = boxInPhoto(cells.boxes, under[level], frame);
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return {
      box: [
        Math.min(x0, column),
        Math.min(y0, row),
        Math.max(x1, column + 1),
        Math.max(y1, row + 1),
      ],
      score: chances[level],
    };
  });
}

/** The cell of each level that holds a point, given in model pixels. */
export function cellsUnder(modelX, modelY, imageSize) {
  let first = 0;
  return PROPOSAL_STRIDES.map((stride) => {
    const side = Math.floor(imageSize / stride);
    const clipped = (value) => Math.min(Math.max(Math.floor(value / stride), 0), side - 1);
    const cell = first + clipped(modelY) * side + clipped(modelX);
    first += side * side;
    return cell;
  });
}

/**
 * Merge likely boxes that agree, weighted by their chances.
 *
 * @param {Proposal[]} proposals Of a click, the likeliest first.
 * @returns {Array<{box: number[], chance: number}>} The likeliest first.
 */
export function clickBoxes(proposals) {
  const found = [];
  let free = proposals;
  while (free.length) {
    const likeliest = free[0];
    const same = free
      .filter((one) => one === likeliest || boxIou(likeliest.box, one.box) >= MIN_MERGED_IOU)
      .slice(0, NUM_MERGED);
    const sum = same.reduce((total, one) => total + one.score, 0);
    const box = [0, 1, 2, 3].map((edge) =>
      same.reduce((total, one) => total + (one.box[edge] * one.score) / sum, 0),
    );
    found.push({ box, chance: likeliest.score });
    free = free.filter((one) => !same.includes(one));
  }
  return found;
}

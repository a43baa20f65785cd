/**
 * Prompts to masks on an encoded photo: what `Segmenter.segment`, `segment_click` and
 * `segment_everything` do in Python.
 *
 * @typedef {object} Answers
 * @property {Float32Array} lowResLogits (N, 4, S/4, S/4) in the model frame.
 * @property {Float32Array} iouScores (N, 4)
 * @property {number} ms How long the decoder took.
 *
 * @typedef {(prompts: import("./prompts.js").Prompt[]) => Promise<Answers>} Decode
 */

import { suppressed } from "./boxes.js";
import { makeCandidate, withoutEqualMasks } from "./candidates.js";
import { clickAt, isAmbiguous } from "./prompts.js";
import { clickBoxes, clickProposals, readProposals } from "./proposals.js";
import { NUM_TOKENS, POSITIVE } from "./signature.js";

/** Masks that overlap more than this are the same answer. */
const MAX_MASK_IOU = 0.8;
/** Most different answers to a click. */
const MAX_SIZES = 3;
/** What everything mode tries and demands; the defaults of `EverythingSettings`. */
export const EVERYTHING = {
  maxPrompts: 100,
  minProposalScore: 0.02,
  maxBoxIou: 0.8,
  minScore: 0.3,
  minStability: 0.5,
  maxMaskIou: 0.8,
};
/** Prompts decoded at a time: more gain nothing on a processor, and the page stays responsive. */
const PROMPTS_A_CALL = 8;

/**
 * Answer the prompts of one object.
 *
 * @param {import("./prompts.js").Prompt} prompt
 * @param {{frame: import("./frame.js").Frame, proposals: object | null}} photo
 * @param {Decode} decode
 * @returns {Promise<{candidates: import("./candidates.js").Candidate[], ms: number}>} Best first;
 *   several for a single click, which may mean a part, an object or a group.
 */
export async function askForObject(prompt, photo, decode) {
  const isClick = isAmbiguous(prompt) && prompt.points[0].label === POSITIVE;
  if (isClick && photo.proposals) return askForClick(prompt.points[0], photo, decode);
  const answers = await decode([prompt]);
  const tokens = isAmbiguous(prompt) ? [1, 2, 3] : [0];
  const point = prompt.points[0] ?? middleOf(prompt.box);
  const made = tokens.map((token) => answerOf(answers, 0, token, 1, point));
  return { candidates: best(made, photo.frame, tokens.length), ms: answers.ms };
}

/** Ask for the boxes that proposals make likely, each with the point, and for the point alone. */
async function askForClick({ x, y }, { frame, proposals }, decode) {
  const boxes = clickBoxes(clickProposals(proposals, x, y, frame)).slice(0, MAX_SIZES);
  const points = [clickAt(x, y)];
  const prompts = [...boxes.map(({ box }) => ({ points, box })), { points, box: null }];
  const answers = await decode(prompts);
  // What a box is answered with is worth its predicted IoU only if the box is meant.
  const made = boxes.map(({ chance }, n) => answerOf(answers, n, 0, chance, points[0]));
  for (const token of [1, 2, 3]) made.push(answerOf(answers, boxes.length, token, 1, points[0]));
  return { candidates: best(made, frame, MAX_SIZES), ms: answers.ms };
}

/**
 * Find what can be segmented without being told where it is.
 *
 * @param {{frame: import("./frame.js").Frame, proposals: object}} photo
 * @param {Decode} decode
 * @param {(done: number, all: number) => void} progress Told after every call of the decoder.
 * @returns {Promise<{candidates: import("./candidates.js").Candidate[], numPrompts: number,
 *   ms: number}>} Best first.
 */
export async function askForEverything({ frame, proposals }, decode, progress) {
  const likely = readProposals(proposals, frame).filter(
    ({ score }) => score >= Math.fround(EVERYTHING.minProposalScore),
  );
  const asked = suppressed(likely, EVERYTHING.maxBoxIou).slice(0, EVERYTHING.maxPrompts);
  const found = [];
  let ms = 0;
  for (let start = 0; start < asked.length; start += PROMPTS_A_CALL) {
    const part = asked.slice(start, start + PROMPTS_A_CALL);
    const answers = await decode(part.map(({ box }) => ({ points: [], box })));
    ms += answers.ms;
    part.forEach(({ box, score }, n) => {
      found.push(makeCandidate(answerOf(answers, n, 0, score, middleOf(box)), frame));
    });
    progress(start + part.length, asked.length);
  }
  const good = found.filter((one) => one && isGood(one));
  const candidates = withoutEqualMasks(good, EVERYTHING.maxMaskIou);
  return { candidates, numPrompts: asked.length, ms };
}

function isGood({ score, stability }) {
  return score >= EVERYTHING.minScore && stability >= EVERYTHING.minStability;
}

function best(answers, frame, most) {
  const made = answers.map((answer) => makeCandidate(answer, frame));
  return withoutEqualMasks(made.filter((one) => one !== null), MAX_MASK_IOU).slice(0, most);
}

function answerOf(answers, row, token, chance, point) {
  const place = row * NUM_TOKENS + token;
  const size = answers.lowResLogits.length / answers.iouScores.length;
  return {
    logits: answers.lowResLogits.slice(place * size, (place + 1) * size),
    score: answers.iouScores[place],
    chance,
    point,
  };
}

function middleOf(box) {
  return { x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2 };
}

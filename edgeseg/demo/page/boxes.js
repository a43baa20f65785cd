/** Boxes as x0 y0 x1 y1, continuous edges. */

/** IoU of two boxes; 0 if neither has an area. */
export function boxIou(first, second) {
  const width = Math.min(first[2], second[2]) - Math.max(first[0], second[0]);
  const height = Math.min(first[3], second[3]) - Math.max(first[1], second[1]);
  const both = Math.max(0, width) * Math.max(0, height);
  const either = areaOf(first) + areaOf(second) - both;
  return either > 0 ? both / either : 0;
}

function areaOf(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

/** Indices of scores, the best first; of two equal ones the first. */
export function byScore(scores) {
  return Array.from(scores, (_, k) => k).sort((a, b) => scores[b] - scores[a] || a - b);
}

/**
 * Leave out every box that overlaps a better one, which stands before it, too much.
 *
 * @template {{box: number[]}} T
 * @param {T[]} sorted The best first.
 * @param {number} maxIou Largest IoU of two boxes that stay.
 * @returns {T[]}
 */
export function suppressed(sorted, maxIou) {
  const kept = [];
  for (const one of sorted) {
    if (kept.every((other) => boxIou(one.box, other.box) <= maxIou)) kept.push(one);
  }
  return kept;
}

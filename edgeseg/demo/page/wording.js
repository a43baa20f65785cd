/** What the page says about answers. */

export const START = "Point at something, or drag a box around it.";
const NOTHING = "Nothing is found there. Point somewhere else, or take the last step back.";

/** One of several answers to the prompts of an object. */
export function answerText(candidates, chosen) {
  if (!candidates.length) return NOTHING;
  const which = candidates.length > 1 ? `Answer ${chosen + 1} of ${candidates.length}` : "Mask";
  return `${which}: ${quality(candidates[chosen])}.`;
}

/** One of all objects, or how many there are. */
export function objectText(candidates, chosen) {
  if (chosen < 0) return `${numberOf(candidates.length)}. Point at one to see it alone.`;
  return `Object ${chosen + 1} of ${candidates.length}: ${quality(candidates[chosen])}.`;
}

/** The share of the photo and the model's own estimate. */
function quality({ isOn, numCells, score }) {
  const share = (100 * numCells) / isOn.length;
  const percent = share < 1 ? share.toFixed(1) : Math.round(share);
  return `${percent} % of the photo, predicted IoU ${score.toFixed(2)}`;
}

function numberOf(count) {
  return count === 1 ? "1 object found" : `${count || "No"} objects found`;
}

/** What the user has pointed at so far, step by step, so that it can be taken back. */

export class History {
  #steps = [];

  get isEmpty() {
    return this.#steps.length === 0;
  }

  addPoint(x, y, label) {
    this.#steps.push({ point: { x, y, label } });
  }

  /** A new box takes the place of the one before, until it is taken back. */
  addBox(box) {
    this.#steps.push({ box });
  }

  undo() {
    return this.#steps.pop() !== undefined;
  }

  clear() {
    this.#steps = [];
  }

  /** @returns {import("./prompts.js").Prompt} */
  get prompt() {
    const points = this.#steps.filter((step) => step.point).map((step) => step.point);
    const boxes = this.#steps.filter((step) => step.box).map((step) => step.box);
    return { points, box: boxes.at(-1) ?? null };
  }
}

/** A box from two corners in any order, inside the photo; null if it holds no pixel. */
export function boxBetween(first, second, { imageWidth, imageHeight }) {
  const within = (value, largest) => Math.min(Math.max(value, 0), largest);
  const xs = [first.x, second.x].map((x) => within(x, imageWidth)).sort((a, b) => a - b);
  const ys = [first.y, second.y].map((y) => within(y, imageHeight)).sort((a, b) => a - b);
  const isLarge = xs[1] - xs[0] >= 1 && ys[1] - ys[0] >= 1;
  return isLarge ? [xs[0], ys[0], xs[1], ys[1]] : null;
}

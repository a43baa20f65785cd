/** Masks as COCO run lengths: background and object in turn, down the columns. */

const FIRST_CODE = 48; // "0": a character holds 5 bits of a number and 1 that says whether more follow

/**
 * Encode a mask of which only a rectangle is kept.
 *
 * @param {import("./masks.js").MaskCrop} crop
 * @returns {{size: number[], counts: string}} Height and width; a compressed string.
 */
export function encodeCrop(crop) {
  return { size: [crop.imageHeight, crop.imageWidth], counts: toText(runsOf(crop)) };
}

/** Lengths in pixels of background and object in turn, beginning with background. */
export function runsOf(crop) {
  const { pixels, width, height, left, top, imageWidth, imageHeight } = crop;
  const edges = [0];
  let previous = 0;
  for (let x = 0; x < width; x += 1) {
    const start = (left + x) * imageHeight;
    for (let y = 0; y <= height; y += 1) {
      // Below the rectangle is background, unless the next column goes on where this one ends.
      if (y === height && height === imageHeight && x + 1 < width) break;
      const value = y === height ? 0 : pixels[y * width + x];
      if (value !== previous) edges.push(start + top + y);
      previous = value;
    }
  }
  const total = imageWidth * imageHeight;
  if (edges[edges.length - 1] !== total || edges.length === 1) edges.push(total);
  return edges.slice(1).map((edge, k) => edge - edges[k]);
}

/** Write run lengths as COCO does: differences to the run before last, 5 bits a character. */
function toText(runs) {
  const codes = [];
  runs.forEach((run, k) => {
    let rest = k > 2 ? run - runs[k - 2] : run;
    let isOpen = true;
    while (isOpen) {
      const bits = rest & 31;
      rest >>= 5; // keeps the sign, so negative numbers end as -1
      isOpen = bits & 16 ? rest !== -1 : rest !== 0;
      codes.push(bits + (isOpen ? 32 : 0) + FIRST_CODE);
    }
  });
  const parts = [];
  for (let k = 0; k < codes.length; k += 8192) {
    parts.push(String.fromCharCode(...codes.slice(k, k + 8192)));
  }
  return parts.join("");
}

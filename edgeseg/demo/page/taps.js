/**
 * Which cells of a line each pixel of another line is made of, and their shares.
 *
 * @typedef {object} Taps
 * @property {Int32Array} sources Cells, those of the first pixel first.
 * @property {Float32Array} weights The share of each; those of a pixel sum to 1.
 * @property {Int32Array} starts Pixel p is made of sources[starts[p]] up to sources[starts[p + 1]].
 */

/**
 * Average all cells that a larger pixel covers, as OpenCV's INTER_AREA does.
 *
 * @returns {Taps}
 */
export function areaTaps(pixels, cells) {
  const sources = [];
  const weights = [];
  const starts = [0];
  const scale = cells / pixels;
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const begin = pixel * scale;
    const end = Math.min(begin + scale, cells);
    for (let cell = Math.floor(begin); cell < Math.ceil(end); cell += 1) {
      const covered = Math.min(end, cell + 1) - Math.max(begin, cell);
      sources.push(cell);
      weights.push(covered / (end - begin));
    }
    starts.push(sources.length);
  }
  return toTaps(sources, weights, starts);
}

/**
 * Interpolate between the centres of two cells; constant beyond the outermost centres.
 *
 * @param {number} pixels How many pixels.
 * @param {number} cells How many cells.
 * @param {number} cellsAPixel Length of a pixel; both lines begin at the same place.
 * @returns {Taps} Two taps a pixel: the lower and the upper cell.
 */
export function linearTaps(pixels, cells, cellsAPixel) {
  const sources = [];
  const weights = [];
  const starts = [0];
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const centre = (pixel + 0.5) * cellsAPixel - 0.5;
    const position = Math.min(Math.max(centre, 0), cells - 1);
    const lower = Math.floor(position);
    const weight = Math.fround(position - lower);
    sources.push(lower, Math.min(lower + 1, cells - 1));
    weights.push(1 - weight, weight);
    starts.push(sources.length);
  }
  return toTaps(sources, weights, starts);
}

/**
 * Say of every cell which pixels it goes into: the taps read the other way round.
 *
 * @returns {Array<Array<[number, number]>>} For each cell [pixel, weight] pairs.
 */
export function tapsByCell(taps, cells) {
  const found = Array.from({ length: cells }, () => []);
  for (let pixel = 0; pixel + 1 < taps.starts.length; pixel += 1) {
    for (let tap = taps.starts[pixel]; tap < taps.starts[pixel + 1]; tap += 1) {
      found[taps.sources[tap]].push([pixel, taps.weights[tap]]);
    }
  }
  return found;
}

function toTaps(sources, weights, starts) {
  return {
    sources: Int32Array.from(sources),
    weights: Float32Array.from(weights),
    starts: Int32Array.from(starts),
  };
}

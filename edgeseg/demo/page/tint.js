/** Masks as translucent colour with an outline. */

/** The colour of the one mask that prompts mean. */
export const MASK_RGB = [46, 144, 255];

/** Colours of many objects: neighbours in the list are far apart on the circle of hues. */
export function objectRgb(index) {
  const hue = (index * 137.508 + 200) % 360;
  const channel = (offset) => {
    const place = (offset + hue / 30) % 12;
    return Math.round(255 * (0.58 - 0.42 * Math.max(-1, Math.min(place - 3, 9 - place, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/**
 * Colour a mask.
 *
 * @param {import("./masks.js").MaskCrop} crop At the size of the screen.
 * @param {number[]} rgb
 * @param {number} alpha Of the inside, 0..255.
 * @param {number} outlinePx Width of the outline inside the mask.
 * @returns {Uint8ClampedArray} (height, width, 4) RGBA
 */
export function tintOf({ pixels, width, height }, rgb, alpha, outlinePx) {
  const rgba = new Uint8ClampedArray(4 * pixels.length);
  const outline = rgb.map((value) => Math.round(value + (255 - value) * 0.55));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const place = y * width + x;
      if (!pixels[place]) continue;
      const isInner =
        x >= outlinePx &&
        y >= outlinePx &&
        x < width - outlinePx &&
        y < height - outlinePx &&
        pixels[place - outlinePx] &&
        pixels[place + outlinePx] &&
        pixels[place - outlinePx * width] &&
        pixels[place + outlinePx * width];
      rgba.set(isInner ? [...rgb, alpha] : [...outline, 255], 4 * place);
    }
  }
  return rgba;
}

/**
 * The place of a photo in the square model input: scaled, in the top left corner, the rest padded.
 *
 * Coordinates are continuous in both frames; the centre of the first pixel is (0.5, 0.5).
 *
 * @typedef {object} Frame
 * @property {number} imageWidth Width of the photo, in pixels.
 * @property {number} imageHeight Height of the photo, in pixels.
 * @property {number} imageSize Side S of the model input, in pixels.
 * @property {number} contentWidth Width of the scaled photo without padding, in model pixels.
 * @property {number} contentHeight Height of the scaled photo without padding, in model pixels.
 * @property {number} scaleX Model pixels per photo pixel along x, rounded to float32.
 * @property {number} scaleY The same along y; sides are rounded, so it may differ.
 */

/** @returns {Frame} */
export function makeFrame(imageWidth, imageHeight, imageSize) {
  if (!(imageWidth >= 1 && imageHeight >= 1)) {
    throw new Error(
      `a photo needs at least one pixel, got ${imageWidth} x ${imageHeight}; choose another one`,
    );
  }
  const longest = Math.max(imageWidth, imageHeight);
  const contentWidth = contentSide(imageWidth, longest, imageSize);
  const contentHeight = contentSide(imageHeight, longest, imageSize);
  return {
    imageWidth,
    imageHeight,
    imageSize,
    contentWidth,
    contentHeight,
    scaleX: Math.fround(contentWidth / imageWidth),
    scaleY: Math.fround(contentHeight / imageHeight),
  };
}

/** How long a side of the photo is in the model input, in model pixels. */
export function contentSide(side, longest, imageSize) {
  const scale = imageSize / longest; // in this order as in Python, so that both round ties alike
  return Math.max(1, Math.floor(side * scale + 0.5));
}

/** Whether a place in pixels of the photo is on it. */
export function isOnPhoto({ imageWidth, imageHeight }, { x, y }) {
  return x >= 0 && y >= 0 && x < imageWidth && y < imageHeight;
}

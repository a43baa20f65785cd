/** `export.json`: what the folder of the model holds. */

import { IMAGE, IMAGE_RGB, POINT_LABELS } from "./signature.js";

/**
 * Read the manifest and find what the page needs.
 *
 * @param {string} folder Address of the model's folder, ending in a slash.
 * @returns {Promise<{model: string, precision: string, imageSize: number, imageName: string,
 *   labelType: string, licence: string, graphs: Record<string, {url: string, sizeBytes: number}>}>}
 */
export async function readManifest(folder) {
  const answer = await fetch(new URL("export.json", folder), { cache: "no-cache" });
  if (!answer.ok) {
    throw new Error(`there is no model at ${folder} (${answer.status}); upload its folder, too`);
  }
  return describe(await answer.json(), folder);
}

/** Turn the document into what the page needs; throws with a reason if it cannot run it. */
export function describe(manifest, folder) {
  const files = Object.fromEntries(manifest.files.map((file) => [file.role, file]));
  if (!files.encoder || !files.decoder) {
    throw new Error("the model has no encoder and decoder; export it with --target web");
  }
  const [image] = files.encoder.inputs;
  const labels = files.decoder.inputs.find(({ name }) => name === POINT_LABELS);
  const isFloat = image.name === IMAGE && image.dtype === "float32";
  if (!isFloat && !(image.name === IMAGE_RGB && image.dtype === "uint8")) {
    throw new Error(`the model takes ${image.name} as ${image.dtype}; export it with --target web`);
  }
  const graphs = ["encoder", "decoder", "proposals"].filter((role) => files[role]);
  return {
    model: manifest.model,
    precision: manifest.precision,
    imageSize: manifest.image_size,
    imageName: image.name,
    labelType: labels.dtype,
    licence: manifest.licence,
    graphs: Object.fromEntries(graphs.map((role) => [role, locate(files[role], folder)])),
  };
}

function locate({ path, sha256, size_bytes: sizeBytes }, folder) {
  const url = new URL(path, folder);
  url.searchParams.set("sha256", sha256); // a browser's cache never mixes two exports
  return { url: url.href, sizeBytes };
}

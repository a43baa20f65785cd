/**
 * The worker that runs the graphs, so that the page stays responsive.
 *
 * The same code runs on WebGPU and on WebAssembly; only the file of ONNX Runtime Web and the name
 * of its execution provider differ.
 */

import { numThreads } from "./capability.js";
import {
  HAS_MASK,
  HIGH_RES_S4,
  HIGH_RES_S8,
  IMAGE_EMBEDDING,
  IMAGE_RGB,
  IOU_SCORES,
  LOW_RES_LOGITS,
  MASK_LOGITS,
  POINT_LABELS,
  POINTS_XY_MODEL,
  PROPOSAL_BOXES_XYXY_MODEL,
  PROPOSAL_CLICK_LOGITS,
  PROPOSAL_SCORES,
} from "./signature.js";

const FEATURES = [IMAGE_EMBEDDING, HIGH_RES_S8, HIGH_RES_S4];
/** Execution provider -> the files of ONNX Runtime Web that have it. */
const RUNTIME_FILES = {
  webgpu: { script: "ort.webgpu.min.mjs", wasm: "ort-wasm-simd-threaded.asyncify" },
  wasm: { script: "ort.wasm.min.mjs", wasm: "ort-wasm-simd-threaded" },
};

let ort = null;
let description = null;
let sessions = {};
let features = {};

/**
 * Load the runtime and the graphs.
 *
 * @param {{description: object, runtime: string, provider: string}} wanted `readManifest`'s answer,
 *   the address of the runtime's folder, and "auto", "webgpu" or "wasm".
 * @param {(doneBytes: number, allBytes: number) => void} progress
 */
async function load({ description: given, runtime, provider }, progress) {
  description = given;
  const graphs = await fetchGraphs(description.graphs, progress);
  const reasons = [];
  for (const candidate of await providersToTry(provider)) {
    try {
      await start(candidate, runtime, graphs);
      return { provider: candidate, numThreads: ort.env.wasm.numThreads, reasons };
    } catch (error) {
      reasons.push(`${candidate}: ${error?.message ?? error}`);
    }
  }
  throw new Error(`the model cannot be run here (${reasons.join("; ")}); try another browser`);
}

async function providersToTry(provider) {
  if (provider !== "auto") return [provider];
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  // A fallback adapter is a GPU in software, which is far slower than WebAssembly.
  return adapter && !adapter.info?.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"];
}

async function start(provider, runtime, graphs) {
  const files = RUNTIME_FILES[provider];
  ort = await import(new URL(files.script, runtime).href);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = numThreads(self.crossOriginIsolated, navigator.hardwareConcurrency);
  ort.env.wasm.wasmPaths = {
    mjs: new URL(`${files.wasm}.mjs`, runtime).href,
    wasm: new URL(`${files.wasm}.wasm`, runtime).href,
  };
  sessions = {};
  for (const [role, bytes] of Object.entries(graphs)) {
    sessions[role] = await ort.InferenceSession.create(bytes, {
      executionProviders: [provider],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3, // errors; that small shape work stays on the CPU is meant to be
    });
  }
  await warmUp();
}

/** Answer once on nothing: the first call compiles, and what fails does so before a photo comes. */
async function warmUp() {
  const side = description.imageSize;
  const pixels = isRgb() ? new Uint8Array(side * side * 3) : new Float32Array(side * side * 3);
  await encode({ pixels });
  const click = { pointsXY: new Float32Array(2), labels: [1], numPrompts: 1, numPoints: 1 };
  await decode(click);
}

async function fetchGraphs(graphs, progress) {
  const all = Object.values(graphs).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let done = 0;
  const fetched = {};
  for (const [role, { url, sizeBytes }] of Object.entries(graphs)) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`cannot fetch ${url} (${answer.status}); upload it, too`);
    const bytes = new Uint8Array(sizeBytes);
    let place = 0;
    for (const reader = answer.body.getReader(); ; ) {
      const { done: isOver, value } = await reader.read();
      if (isOver) break;
      if (place + value.length > sizeBytes) throw new Error(wrongSize(url));
      bytes.set(value, place);
      place += value.length;
      done += value.length;
      progress(done, all);
    }
    if (place !== sizeBytes) throw new Error(wrongSize(url));
    fetched[role] = bytes;
  }
  return fetched;
}

function wrongSize(url) {
  return `${url} has not the size that export.json says; upload the folder again`;
}

function isRgb() {
  return description.imageName === IMAGE_RGB;
}

/** Run the encoder, and the proposals if the model has some. */
async function encode({ pixels }) {
  const side = description.imageSize;
  const image = isRgb()
    ? new ort.Tensor("uint8", pixels, [side, side, 3])
    : new ort.Tensor("float32", pixels, [1, 3, side, side]);
  const begin = performance.now();
  const outputs = await sessions.encoder.run({ [description.imageName]: image });
  const ms = performance.now() - begin;
  features = Object.fromEntries(
    FEATURES.filter((name) => outputs[name]).map((name) => [name, outputs[name]]),
  );
  return { ms, proposals: await propose() };
}

async function propose() {
  if (!sessions.proposals) return null;
  const outputs = await sessions.proposals.run(taken(sessions.proposals));
  return {
    boxes: outputs[PROPOSAL_BOXES_XYXY_MODEL].data,
    scores: outputs[PROPOSAL_SCORES].data,
    clickLogits: outputs[PROPOSAL_CLICK_LOGITS].data,
  };
}

/** The features that a graph takes. */
function taken(session) {
  const names = session.inputNames.filter((name) => features[name]);
  return Object.fromEntries(names.map((name) => [name, features[name]]));
}

/** Answer prompts on the photo that was encoded last; see `packPrompts`. */
async function decode({ pointsXY, labels, numPrompts, numPoints }) {
  const side = description.imageSize / 4;
  const isLong = description.labelType === "int64";
  const typed = isLong ? BigInt64Array.from(labels, BigInt) : Int32Array.from(labels);
  const noMasks = new Float32Array(numPrompts * side * side);
  const feeds = {
    ...taken(sessions.decoder),
    [POINTS_XY_MODEL]: new ort.Tensor("float32", pointsXY, [numPrompts, numPoints, 2]),
    [POINT_LABELS]: new ort.Tensor(description.labelType, typed, [numPrompts, numPoints]),
    [MASK_LOGITS]: new ort.Tensor("float32", noMasks, [numPrompts, 1, side, side]),
    [HAS_MASK]: new ort.Tensor("float32", new Float32Array(numPrompts), [numPrompts]),
  };
  const begin = performance.now();
  const outputs = await sessions.decoder.run(feeds);
  return {
    lowResLogits: outputs[LOW_RES_LOGITS].data,
    iouScores: outputs[IOU_SCORES].data,
    ms: performance.now() - begin,
  };
}

const TASKS = { load, encode, decode };
let queue = Promise.resolve(); // one call after the other: a session runs one at a time

self.addEventListener("message", ({ data: { id, task, values } }) => {
  const progress = (done, all) => self.postMessage({ id, progress: [done, all] });
  queue = queue.then(async () => {
    try {
      self.postMessage({ id, result: await TASKS[task](values, progress) });
    } catch (error) {
      self.postMessage({ id, error: String(error?.message ?? error) });
    }
  });
});

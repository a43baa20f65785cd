/** What this browser has, and what to say if it lacks something. */

/** A module that adds two vectors: valid only where WebAssembly has SIMD. */
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
]);

const NEEDED = [
  ["WebAssembly", () => typeof WebAssembly === "object"],
  ["WebAssembly SIMD", () => WebAssembly.validate(SIMD_MODULE)],
  ["workers", () => typeof Worker === "function"],
  ["createImageBitmap", () => typeof createImageBitmap === "function"],
  ["CompressionStream", () => typeof CompressionStream === "function"],
  ["BigInt64Array", () => typeof BigInt64Array === "function"],
];

/** @returns {string} Empty if all is there, else a sentence that says what to do. */
export function whatIsMissing() {
  const missing = NEEDED.filter(([, isThere]) => !isThere()).map(([name]) => name);
  if (!missing.length) return "";
  return (
    `This browser has no ${missing.join(", no ")}, so it cannot run the model. ` +
    "Update it, or open this page in a current Chrome, Edge, Firefox or Safari (16.4 or newer)."
  );
}

/**
 * Which provider the address of the page asks for: `?provider=wasm` or `?provider=webgpu`.
 *
 * @returns {"auto" | "wasm" | "webgpu"}
 */
export function wantedProvider(search) {
  const given = new URLSearchParams(search).get("provider");
  return given === "wasm" || given === "webgpu" ? given : "auto";
}

/** Threads for WebAssembly: shared memory exists only on pages that are isolated from others. */
export function numThreads(isIsolated, numProcessors) {
  return isIsolated ? Math.max(1, Math.min(4, numProcessors || 1)) : 1;
}

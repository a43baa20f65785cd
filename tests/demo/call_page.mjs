// Runs function bodies with the page's modules at hand: Python sends one a line, with values, and
// reads a line with what it returned. Typed arrays travel as base64.

import { createInterface } from "node:readline";

const [folder] = process.argv.slice(2);
const load = (name) => import(`${folder}/${name}`);
const AsyncFunction = (async () => {}).constructor;

for await (const line of createInterface({ input: process.stdin })) {
  const { body, values } = JSON.parse(line, revive);
  let answer;
  try {
    answer = { result: (await new AsyncFunction("load", "values", body)(load, values)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer, replace)}\n`);
}

function revive(_, value) {
  if (value === null || typeof value !== "object" || !("$array" in value)) return value;
  const bytes = Uint8Array.from(Buffer.from(value.data, "base64"));
  return new globalThis[value.$array](bytes.buffer);
}

function replace(_, value) {
  if (!ArrayBuffer.isView(value)) return value;
  const data = Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64");
  return { $array: value.constructor.name, data };
}

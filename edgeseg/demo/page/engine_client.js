/** The page's side of the worker that runs the graphs. */

/** Calls `engine.js`, one promise a call. */
export class EngineClient {
  #worker;
  #waiting = new Map();
  #nextId = 0;

  constructor() {
    // A blob inherits the page's Content-Security-Policy; a worker from an address has only the
    // headers that the server sends, and a static host sends none.
    const address = new URL("engine.js", import.meta.url).href;
    const source = new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" });
    const url = URL.createObjectURL(source);
    this.#worker = new Worker(url, { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#failAll(event.message || "the worker that runs the model did not start");
    });
  }

  /** Load the runtime and the graphs; see `engine.js`. */
  load(values, progress) {
    return this.#call("load", values, progress);
  }

  /** Encode a model input: {ms, proposals}. */
  encode(pixels) {
    return this.#call("encode", { pixels }, null, [pixels.buffer]);
  }

  /** Answer packed prompts on the photo that was encoded last. */
  decode(packed) {
    return this.#call("decode", packed);
  }

  #call(task, values, progress = null, transfer = []) {
    const id = (this.#nextId += 1);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, progress });
      this.#worker.postMessage({ id, task, values }, transfer);
    });
  }

  #receive({ id, result, error, progress }) {
    const call = this.#waiting.get(id);
    if (!call) return;
    if (progress) {
      call.progress?.(...progress);
      return;
    }
    this.#waiting.delete(id);
    if (error === undefined) call.resolve(result);
    else call.reject(new Error(error));
  }

  #failAll(reason) {
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
  }
}

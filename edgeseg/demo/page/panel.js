/** Everything around the canvas: badges, progress, tools, the status line and the timings. */

const find = (id) => document.getElementById(id);

export class Panel {
  #state = document.body.dataset;
  #timings = {};
  #answers = 0;

  /** "loading", "empty" (no photo), "busy", "ready" or "failed". */
  setState(state) {
    this.#state.state = state;
    find("stage").setAttribute("aria-busy", String(state === "busy" || state === "loading"));
    this.setProgress(null);
    find("error").hidden = true;
  }

  showPhoto() {
    this.#state.photo = "shown";
  }

  /** Say something in the status line, which screen readers read out. */
  say(text) {
    find("status").textContent = text;
  }

  /** Show what went wrong; it stays until something else is done. */
  fail(text) {
    find("error").textContent = text;
    find("error").hidden = false;
  }

  /** A share of 0..1, or null while the end is not known. */
  setProgress(share) {
    const bar = find("progress");
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  }

  setModel({ model, precision, imageSize }, { provider, numThreads, reasons }) {
    find("model").textContent = `${model} · ${imageSize} px`;
    find("model").title = `${precision}, input of ${imageSize} pixels`;
    find("provider").textContent = provider === "webgpu" ? "WebGPU" : "WebAssembly";
    if (provider === "wasm") {
      const threads = document.createElement("span");
      threads.textContent = numThreads === 1 ? " · 1 thread" : ` · ${numThreads} threads`;
      find("provider").append(threads);
    }
    find("provider").title = reasons.join("; ");
    this.#state.provider = provider;
    this.#state.threads = numThreads;
  }

  /** Milliseconds of the encoder and of the last call of the decoder; others stay as they were. */
  setTimings({ encode, decode, numPrompts }) {
    if (encode !== undefined) this.#timings = { encode: `encode ${inMs(encode)}` };
    if (decode !== undefined) {
      const of = numPrompts === undefined ? "" : ` for ${numPrompts} prompts`;
      this.#timings.decode = `decode ${inMs(decode)}${of}`;
    }
    find("timings").textContent = Object.values(this.#timings).join(" · ");
  }

  setTools({ canUndo, hasSizes, canFindAll, canSave, isEverything }) {
    const isReady = this.#state.state === "ready";
    const usable = {
      point: isReady && !isEverything,
      box: isReady && !isEverything,
      include: isReady && !isEverything,
      exclude: isReady && !isEverything,
      size: isReady && hasSizes,
      everything: isReady && canFindAll,
      undo: isReady && canUndo,
      clear: isReady && canUndo,
      png: isReady && canSave,
      json: isReady && canSave,
    };
    for (const [id, isUsable] of Object.entries(usable)) find(id).disabled = !isUsable;
    find("everything").setAttribute("aria-pressed", String(isEverything));
    find("everything").title = isReady && !canFindAll ? "This model has no proposals" : "";
  }

  /** Mark which of two buttons is chosen. */
  press(chosen, other) {
    find(chosen).setAttribute("aria-pressed", "true");
    find(other).setAttribute("aria-pressed", "false");
  }

  /** Count what was answered, for programs that drive the page. */
  countAnswer() {
    this.#answers += 1;
    this.#state.answers = this.#answers;
  }
}

function inMs(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

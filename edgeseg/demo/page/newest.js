/** Runs one job at a time and, of those that come meanwhile, only the newest. */
export class Newest {
  #isRunning = false;
  #next = null;

  /** @param {() => Promise<void>} job */
  async run(job) {
    this.#next = job;
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      while (this.#next) {
        const current = this.#next;
        this.#next = null;
        await current();
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /** Forget what waits. */
  cancel() {
    this.#next = null;
  }
}

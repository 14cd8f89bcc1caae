const WINDOW_S = 5; // over which rates are counted

/** What a client's statistics() tells: totals, and counts of the last whole seconds. */
export class Figures {
  #totals = { updates: 0, frames: 0, bytes: 0, connections: 0, faults: 0, crcErrors: 0 };
  #seconds = new Float64Array(WINDOW_S + 1).fill(-1); // which second a place counts
  #updates = new Float64Array(WINDOW_S + 1);
  #bytes = new Float64Array(WINDOW_S + 1);
  #firstSecond = -1;
  #updatedAt = -1;
  /** @type {number | null} */
  #roundTripMs = null;

  received(nowMs, updates, bytes) {
    const second = Math.floor(nowMs / 1000);
    const place = second % (WINDOW_S + 1);
    if (this.#seconds[place] !== second) {
      this.#seconds[place] = second;
      this.#updates[place] = 0;
      this.#bytes[place] = 0;
      if (this.#firstSecond < 0) this.#firstSecond = second;
    }
    this.#updates[place] += updates;
    this.#bytes[place] += bytes;
    this.#totals.bytes += bytes;
    if (updates > 0) {
      this.#totals.updates += updates;
      this.#totals.frames++;
      this.#updatedAt = nowMs;
    }
  }

  connected() {
    this.#totals.connections++;
  }

  disconnected() {
    this.#roundTripMs = null;
  }

  answered(ms) {
    this.#roundTripMs = ms;
  }

  faulty(code) {
    this.#totals.faults++;
    if (code === "bad_crc") this.#totals.crcErrors++;
  }

  report(nowMs) {
    const second = Math.floor(nowMs / 1000);
    let updates = 0;
    let bytes = 0;
    for (let place = 0; place <= WINDOW_S; place++) {
      const age = second - this.#seconds[place];
      if (age < 1 || age > WINDOW_S) continue;
      updates += this.#updates[place];
      bytes += this.#bytes[place];
    }
    const window = Math.max(1, Math.min(WINDOW_S, second - this.#firstSecond));
    return {
      ...this.#totals,
      updatesPerSecond: updates / window,
      bytesPerSecond: bytes / window,
      roundTripMs: this.#roundTripMs,
      staleMs: this.#updatedAt < 0 ? null : nowMs - this.#updatedAt,
    };
  }
}

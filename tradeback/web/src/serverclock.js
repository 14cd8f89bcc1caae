/**
 * The server's clock, as far as its answers tell: it says whole seconds, so that each answer bounds how far its clock
 * is from ours. Where the bounds allow that both are the same, they are taken to be.
 */
export class ServerClock {
  #leastMs = -Infinity;
  #mostMs = Infinity;

  /** It said `seconds` at some moment from `sentMs` to `gotMs` of our clock. */
  heard(seconds, sentMs, gotMs) {
    const leastMs = 1000 * seconds - gotMs;
    const mostMs = 1000 * (seconds + 1) - sentMs;
    // Bounds that exclude each other: one of the clocks was set.
    const agree = leastMs < this.#mostMs && mostMs > this.#leastMs;
    this.#leastMs = agree ? Math.max(leastMs, this.#leastMs) : leastMs;
    this.#mostMs = agree ? Math.min(mostMs, this.#mostMs) : mostMs;
  }

  /** How far it is ahead of ours, in ms. */
  get aheadMs() {
    if (this.#leastMs <= 0 && this.#mostMs >= 0) return 0;
    return (this.#leastMs + this.#mostMs) / 2;
  }

  /** Unix ms. */
  now() {
    return Date.now() + this.aheadMs;
  }
}

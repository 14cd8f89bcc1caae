/** Bars that grow: the history's, which is right and late, and the WebSocket's updates, which come at once. */

const REFRESH_MS = 10000; // between two looks at the history
const SOON_MS = 1500; // the same while it is not known whether the bar is exact
const SETTLE_MS = 300; // after a bar's end, before the history is asked for it
const SPREAD_MS = 400; // more at random: a thousand charts are not to ask in the same moment
const RETRY_MS = 500;
const TRIES = 4; // of an answer that does not fit to what came by the WebSocket, or of none
const GRACE_MS = 100; // an update may arrive so long after its bar's end
const TAPE_LIMIT = 20000; // updates kept: the history is seconds late, not minutes
const FIELDS = ["time", "open", "high", "low", "close", "volume"];

/**
 * @typedef {{time: number, open: number, high: number, low: number, close: number, volume: number}} Bar
 *   time: of its opening, unix ms, UTC
 */

/**
 * The newest bar of one symbol and resolution, and the ones that follow.
 *
 * A frame says neither when its trades were nor what their ids are. So how much of what came the history's answer has
 * already is found by matching: the last trade in there has the price at which its bar closes, and the volumes up to it
 * add up to the bar's. When a bar ends, updates are held back until the history has it complete, a moment later: closed
 * bars are the history's, to the last digit. Only then the next one begins.
 */
export class LiveBars {
  #length;
  #tolerance;
  #ask;
  #now;
  #emit;
  #reset;
  #fail;
  /** @type {number | null} opening time of the newest bar that the caller has */
  #newest;
  /** @type {Bar | null} the last one told */
  #bar = null;
  /** @type {Bar | null} the one told before it */
  #closed = null;
  /** Bars that opened up to here may take updates: of all before, the history has what there was. */
  #confirmed = -Infinity;
  // The tape, what came by this connection: price, volume, time of arrival; `#applied` of them are in `#bar`.
  #prices = [];
  #volumes = [];
  #times = [];
  #applied = 0;
  #tries = 0;
  #exact = false; // the last bar is what was traded: two answers of the history agree on it
  #asking = false;
  #askAgain = false;
  #stopped = false;
  #timer;

  /**
   * @param {object} given
   * @param {number} given.lengthMs of a bar
   * @param {number} given.volumePrecision digits behind the point
   * @param {number | null} given.newest opening time of the newest bar that the caller has
   * @param {(fromMs: number | null) => Promise<Bar[]>} given.ask bars from that one on, by rising time; for null the
   *   last two
   * @param {() => number} given.now unix ms by the server's clock
   * @param {(bar: Bar) => void} given.emit called with each state of the last bar, and with each new one
   * @param {() => void} given.reset called when a closed bar turns out to be another: a gap was repaired, say
   * @param {(error: unknown) => void} given.fail told why the history was not to be had; it is asked again
   */
  constructor({ lengthMs, volumePrecision, newest, ask, now, emit, reset, fail }) {
    this.#length = lengthMs;
    this.#tolerance = 0.5 * 10 ** -volumePrecision;
    this.#newest = newest;
    this.#ask = ask;
    this.#now = now;
    this.#emit = emit;
    this.#reset = reset;
    this.#fail = fail;
    this.#refresh();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** The connection is a new one: what was traded meanwhile is in the history only. */
  restart() {
    this.#forget(this.#prices.length);
    this.#confirmed = -Infinity;
    this.#tries = 0;
    this.#exact = false;
    this.#refresh();
  }

  /** One record of a frame. A volume of 0 is the price at the time of subscribing. */
  update(price, volume) {
    const now = this.#now();
    this.#prices.push(price);
    this.#volumes.push(volume);
    this.#times.push(now);
    const opening = this.#opening(now);
    if (opening <= this.#confirmed) {
      if (volume > 0) this.#tell(grown(this.#bar, price, volume, opening));
      this.#applied = this.#prices.length;
    }
    if (this.#prices.length > TAPE_LIMIT) this.#forget(TAPE_LIMIT / 2);
  }

  #opening(ms) {
    return Math.floor(ms / this.#length) * this.#length;
  }

  #tell(bar) {
    if (this.#bar && equal(bar, this.#bar)) return;
    if (this.#bar && bar.time > this.#bar.time) this.#closed = this.#bar;
    this.#bar = bar;
    this.#newest = bar.time;
    this.#emit({ ...bar });
  }

  #forget(count) {
    for (const list of [this.#prices, this.#volumes, this.#times]) list.splice(0, count);
    this.#applied = Math.max(0, this.#applied - count);
  }

  // ---- the history ----

  /** Look at the history after so long, or when the bar has ended. */
  #later(ms) {
    const now = this.#now();
    const end = this.#opening(now) + this.#length + SETTLE_MS + Math.random() * SPREAD_MS;
    this.#timer = setTimeout(() => this.#refresh(), Math.min(ms, end - now));
  }

  async #refresh() {
    clearTimeout(this.#timer);
    this.#askAgain = this.#asking;
    if (this.#asking) return;
    this.#asking = true;
    /** @type {Bar[] | null} */
    let bars = null;
    try {
      bars = await this.#ask(this.#closed?.time ?? this.#newest);
    } catch (error) {
      if (!this.#stopped) this.#fail(error);
    }
    this.#asking = false;
    if (this.#stopped) return;
    if (this.#askAgain) this.#refresh(); // that was asked before the connection was made anew
    else this.#answered(bars);
  }

  /** @param {Bar[] | null} bars */
  #answered(bars) {
    const opening = this.#opening(this.#now());
    const { latest, agreeing } = bars ? this.#match(bars) : { latest: -1, agreeing: -1 };
    // What was exact so far is not given up for an answer that does not go with it: the next one may.
    const exact = this.#exact && this.#tries < TRIES - 1;
    const place = exact ? agreeing : latest;
    // The history has trades in their order: with one of the bar after it, it has all of the bar that ended.
    const reached = bars !== null && bars.some((bar) => bar.time >= opening);
    const sure = (place >= 0 && place === agreeing) || reached;
    // A bar that ended has to be right: nobody takes another one later.
    const ends = opening > this.#confirmed && this.#bar !== null && this.#bar.time < opening;
    const fits = place >= 0 && (!ends || (sure && place >= this.#arrivedBefore(opening + GRACE_MS)));
    if (!fits && ++this.#tries < TRIES) {
      this.#later(RETRY_MS);
      return;
    }
    this.#tries = 0;
    this.#exact = place >= 0 && place === agreeing;
    const closed = bars?.find((bar) => bar.time === this.#closed?.time);
    if (closed && !equal(closed, this.#closed)) {
      this.#closed = closed;
      this.#reset();
    }
    this.#join(bars ?? [], place);
    this.#confirmed = opening;
    this.#later(this.#exact ? REFRESH_MS : SOON_MS);
  }

  /**
   * How many updates of the tape these bars have in them. `latest`: the last place with the price of their last trade.
   * `agreeing`: the last one of those that goes with the bar told before, by the volumes; where that bar was wrong, so
   * is this. -1 where there is none.
   *
   * @param {Bar[]} bars
   */
  #match(bars) {
    const news = this.#newsIn(bars);
    const count = this.#prices.length;
    const close = news.at(-1)?.close;
    const beyond = volumeOf(news) - (this.#bar?.volume ?? NaN); // what they have more than the bar told last
    const agrees = (volume) => Math.abs(volume - beyond) < this.#tolerance;
    if (count === 0) return { latest: 0, agreeing: agrees(0) ? 0 : -1 };
    let volume = sum(this.#volumes.slice(this.#applied));
    let latest = -1;
    for (let place = count; place > 0; place--) {
      if (this.#prices[place - 1] === close) {
        latest = Math.max(latest, place);
        if (agrees(volume)) return { latest, agreeing: place };
      }
      volume -= this.#volumes[place - 1];
    }
    return { latest, agreeing: -1 };
  }

  /** The bars that the caller does not have, or not for good. */
  #newsIn(bars) {
    return bars.filter((bar) => this.#bar === null || bar.time >= this.#bar.time);
  }

  #arrivedBefore(ms) {
    const after = this.#times.findIndex((time) => time >= ms);
    return after < 0 ? this.#times.length : after;
  }

  /** Tell what is new in these bars, and then what of the tape comes after them: all from `place` on. */
  #join(bars, place) {
    const news = this.#newsIn(bars);
    const count = this.#prices.length;
    // Bars that nothing of the tape fits to have it all, as far as can be known; where there are none, the tape goes on.
    const from = news.length === 0 ? this.#applied : place >= 0 ? place : count;
    const all = news.length === 0 && this.#bar ? [this.#bar] : news;
    let bar = all.pop() ?? null;
    for (const one of all) this.#tell(one);
    for (let i = from; i < count; i++) {
      if (this.#volumes[i] === 0) continue;
      const next = grown(bar, this.#prices[i], this.#volumes[i], this.#opening(this.#times[i]));
      if (bar && next.time > bar.time) this.#tell(bar);
      bar = next;
    }
    if (bar) this.#tell(bar);
    this.#applied = count;
    // The last one that the history has stays: its price is found again where nothing is traded.
    this.#forget(Math.max(0, from - 1));
  }
}

/** The bar with one update more, or the next one, which that update opens. What is late belongs to the last bar. */
function grown(bar, price, volume, opening) {
  if (bar === null || opening > bar.time) {
    return { time: opening, open: price, high: price, low: price, close: price, volume };
  }
  return {
    time: bar.time,
    open: bar.open,
    high: Math.max(bar.high, price),
    low: Math.min(bar.low, price),
    close: price,
    volume: bar.volume + volume,
  };
}

/** @param {Bar} one @param {Bar} other */
function equal(one, other) {
  return FIELDS.every((field) => one[field] === other[field]);
}

/** @param {Bar[]} bars */
function volumeOf(bars) {
  return sum(bars.map((bar) => bar.volume));
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

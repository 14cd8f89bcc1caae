/**
 * What TradingView's charting library does with a datafeed, and what it takes for granted: the library itself is not
 * to be had freely. Its contract is told in its documentation under Datafeed API; each breach of it throws.
 */

import assert from "node:assert/strict";

const LENGTHS_S = { 1: 60, 5: 300, 15: 900, 60: 3600, 240: 14400, "1D": 86400 };
const OLDEST_MS = 1e11; // what is smaller is no time in ms

/** Calls a method of the datafeed; its callback must not be called before the method has returned. */
function later(call) {
  return new Promise((resolve, reject) => {
    let returned = false;
    const settle = (settled) => (...values) => {
      assert.ok(returned, "the callback was called before the method returned");
      settled(values.length > 1 ? values : values[0]);
    };
    call(settle(resolve), settle((reason) => reject(new Error(String(reason)))));
    returned = true;
  });
}

export class ChartingLibrary {
  #datafeed;

  constructor(datafeed) {
    this.#datafeed = datafeed;
  }

  async start() {
    this.config = await later((resolve) => this.#datafeed.onReady(resolve));
    const { config } = this;
    assert.ok(config.supported_resolutions.every((resolution) => resolution in LENGTHS_S));
    for (const name of ["supports_marks", "supports_timescale_marks", "supports_time"]) assert.equal(config[name], true);
    for (const { name, value, desc } of config.exchanges) {
      for (const text of [name, value, desc]) assert.equal(typeof text, "string");
    }
    for (const { name, value } of config.symbols_types) {
      for (const text of [name, value]) assert.equal(typeof text, "string");
    }
    this.serverTime = await later((resolve) => this.#datafeed.getServerTime(resolve));
    assert.ok(Number.isInteger(this.serverTime) && this.serverTime < OLDEST_MS, "the server's time is in seconds");
    return config;
  }

  async search(text, exchange = "", type = "") {
    const found = await later((resolve) => this.#datafeed.searchSymbols(text, exchange, type, resolve));
    for (const row of found) {
      for (const name of ["symbol", "description", "exchange", "type"]) assert.equal(typeof row[name], "string");
      assert.ok(!row.ticker.includes(":"), "a ticker has no colon");
    }
    return found;
  }

  async resolve(name) {
    const info = await later((resolve, reject) => this.#datafeed.resolveSymbol(name, resolve, reject, {}));
    for (const key of ["name", "description", "type", "session", "timezone", "exchange", "listed_exchange", "format"]) {
      assert.equal(typeof info[key], "string", key);
    }
    assert.ok(Number.isInteger(info.pricescale) && info.pricescale > 0 && info.minmov === 1);
    assert.ok(info.has_intraday && info.has_daily);
    assert.deepEqual(info.supported_resolutions, this.config.supported_resolutions);
    return info;
  }

  /** A chart of it, its newest bars loaded and growing. */
  async chart(name, resolution, countBack = 300) {
    const chart = new Chart(this.#datafeed, await this.resolve(name), resolution, countBack);
    await chart.load();
    return chart;
  }

  quotes(symbols) {
    return later((resolve, reject) => this.#datafeed.getQuotes(symbols, resolve, reject));
  }
}

let charts = 0;

export class Chart {
  #datafeed;
  #info;
  #resolution;
  #countBack;
  #guid;
  #delivered = []; // the very objects, and what was in them
  bars = [];
  ticks = 0;
  resets = 0;
  complete = false; // nothing older exists

  constructor(datafeed, info, resolution, countBack) {
    this.#datafeed = datafeed;
    this.#info = info;
    this.#resolution = resolution;
    this.#countBack = countBack;
  }

  get lengthMs() {
    return 1000 * LENGTHS_S[this.#resolution];
  }

  async load() {
    // The library asks for a little more than now: up to the end of the bar after the present one.
    const to = Math.floor(Date.now() / 1000) + LENGTHS_S[this.#resolution];
    await this.#request(to, true);
    this.#guid = `${this.#info.ticker}_${this.#resolution}_${charts++}`;
    this.#subscribe();
  }

  #subscribe() {
    const guid = this.#guid;
    this.#datafeed.subscribeBars(
      this.#info,
      this.#resolution,
      (bar) => {
        assert.equal(guid, this.#guid, "a tick for a subscription that was ended");
        this.#tick(bar);
      },
      guid,
      () => this.resets++,
    );
  }

  /** What an application does when it is told that the cache is of no use: chart.resetData(). */
  async reset() {
    this.end();
    this.bars = [];
    this.complete = false;
    await this.load();
  }

  end() {
    this.#datafeed.unsubscribeBars(this.#guid);
    this.#guid = null;
  }

  /** Scroll to the left. */
  async older() {
    const to = this.bars.length ? this.bars[0].time / 1000 : Math.floor(Date.now() / 1000);
    await this.#request(to, false);
  }

  async #request(to, firstDataRequest) {
    const from = to - this.#countBack * LENGTHS_S[this.#resolution];
    const period = { from, to, countBack: this.#countBack, firstDataRequest };
    const [bars, meta] = await later((resolve, reject) =>
      this.#datafeed.getBars(this.#info, this.#resolution, period, resolve, reject),
    );
    assert.equal(typeof meta.noData, "boolean");
    assert.equal(meta.noData, bars.length === 0, "noData says whether there are bars");
    if (bars.length) assert.equal(meta.nextTime, undefined, "nextTime beside bars");
    if (meta.nextTime !== undefined) {
      assert.ok(meta.nextTime > OLDEST_MS && meta.nextTime < 1000 * from, "nextTime is in ms and older");
    }
    for (const bar of bars) {
      this.#check(bar);
      assert.ok(bar.time < 1000 * to, "a bar at or after `to`");
    }
    const all = [...bars, ...this.bars];
    all.reduce((before, bar) => {
      assert.ok(bar.time > before.time, `bars do not rise: ${bar.time} after ${before.time}`);
      return bar;
    });
    this.bars = all;
    this.complete = meta.noData && meta.nextTime === undefined;
  }

  #check(bar) {
    for (const field of ["time", "open", "high", "low", "close", "volume"]) {
      assert.ok(Number.isFinite(bar[field]), `${field} is ${bar[field]}`);
    }
    assert.equal(bar.time % this.lengthMs, 0, `a bar at ${bar.time} is not aligned`);
    assert.ok(bar.low <= bar.open && bar.low <= bar.close && bar.high >= bar.open && bar.high >= bar.close && bar.volume >= 0);
  }

  #tick(bar) {
    this.#check(bar);
    const last = this.bars.at(-1);
    assert.ok(!last || bar.time >= last.time, `time violation: ${bar.time} after ${last?.time}`);
    // It keeps what it was given: nobody may change that afterwards.
    const before = this.#delivered.at(-1);
    if (before) assert.deepEqual(before.bar, before.copy);
    this.#delivered = [{ bar, copy: { ...bar } }];
    this.ticks++;
    if (last?.time === bar.time) this.bars[this.bars.length - 1] = bar;
    else this.bars.push(bar);
  }
}

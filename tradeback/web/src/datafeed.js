/**
 * A datafeed for TradingView's charting library (IDatafeedChartApi, IExternalDatafeed, IDatafeedQuotesApi): history
 * over REST, live bars out of the binary WebSocket.
 *
 *     import { Datafeed } from "/datafeed.js";
 *     new TradingView.widget({ symbol: "BTCUSDT", interval: "1", datafeed: new Datafeed("/api/v1"), ... });
 *
 * docs/client-js.md tells more.
 */

import { Client } from "./client.js";
import { LiveBars } from "./livebars.js";
import { ServerClock } from "./serverclock.js";

const MINUTE_MS = 60000;
/** Lengths of the bars by the library's names of the resolutions. */
const LENGTHS_MS = new Map([
  ["1", MINUTE_MS],
  ["5", 5 * MINUTE_MS],
  ["15", 15 * MINUTE_MS],
  ["60", 60 * MINUTE_MS],
  ["240", 240 * MINUTE_MS],
  ["1D", 1440 * MINUTE_MS],
  ["D", 1440 * MINUTE_MS],
]);
const FAR_S = 9999999999; // seconds; `to` is exclusive, and the bar in progress is wanted
const BUSY_TRIES = 3; // of a request that the server is too busy for
const LONGEST_PAUSE_S = 10; // that it may ask for meanwhile
const CLOCK_LOOKS_MS = [0, 250, 500, 750]; // the server tells whole seconds: looks at different parts of one
const CLOCK_AGAIN_MS = 600000;
const QUOTES_MS = 10000; // between two quotes from REST; prices in between are the WebSocket's
const QUOTE_SPREAD_MS = 250; // between two calls with them

/**
 * @typedef {object} Options
 * @property {Client} [client] a client that the page has already; without it one is made at the first live bar
 * @property {string} [websocket] the WebSocket's address for that one; without it the API is asked
 * @property {typeof WebSocket} [WebSocket] the class to connect with, where it is not the global one
 * @property {typeof fetch} [fetch] to ask with, where it is not the global one
 * @property {(error: unknown) => void} [onError] told what cannot be told to the library, whose subscriptions have no
 *   callback for errors: live bars that had to wait, symbols that the WebSocket refuses
 */

export class Datafeed {
  #api;
  #options;
  #fetch;
  /** @type {Promise<Client> | null} */
  #client = null;
  #ownsClient;
  #offs = [];
  #clock = new ServerClock();
  #clockTimers = [];
  #clockAskedAt = -Infinity;
  #closing = new AbortController();
  /** @type {Map<string, {symbol: string, bars: LiveBars, reset: () => void, connection: number}>} by the library's id */
  #live = new Map();
  /** @type {Map<string, Quotes>} by the library's id */
  #quotes = new Map();
  /** @type {Map<string, number>} opening time of the newest bar that the library was given, by symbol and resolution */
  #newest = new Map();

  /** @param {string} api the API's address, such as "/api/v1" @param {Options} [options] */
  constructor(api, options = {}) {
    this.#api = String(new URL(api, globalThis.location?.href)).replace(/\/$/, "");
    this.#options = options;
    this.#ownsClient = options.client === undefined;
    this.#fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
  }

  /** End everything: requests, live bars, and the client where it is the datafeed's own. */
  close() {
    this.#closing.abort();
    for (const timer of this.#clockTimers) clearTimeout(timer);
    for (const id of [...this.#live.keys()]) this.unsubscribeBars(id);
    for (const id of [...this.#quotes.keys()]) this.unsubscribeQuotes(id);
    for (const off of this.#offs) off();
    if (this.#ownsClient) this.#client?.then((client) => client.close(), () => {});
  }

  // ---- IExternalDatafeed ----

  onReady(callback) {
    this.#udf("config").then(callback, (error) => {
      this.#report(error);
      callback({ supported_resolutions: ["1", "5", "15", "60", "240", "1D"] });
    });
  }

  // ---- IDatafeedChartApi ----

  searchSymbols(userInput, exchange, symbolType, onResult) {
    this.#udf("search", { query: userInput, exchange, type: symbolType, limit: 30 }).then(onResult, (error) => {
      this.#report(error);
      onResult([]);
    });
  }

  resolveSymbol(symbolName, onResolve, onError) {
    this.#udf("symbols", { symbol: symbolName }).then(onResolve, (error) => onError(told(error)));
  }

  getBars(symbolInfo, resolution, { from, to, countBack }, onResult, onError) {
    const symbol = tickerOf(symbolInfo);
    this.#history(symbol, resolution, { from, to, countback: countBack }).then(
      ({ bars, nextTime }) => {
        const newest = bars.at(-1)?.time ?? -Infinity;
        const key = keyOf(symbol, resolution);
        if (newest > (this.#newest.get(key) ?? -Infinity)) this.#newest.set(key, newest);
        onResult(bars, bars.length ? { noData: false } : { noData: true, ...(nextTime && { nextTime }) });
      },
      (error) => onError(told(error)),
    );
  }

  subscribeBars(symbolInfo, resolution, onTick, listenerGuid, onResetCacheNeededCallback) {
    const lengthMs = LENGTHS_MS.get(resolution);
    if (lengthMs === undefined) {
      this.#report(new Error(`There are no bars of the resolution ${resolution}`));
      return;
    }
    this.unsubscribeBars(listenerGuid);
    const symbol = tickerOf(symbolInfo);
    const key = keyOf(symbol, resolution);
    const reset = onResetCacheNeededCallback ?? (() => {});
    const bars = new LiveBars({
      lengthMs,
      volumePrecision: symbolInfo.volume_precision ?? 8,
      newest: this.#newest.get(key) ?? null,
      ask: async (fromMs) => {
        const from = fromMs === null ? { from: 0, countback: 2 } : { from: fromMs / 1000 };
        return (await this.#history(symbol, resolution, { ...from, to: FAR_S })).bars;
      },
      now: () => this.#clock.now(),
      emit: (bar) => {
        this.#newest.set(key, bar.time);
        onTick(bar);
      },
      reset,
      fail: (error) => this.#report(error),
    });
    const live = { symbol, bars, reset, connection: 0 };
    this.#live.set(listenerGuid, live);
    this.#follow(symbol, true, (client) => {
      if (client.carries(bare(symbol))) live.connection = client.statistics().connections;
    });
    this.#lookAtClock();
  }

  unsubscribeBars(listenerGuid) {
    const live = this.#live.get(listenerGuid);
    if (live === undefined) return;
    this.#live.delete(listenerGuid);
    live.bars.stop();
    this.#follow(live.symbol, false);
  }

  getMarks(symbolInfo, from, to, onData, resolution) {
    this.#marks("marks", symbolInfo, from, to, onData, resolution);
  }

  getTimescaleMarks(symbolInfo, from, to, onData, resolution) {
    this.#marks("timescale_marks", symbolInfo, from, to, onData, resolution);
  }

  getServerTime(callback) {
    this.#serverTime().then(callback, (error) => this.#report(error));
  }

  // ---- IDatafeedQuotesApi ----

  getQuotes(symbols, onData, onError) {
    this.#udf("quotes", { symbols: symbols.join(",") }).then(({ d }) => onData(d), (error) => onError(told(error)));
  }

  subscribeQuotes(symbols, fastSymbols, onRealtime, listenerGuid) {
    this.unsubscribeQuotes(listenerGuid);
    const all = [...new Set([...symbols, ...fastSymbols])];
    const ask = async () => (await this.#udf("quotes", { symbols: all.join(",") })).d;
    this.#quotes.set(listenerGuid, new Quotes(all, ask, onRealtime, (error) => this.#report(error)));
    for (const symbol of all) this.#follow(symbol, true);
  }

  unsubscribeQuotes(listenerGuid) {
    const quotes = this.#quotes.get(listenerGuid);
    if (quotes === undefined) return;
    this.#quotes.delete(listenerGuid);
    quotes.stop();
    for (const symbol of quotes.symbols) this.#follow(symbol, false);
  }

  // ---- the WebSocket ----

  /** Have its updates come, or no longer; `first` is called before that with the client. */
  #follow(symbol, wanted, first = () => {}) {
    this.#client ??= this.#connect();
    const name = bare(symbol);
    this.#client.then(
      (client) => {
        first(client);
        if (wanted) client.subscribe(name);
        else client.unsubscribe(name);
      },
      (error) => {
        this.#client = null; // the next one may find the way
        if (wanted) this.#report(error);
      },
    );
  }

  async #connect() {
    const { client: given, websocket, WebSocket } = this.#options;
    const client = given ?? new Client(websocket ?? (await this.#websocketAddress()), WebSocket ? { WebSocket } : {});
    this.#offs = [
      client.on("update", (symbol, price, volume) => this.#updated(symbol, price, volume)),
      client.on("subscribed", (symbols) => this.#subscribed(client, symbols)),
      client.on("auto_subscribe", (symbol) => this.#subscribed(client, [symbol])),
      client.on("error", (refusal) => this.#refused(refusal)),
    ];
    if (this.#closing.signal.aborted) for (const off of this.#offs) off();
    else if (this.#ownsClient) client.connect();
    return client;
  }

  async #websocketAddress() {
    const answer = await this.#fetch(`${this.#api}/ws`, { signal: this.#closing.signal });
    const content = await answer.json().catch(() => null);
    return content?.error?.websocket ?? `${this.#api.replace(/^http/, "ws")}/ws`;
  }

  #updated(symbol, price, volume) {
    for (const live of this.#live.values()) if (bare(live.symbol) === symbol) live.bars.update(price, volume);
    for (const quotes of this.#quotes.values()) quotes.update(symbol, price, volume);
  }

  /** Updates of these symbols come from now on. What came by an earlier connection has no part in theirs. */
  #subscribed(client, symbols) {
    const { connections } = client.statistics();
    for (const live of this.#live.values()) {
      if (live.connection === connections || !symbols.some(({ symbol }) => symbol === bare(live.symbol))) continue;
      if (live.connection > 0) live.reset();
      live.connection = connections;
      live.bars.restart();
    }
  }

  /** Of a client that is the page's too, other symbols are not the datafeed's to tell of. */
  #refused({ code, message, symbols }) {
    const followed = [...this.#live.values()].map((live) => live.symbol);
    for (const quotes of this.#quotes.values()) followed.push(...quotes.symbols);
    const ours = new Set(followed.map(bare));
    const names = Array.isArray(symbols) ? symbols.filter((symbol) => ours.has(symbol)) : [];
    if (names.length) this.#report(new Error(`No live prices of ${names.join(", ")}: ${message} (${code})`));
  }

  // ---- REST ----

  /** One answer of the Universal Data Feed; an Error with its sentence where it is none. */
  async #udf(path, parameters = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined && value !== null) query.set(name, String(value));
    }
    const address = `${this.#api}/tradingview/${path}?${query}`;
    for (let tries = 1; ; tries++) {
      const answer = await this.#fetch(address, { signal: this.#closing.signal });
      const pause = Number(answer.headers.get("Retry-After") ?? 1);
      if (answer.status === 429 && tries < BUSY_TRIES && pause <= LONGEST_PAUSE_S) {
        await passed(1000 * pause, this.#closing.signal);
        continue;
      }
      const content = await answer.json();
      if (content?.s === "error") throw new Error(content.errmsg);
      if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
      return content;
    }
  }

  /** @returns {Promise<{bars: import("./livebars.js").Bar[], nextTime?: number}>} times in ms */
  async #history(symbol, resolution, parameters) {
    const answer = await this.#udf("history", { symbol, resolution, ...parameters });
    if (answer.s === "no_data") return { bars: [], nextTime: answer.nextTime && 1000 * answer.nextTime };
    const { t, o, h, l, c, v } = answer;
    const bars = t.map((time, i) => ({
      time: 1000 * time, open: o[i], high: h[i], low: l[i], close: c[i], volume: v[i],
    }));
    return { bars };
  }

  #marks(path, symbolInfo, from, to, onData, resolution) {
    this.#udf(path, { symbol: tickerOf(symbolInfo), from, to, resolution }).then(onData, (error) => {
      this.#report(error);
      onData([]);
    });
  }

  async #serverTime() {
    const sentMs = Date.now();
    const seconds = await this.#udf("time");
    this.#clock.heard(seconds, sentMs, Date.now());
    return seconds;
  }

  #lookAtClock() {
    if (Date.now() - this.#clockAskedAt < CLOCK_AGAIN_MS) return;
    this.#clockAskedAt = Date.now();
    const look = () => this.#serverTime().catch((error) => this.#report(error));
    this.#clockTimers = CLOCK_LOOKS_MS.map((ms) => setTimeout(look, ms));
  }

  #report(error) {
    if (this.#closing.signal.aborted) return;
    const { onError } = this.#options;
    if (onError) onError(error);
    else console.warn("Trade-Back's datafeed:", error);
  }
}

/** Quotes of some symbols: REST's every so often, with the WebSocket's prices in between. */
class Quotes {
  #ask;
  #tell;
  #fail;
  /** @type {Map<string, {s: string, n: string, v: Record<string, any>}>} by the bare name */
  #quotes = new Map();
  #fresh = new Set();
  #pollTimer;
  #tellTimer = null;
  #stopped = false;

  constructor(symbols, ask, tell, fail) {
    this.symbols = symbols;
    this.#ask = ask;
    this.#tell = tell;
    this.#fail = fail;
    this.#poll();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#pollTimer);
    clearTimeout(this.#tellTimer);
  }

  async #poll() {
    try {
      const quotes = await this.#ask();
      if (this.#stopped) return;
      this.#quotes = new Map(quotes.map((quote) => [bare(quote.n), quote]));
      this.#tell(quotes);
    } catch (error) {
      if (this.#stopped) return;
      this.#fail(error);
    }
    this.#pollTimer = setTimeout(() => this.#poll(), QUOTES_MS);
  }

  update(symbol, price, volume) {
    const quote = this.#quotes.get(symbol);
    if (quote?.s !== "ok" || volume === 0) return;
    const before = quote.v.prev_close_price;
    const change = price - before;
    this.#quotes.set(symbol, {
      ...quote,
      v: {
        ...quote.v,
        lp: price,
        ch: Number(change.toPrecision(12)),
        chp: before ? Number(((100 * change) / before).toFixed(2)) : 0,
        high_price: Math.max(quote.v.high_price, price),
        low_price: Math.min(quote.v.low_price, price),
        volume: quote.v.volume + volume,
      },
    });
    this.#fresh.add(symbol);
    this.#tellTimer ??= setTimeout(() => {
      this.#tellTimer = null;
      this.#tell([...this.#fresh].map((name) => this.#quotes.get(name)));
      this.#fresh.clear();
    }, QUOTE_SPREAD_MS);
  }
}

function tickerOf(symbolInfo) {
  return symbolInfo.ticker ?? symbolInfo.name;
}

/** Without the exchange: BTCUSDT of BINANCE:BTCUSDT. */
function bare(symbol) {
  return symbol.slice(symbol.lastIndexOf(":") + 1).toUpperCase();
}

function keyOf(symbol, resolution) {
  return `${bare(symbol)} ${LENGTHS_MS.get(resolution)}`;
}

/** What the library shows to its user. */
function told(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {number} ms @param {AbortSignal} signal ends the wait, by its error */
function passed(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    const ended = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", ended, { once: true });
  });
}

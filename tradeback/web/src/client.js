/**
 * A client of Trade-Back's WebSocket, protocol v1: connects, subscribes, decodes frames, connects again when it must.
 *
 *     import { Client } from "/client.js";
 *     const client = new Client("ws://127.0.0.1:8081/api/v1/ws");
 *     client.on("update", (symbol, price, volume) => console.log(symbol, price, volume));
 *     client.subscribe("BTCUSDT");
 *     client.connect();
 *
 * It depends on nothing but the files beside it, and runs in browsers and wherever else there is a WebSocket class of the
 * same kind: in Node from 22 on, and in Node 20 with --experimental-websocket or the one of the package ws.
 * docs/client-js.md tells more.
 */

import { CLOSE_CODES } from "./closecodes.js";
import { Figures } from "./figures.js";
import { FrameDecoder, ProtocolError } from "./frames.js";

export { CLOSE_CODES, ProtocolError };
export const SUBPROTOCOL = "tradeback.v1";

const MESSAGE_CHARACTERS = 5000; // of a subscription: at three bytes each, what the server takes is 16 KiB
const MAX_ID = 65535;
const UNCLEAN = 1006; // the browser's code for a connection that ended without one
const UNAUTHENTICATED = 4401;
const SYMBOL_FORBIDDEN = 4403;

/**
 * @typedef {"idle" | "connecting" | "connected" | "waiting" | "refused" | "unauthorized"} State
 *   waiting: it will connect again by itself; refused, unauthorized: it will not, until connect() is called
 * @typedef {{symbol: string, id: number}} Pair
 * @typedef {object} Options
 * @property {typeof WebSocket} [WebSocket] the class to connect with, where it is not the global one
 * @property {() => Promise<boolean>} [isLoggedIn] asked when a connection fails before it is open, as no browser tells
 *   why; false ends in the state unauthorized instead of further attempts
 * @property {number} [pingMs] between two pings
 * @property {number} [patienceMs] without an answer for so long, a connection is dead
 * @property {number} [probeMs] the same after the browser said that the network changed
 * @property {number} [connectMs] how long connecting may take
 * @property {number} [firstBackoffMs] before the second attempt; doubled for each further one
 * @property {number} [longestBackoffMs] where that ends
 * @property {number} [stableMs] a connection that lasted so long lets the back-off begin anew
 */

const DEFAULTS = {
  pingMs: 2000,
  patienceMs: 10000,
  probeMs: 3000,
  connectMs: 10000,
  firstBackoffMs: 500,
  longestBackoffMs: 30000,
  stableMs: 5000,
};

/**
 * Updates of some symbols from one server, over as many connections as it takes.
 *
 * Events, by `on(name, listener)`:
 *
 * | event | arguments |
 * |---|---|
 * | update | symbol, price, volume, id: one record; volume is 0 in the snapshot that follows a subscription |
 * | state | {state, before, sentence, code, waitMs}: code where the server closed with one, waitMs in the state waiting |
 * | subscribed, unsubscribed | array of {symbol, id} |
 * | auto_subscribe, auto_unsubscribe | {symbol, id}: the server did it, as the watchlist says |
 * | enigma | the level, as docs/protocol.md has it |
 * | error | {code, message, symbols}: the server refused a message of this client |
 * | unauthorized | sentence: log in, then call connect() |
 * | fault | ProtocolError: the server sent what cannot be understood; the connection is made anew |
 *
 * What a listener throws is reported like any uncaught error, and stops nothing here.
 */
export class Client {
  /** @type {State} */
  #state = "idle";
  #url;
  #WebSocket;
  #options;
  /** @type {Map<string, Function[]>} */
  #listeners = new Map();
  /** @type {Function[]} those of `update`, at hand */
  #onUpdate = [];
  /** @type {WebSocket | null} */
  #socket = null;
  /** The one timer: of the attempt to connect, of the next ping, or of the wait before the next attempt. */
  #timer;
  #backoffMs;
  #mayHurry = false; // it waits because of the network, not because the server asked for it
  #openedAt = 0;

  /** @type {Map<string, number>} what callers want, and how many of them */
  #wanted = new Map();
  #flushing = false;
  // Of this connection: what the server was asked for, what it did by itself, what it refused, what to ask for later.
  /** @type {Set<string>} */
  #told = new Set();
  /** @type {Set<string>} */
  #auto = new Set();
  /** @type {Map<string, unknown>} the code of the refusal, by symbol */
  #refused = new Map();
  /** @type {Set<string>} */
  #later = new Set();
  /** @type {string[]} by id */
  #names = [];
  /** @type {Set<string>} for asking for which an earlier connection was closed */
  #forbidden = new Set();

  #decoder = new FrameDecoder();
  #heard = false; // since the last look
  #silentLooks = 0;
  #pingedAt = 0; // 0 where no answer is awaited
  #figures = new Figures();

  /** @param {string} url ws: or wss: @param {Options} [options] */
  constructor(url, options = {}) {
    this.#url = String(url);
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (typeof this.#WebSocket !== "function") {
      throw new TypeError("There is no WebSocket class here: give one as options.WebSocket");
    }
    this.#options = { ...DEFAULTS, ...options };
    this.#backoffMs = this.#options.firstBackoffMs;
  }

  get url() {
    return this.#url;
  }

  get state() {
    return this.#state;
  }

  /** The symbols that callers want. */
  get symbols() {
    return [...this.#wanted.keys()];
  }

  /** Whether the server told that updates of it come by this connection. @param {string} symbol */
  carries(symbol) {
    return this.#names.includes(symbol);
  }

  /**
   * Call `listener` at each event of that name. @returns {() => void} ends it
   *
   * @param {string} name @param {Function} listener
   */
  on(name, listener) {
    const set = (listeners) => {
      this.#listeners.set(name, listeners);
      if (name === "update") this.#onUpdate = listeners;
    };
    // Lists are never changed, only replaced: one that is being called stays as it is.
    set([...(this.#listeners.get(name) ?? []), listener]);
    return () => {
      const now = this.#listeners.get(name) ?? [];
      const at = now.indexOf(listener);
      if (at >= 0) set(now.filter((_, i) => i !== at));
    };
  }

  /** Connect, and stay connected. Does nothing while it is at it. */
  connect() {
    if (this.#state === "connecting" || this.#state === "connected" || this.#state === "waiting") return;
    globalThis.addEventListener?.("online", this.#onNetwork);
    globalThis.addEventListener?.("offline", this.#onNetwork);
    this.#backoffMs = this.#options.firstBackoffMs;
    this.#forbidden.clear(); // it may be another login
    this.#open();
  }

  /** Connect at once where it waits to do so. */
  retry() {
    if (this.#state === "waiting") this.#open();
  }

  /** End the connection and all attempts. What was subscribed stays wanted, should connect() be called again. */
  close() {
    this.#end("idle", "closed");
  }

  /**
   * Subscribe. Calls are counted: a symbol is unsubscribed when unsubscribe() was called as often.
   *
   * @param {...string} symbols
   */
  subscribe(...symbols) {
    for (const symbol of symbols) {
      const name = symbol.toUpperCase();
      this.#wanted.set(name, (this.#wanted.get(name) ?? 0) + 1);
      this.#refused.delete(name);
      this.#forbidden.delete(name);
    }
    this.#flushSoon();
  }

  /** @param {...string} symbols */
  unsubscribe(...symbols) {
    for (const symbol of symbols) {
      const name = symbol.toUpperCase();
      const count = this.#wanted.get(name) ?? 0;
      if (count > 1) this.#wanted.set(name, count - 1);
      else this.#wanted.delete(name);
    }
    this.#flushSoon();
  }

  /**
   * How it goes. Rates are those of the last five whole seconds; `staleMs` is the age of the last update, null before
   * the first; `roundTripMs` that of the last answered ping of this connection, null before it.
   *
   * @returns {{updates: number, frames: number, bytes: number, connections: number, faults: number, crcErrors: number,
   *   updatesPerSecond: number, bytesPerSecond: number, roundTripMs: number | null, staleMs: number | null}}
   */
  statistics() {
    return this.#figures.report(performance.now());
  }

  // ---- connecting, and connecting again ----

  #open() {
    clearTimeout(this.#timer);
    this.#told.clear();
    this.#auto.clear();
    this.#refused.clear();
    this.#later.clear();
    this.#names = [];
    this.#openedAt = 0;
    this.#enter("connecting", `connecting to ${this.#url}`);
    const socket = new this.#WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    // A socket that is no longer this client's is not listened to, and no listener is taken off: some classes throw
    // errors that nobody listens to.
    socket.onopen = () => this.#socket === socket && this.#opened();
    socket.onmessage = (event) => this.#socket === socket && this.#received(socket, event.data);
    socket.onclose = (event) => this.#socket === socket && this.#closed(event.code, event.reason);
    // A close event follows and tells more, except in Node 20 where the connection never opened.
    socket.onerror = () => this.#socket === socket && this.#openedAt === 0 && this.#closed(UNCLEAN, "");
    this.#timer = setTimeout(
      () => this.#lose(`${this.#url} did not answer within ${this.#options.connectMs / 1000} s`),
      this.#options.connectMs,
    );
  }

  #opened() {
    this.#openedAt = performance.now();
    this.#figures.connected();
    this.#silentLooks = 0;
    this.#pingedAt = 0;
    this.#enter("connected", `connected to ${this.#url}`);
    this.#flush();
    this.#pingRegularly();
  }

  /** The other side closed, or the line broke: `code` is the server's, or the browser's for want of one. */
  #closed(code, reason) {
    this.#socket.onclose = null; // once is enough
    this.#socket.onerror = () => {};
    const failedToOpen = this.#openedAt === 0;
    const told = reason ? ` (${reason})` : "";
    if (failedToOpen && this.#options.isLoggedIn) {
      this.#askWhetherLoggedIn();
      return;
    }
    const rule = CLOSE_CODES[code];
    if (rule === undefined) {
      const ended = code === UNCLEAN ? "broke off" : `closed with ${code}`;
      const what = failedToOpen ? "cannot be reached, or refuses" : ended;
      this.#wait(`${this.#url} ${what}${told}`, code === UNCLEAN ? undefined : code);
      return;
    }
    const sentence = `${this.#url} closed with ${code}${told}: ${rule.when}; connect again: ${rule.reconnect}`;
    const forbidden = code === SYMBOL_FORBIDDEN ? this.#notAllowed : [];
    if (forbidden.length) {
      for (const name of forbidden) this.#forbidden.add(name);
      this.#wait(`${sentence}: ${forbidden.join(", ")}`, code);
    } else if (rule.waitMs) {
      const [from, to] = rule.waitMs;
      this.#wait(sentence, code, from + Math.random() * (to - from));
    } else {
      this.#end(code === UNAUTHENTICATED ? "unauthorized" : "refused", sentence, code);
    }
  }

  /** What this connection was told that the session may not watch. */
  get #notAllowed() {
    return [...this.#refused].filter(([, why]) => why === "symbol_not_allowed").map(([name]) => name);
  }

  #askWhetherLoggedIn() {
    const socket = this.#socket;
    const unreachable = `${this.#url} cannot be reached, or refuses`;
    new Promise((resolve) => resolve(this.#options.isLoggedIn())).then(
      (yes) => {
        if (this.#socket !== socket) return;
        if (yes) this.#wait(unreachable);
        else this.#end("unauthorized", `${this.#url} lets nobody in who is not logged in`);
      },
      (error) => this.#socket === socket && this.#wait(`${unreachable}, and who is logged in is not known: ${error}`),
    );
  }

  /** Give this connection up, and make a new one by the back-off. */
  #lose(sentence) {
    const socket = this.#socket;
    this.#wait(sentence);
    discard(socket);
  }

  #wait(sentence, code, ms) {
    const { firstBackoffMs, longestBackoffMs, stableMs } = this.#options;
    this.#socket = null;
    clearTimeout(this.#timer);
    if (this.#openedAt && performance.now() - this.#openedAt >= stableMs) this.#backoffMs = firstBackoffMs;
    let waitMs = ms;
    this.#mayHurry = waitMs === undefined;
    if (this.#mayHurry) {
      waitMs = this.#backoffMs * (0.5 + Math.random() / 2);
      this.#backoffMs = Math.min(2 * this.#backoffMs, longestBackoffMs);
    }
    this.#timer = setTimeout(() => this.#open(), waitMs);
    this.#enter("waiting", sentence, { code, waitMs });
  }

  /** @param {State} state */
  #end(state, sentence, code) {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.("online", this.#onNetwork);
    globalThis.removeEventListener?.("offline", this.#onNetwork);
    this.#enter(state, sentence, { code });
    if (socket) discard(socket);
    if (state === "unauthorized") this.#emit("unauthorized", sentence);
  }

  #enter(state, sentence, more = {}) {
    const before = this.#state;
    this.#state = state;
    if (state !== "connected") this.#figures.disconnected();
    if (state !== before) this.#emit("state", { state, before, sentence, code: undefined, waitMs: undefined, ...more });
  }

  // ---- whether the other side is there ----

  /** Ask for a sign of life, and look for it after so long; the connection is dead after so many looks in vain. */
  #ping(afterMs, looks) {
    clearTimeout(this.#timer);
    this.#heard = false;
    if (this.#pingedAt === 0) {
      this.#pingedAt = performance.now();
      this.#send({ type: "ping" });
    }
    this.#timer = setTimeout(() => this.#look(looks), afterMs);
  }

  // Looks are counted and not the time: where the machine slept, or a browser held up the timers of a page that nobody
  // looked at, what came meanwhile still waits to be read.
  #look(looks) {
    this.#silentLooks = this.#heard ? 0 : this.#silentLooks + 1;
    if (this.#silentLooks >= looks) {
      this.#lose(`${this.#url} does not answer`);
      return;
    }
    for (const symbol of this.#later) this.#refused.delete(symbol);
    if (this.#later.size) this.#flush();
    this.#later.clear();
    this.#pingRegularly();
  }

  #pingRegularly() {
    const { pingMs, patienceMs } = this.#options;
    this.#ping(pingMs, Math.ceil(patienceMs / pingMs));
  }

  #onNetwork = (event) => {
    if (this.#state === "connected") this.#ping(this.#options.probeMs, 1);
    else if (event.type === "online" && this.#mayHurry) this.retry();
  };

  // ---- what is said ----

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** Many calls at once become one message: the server counts messages. */
  #flushSoon() {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#flush();
    });
  }

  #flush() {
    if (this.#state !== "connected") return;
    const [told, refused, forbidden] = [this.#told, this.#refused, this.#forbidden];
    const added = this.symbols.filter((name) => !told.has(name) && !refused.has(name) && !forbidden.has(name));
    const dropped = [...this.#told].filter((name) => !this.#wanted.has(name));
    for (const name of dropped) this.#told.delete(name);
    for (const name of added) this.#told.add(name);
    // What the server subscribed by itself, it ends by itself.
    this.#command("unsubscribe", dropped.filter((name) => !this.#auto.has(name)));
    this.#command("subscribe", added);
  }

  #command(type, names) {
    let symbols = [];
    let characters = 0;
    for (const name of names) {
      if (characters > 0 && characters + name.length + 3 > MESSAGE_CHARACTERS) {
        this.#send({ type, symbols });
        [symbols, characters] = [[], 0];
      }
      symbols.push(name);
      characters += name.length + 3;
    }
    if (symbols.length) this.#send({ type, symbols });
  }

  // ---- what is heard ----

  #received(socket, data) {
    this.#heard = true;
    try {
      if (typeof data === "string") this.#message(socket, data);
      else this.#frame(socket, data);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#figures.faulty(error.code);
      this.#emit("fault", error);
      if (this.#socket === socket) this.#lose(`${this.#url} sent what cannot be understood: ${error.message}`);
    }
  }

  #frame(socket, data) {
    const decoder = this.#decoder;
    const count = decoder.decode(data);
    this.#figures.received(performance.now(), count, data.byteLength);
    for (let i = 0; i < count; i++) {
      const id = decoder.ids[i];
      const symbol = this.#names[id];
      if (symbol === undefined) throw new ProtocolError("unknown_id", `A frame has the id ${id}, which was never told`);
      this.#update(symbol, decoder.prices[i], decoder.volumes[i], id);
      if (this.#socket !== socket) return; // a listener closed it
    }
  }

  #update(symbol, price, volume, id) {
    for (const listener of this.#onUpdate) {
      try {
        listener(symbol, price, volume, id);
      } catch (error) {
        report(error);
      }
    }
  }

  #message(socket, text) {
    const message = parse(text);
    const updates = message.type === "prices" && Array.isArray(message.data) ? message.data : [];
    this.#figures.received(performance.now(), updates.length, text.length);
    switch (message.type) {
      case "subscribed":
        for (const { symbol, id } of pairs(message.symbols)) this.#names[id] = symbol;
        this.#emit("subscribed", message.symbols);
        break;
      case "unsubscribed":
        for (const { id } of pairs(message.symbols)) delete this.#names[id];
        this.#emit("unsubscribed", message.symbols);
        break;
      case "auto_subscribe":
        for (const { symbol, id } of pairs([message.data])) {
          this.#names[id] = symbol;
          this.#auto.add(symbol);
        }
        this.#emit("auto_subscribe", message.data);
        break;
      case "auto_unsubscribe":
        for (const { symbol, id } of pairs([message.data])) {
          this.#auto.delete(symbol);
          if (message.data.subscribed === true) {
            // What was asked for by a command goes on; where no caller wants it any more, it ends now.
            if (!this.#told.has(symbol)) this.#command("unsubscribe", [symbol]);
            continue;
          }
          // Off the watchlist, and still wanted by a caller: asked for again, should that have ended it.
          if (this.#told.delete(symbol)) this.#flushSoon();
          else delete this.#names[id];
        }
        this.#emit("auto_unsubscribe", message.data);
        break;
      case "prices": // the server's FEATURE_BINARY_WEBSOCKET is false
        for (const update of updates) {
          if (typeof update?.symbol !== "string" || !Number.isFinite(update.price) || !Number.isFinite(update.volume)) {
            throw badMessage("prices that are none");
          }
          this.#update(update.symbol, update.price, update.volume, this.#names.indexOf(update.symbol));
          if (this.#socket !== socket) return;
        }
        break;
      case "pong":
        if (this.#pingedAt) this.#figures.answered(performance.now() - this.#pingedAt);
        this.#pingedAt = 0;
        break;
      case "enigma":
        this.#emit("enigma", message.data);
        break;
      case "error":
        this.#refuse(message);
        break;
      // Others may be added to v1: a client that does not know them loses nothing.
    }
  }

  #refuse(message) {
    for (const symbol of Array.isArray(message.symbols) ? message.symbols : []) {
      this.#told.delete(symbol);
      this.#refused.set(symbol, message.code);
      if (message.code === "not_now") this.#later.add(symbol);
    }
    this.#emit("error", message);
  }

  #emit(name, argument) {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(argument);
      } catch (error) {
        report(error);
      }
    }
  }
}

/** @param {string} text @returns {Record<string, any>} */
function parse(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    throw badMessage("a text message that is no JSON");
  }
  if (message === null || typeof message !== "object") throw badMessage("a text message that is no JSON object");
  return message;
}

/** @param {unknown} list @returns {Pair[]} */
function pairs(list) {
  const valid =
    Array.isArray(list) &&
    list.every((row) => typeof row?.symbol === "string" && Number.isInteger(row.id) && row.id > 0 && row.id <= MAX_ID);
  if (!valid) throw badMessage("a message of symbols without their ids");
  return list;
}

/** @param {string} what */
function badMessage(what) {
  return new ProtocolError("bad_message", `It sent ${what}`);
}

/** Close without waiting for the other side, as far as the class can. */
function discard(socket) {
  if (typeof socket.terminate === "function" && socket.readyState !== 1) socket.terminate();
  else socket.close(1000);
}

/** @param {unknown} error as if nobody had caught it */
function report(error) {
  queueMicrotask(() => {
    throw error;
  });
}

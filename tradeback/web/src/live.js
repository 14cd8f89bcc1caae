// The page's connection: a client of `client.js` with the session's cookie, and what the panel tells of it.

import { Client, CLOSE_CODES } from "./client.js";
import * as rest from "./rest.js";

/** Where the WebSocket is: on a port of its own where the page was told one, else where the page came from. */
function address() {
  const port = document.querySelector("meta[name=websocket-port]").content;
  if (port && location.protocol === "http:") return `ws://${location.hostname}:${port}/api/v1/ws`;
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/ws`;
}

/** Browsers do not tell why a connection was refused; the REST interface does. */
async function isLoggedIn() {
  try {
    await rest.session();
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

/**
 * `onPrice(symbol, price, volume)`, `onEnigma(data)`, `onState(state)`, `onWatchlist(symbol)` when the server
 * subscribed or unsubscribed by itself, `onRefused(message)`, `onLoggedOut()`.
 */
export class Live {
  #client = new Client(address(), { isLoggedIn });
  #wanted = new Set();
  #code;

  /** By performance.now() when it will be tried again, or null. */
  retryAt = null;

  constructor({ onPrice, onEnigma, onState, onWatchlist, onRefused, onLoggedOut }) {
    const client = this.#client;
    client.on("update", onPrice);
    client.on("enigma", onEnigma);
    client.on("error", onRefused);
    client.on("auto_subscribe", ({ symbol }) => onWatchlist(symbol));
    client.on("auto_unsubscribe", ({ symbol }) => onWatchlist(symbol));
    client.on("state", ({ state, code, waitMs }) => {
      this.#code = code;
      this.retryAt = waitMs === undefined ? null : performance.now() + waitMs;
      onState(state);
    });
    client.on("unauthorized", onLoggedOut);
  }

  get state() {
    return this.#client.state;
  }

  /** Why there is no connection, as a sentence. */
  get reason() {
    const rule = CLOSE_CODES[this.#code];
    return rule ? `Disconnected: ${rule.when}.` : "The connection is lost.";
  }

  /** See `Client.statistics`. */
  get statistics() {
    return this.#client.statistics();
  }

  /** What `want` was called with. */
  get wanted() {
    return [...this.#wanted];
  }

  start() {
    this.#client.connect();
  }

  /** End the connection, and forget what was wanted. */
  stop() {
    this.want([]);
    this.#client.close();
  }

  connectNow() {
    this.#client.retry();
    this.#client.connect();
  }

  /** From now on, updates of these symbols beside those of the watchlist. */
  want(symbols) {
    const wanted = new Set(symbols);
    const added = symbols.filter((symbol) => !this.#wanted.has(symbol));
    const dropped = [...this.#wanted].filter((symbol) => !wanted.has(symbol));
    this.#wanted = wanted;
    if (added.length) this.#client.subscribe(...added);
    if (dropped.length) this.#client.unsubscribe(...dropped);
  }
}

// The REST interface, as far as the page uses it. docs/rest.md has all of it.

import { ServerClock } from "./serverclock.js";

const API = "/api/v1";
const TIMEOUT_MS = 15_000;

/** What the server refused. `code` is for programs, `message` for people; `retryAfter` in seconds, where it was told. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.name = "Refused";
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The server's clock, by what its answers say. */
export const clock = new ServerClock();

async function ask(method, path, body, signal) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const options = { method, credentials: "same-origin", headers: {} };
  options.signal = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const sentMs = Date.now();
  const response = await fetch(path, options);
  // Another answer may be one of before, out of the browser's cache.
  const date = response.headers.get("Cache-Control")?.includes("no-store") ? response.headers.get("Date") : null;
  if (date !== null) clock.heard(Date.parse(date) / 1000, sentMs, Date.now());
  if (response.status === 204) return null;
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw refusal(response, text);
}

function refusal(response, text) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy's own page; its status says enough.
  }
  const after = Number(response.headers.get("Retry-After"));
  const message = error.message ?? `The server answered ${response.status}.`;
  return new Refused(response.status, error.code ?? "unknown", message, after > 0 ? after : undefined);
}

const symbolPath = (symbol, rest = "") => `${API}/symbols/${encodeURIComponent(symbol)}${rest}`;

export const login = (username, password) => ask("POST", `${API}/auth/login`, { username, password });
export const logout = () => ask("POST", `${API}/auth/logout`);
export const session = () => ask("GET", `${API}/auth/session`);
/** The active symbols with this text in their names, the nearest first, `limit` at most; for the empty text any. */
export function search(text, { limit, signal } = {}) {
  const query = new URLSearchParams();
  if (text) query.set("q", text);
  if (limit !== undefined) query.set("limit", String(limit));
  return ask("GET", query.size ? `${API}/symbols?${query}` : `${API}/symbols`, undefined, signal);
}
export const symbol = (name) => ask("GET", symbolPath(name));
export const enigma = (name, signal) => ask("GET", symbolPath(name, "/enigma"), undefined, signal);

export const watchlist = async () => (await ask("GET", `${API}/marketwatch`)).symbols;
export const watch = async (name) =>
  (await ask("POST", `${API}/marketwatch/${encodeURIComponent(name)}`)).symbols;
export const unwatch = async (name) =>
  (await ask("DELETE", `${API}/marketwatch/${encodeURIComponent(name)}`)).symbols;
export const arrange = async (names) => (await ask("PUT", `${API}/marketwatch`, { symbols: names })).symbols;

/** Bars by rising time; `from`, inclusive, and `to`, exclusive, in unix seconds. */
export async function bars(name, resolution, { from, to, limit, signal } = {}) {
  const query = new URLSearchParams({ resolution });
  if (from !== undefined) query.set("from", String(from));
  if (to !== undefined) query.set("to", String(to));
  if (limit !== undefined) query.set("limit", String(limit));
  return (await ask("GET", `${symbolPath(name, "/bars")}?${query}`, undefined, signal)).bars;
}

/** What the day brought so far, by symbol: last price, yesterday's close, high, low, volume. Without those unknown. */
export async function quotes(names) {
  const found = new Map();
  if (names.length === 0) return found;
  const query = new URLSearchParams({ symbols: names.join(",") });
  for (const quote of (await ask("GET", `${API}/tradingview/quotes?${query}`)).d ?? []) {
    if (quote.s === "ok") found.set(quote.n, quote.v);
  }
  return found;
}

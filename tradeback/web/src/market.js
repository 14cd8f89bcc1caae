// What is known of each symbol that the page shows: the last price and what the day brought.

import * as rest from "./rest.js";

const REFRESH_MS = 60_000;
const QUOTES_AT_ONCE = 100;
const MANY = 6; // symbols, to describe which takes one long answer rather than one for each

/**
 * One symbol. Prices are null until the first is known; `before` is yesterday's close, which changes are reckoned
 * from; `moved` is which way the price went last, until that is painted; `at` is when the last trade was heard of, by
 * performance.now().
 */
export class Quote {
  constructor(symbol) {
    this.symbol = symbol;
    this.described = false;
    this.base = symbol;
    this.counter = "";
    this.precision = 2;
    this.quantityPrecision = 8;
    this.price = null;
    this.before = null;
    this.high = null;
    this.low = null;
    this.volume = null;
    this.moved = 0;
    this.at = null;
  }

  /** The change since yesterday's close in percent, or null. */
  get change() {
    return this.price === null || !this.before ? null : (100 * (this.price - this.before)) / this.before;
  }
}

/** The quotes by symbol. `onChange(quote)` is called after each change of one. */
export class Market {
  #quotes = new Map();
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  quote(symbol) {
    let quote = this.#quotes.get(symbol);
    if (quote === undefined) {
      quote = new Quote(symbol);
      this.#quotes.set(symbol, quote);
    }
    return quote;
  }

  /** An entry of `GET /symbols`. */
  describe(entry) {
    const quote = this.quote(entry.symbol);
    quote.base = entry.base_currency;
    quote.counter = entry.quote_currency;
    quote.precision = entry.price_precision;
    quote.quantityPrecision = entry.quantity_precision;
    quote.described = true;
    this.#onChange(quote);
  }

  /** An update from the WebSocket. */
  update(symbol, price, volume) {
    const quote = this.quote(symbol);
    // A second trade at that price, before the next frame, takes nothing from the change that the first one was.
    if (quote.price !== null && price !== quote.price) quote.moved = Math.sign(price - quote.price);
    quote.price = price;
    // A volume of 0 is the price at the time of subscribing, however old that is.
    if (volume > 0) quote.at = performance.now();
    if (quote.high !== null) quote.high = Math.max(quote.high, price);
    if (quote.low !== null) quote.low = Math.min(quote.low, price);
    if (quote.volume !== null) quote.volume += volume;
    this.#onChange(quote);
  }

  /** Ask for what frames do not carry, of these symbols. */
  async refresh(names) {
    await this.#describe(names.filter((name) => !this.quote(name).described));
    for (let from = 0; from < names.length; from += QUOTES_AT_ONCE) {
      const found = await rest.quotes(names.slice(from, from + QUOTES_AT_ONCE));
      for (const [name, day] of found) this.#take(this.quote(name), day);
    }
  }

  async #describe(names) {
    if (names.length > MANY) {
      const wanted = new Set(names);
      for (const entry of await rest.search("")) if (wanted.has(entry.symbol)) this.describe(entry);
    } else {
      await Promise.all(names.map((name) => this.#describeOne(name)));
    }
  }

  async #describeOne(name) {
    try {
      this.describe(await rest.symbol(name));
    } catch (error) {
      // A watchlist may name what the exchange no longer has; its row says no more than the name.
      if (error.status !== 404) throw error;
    }
  }

  #take(quote, day) {
    quote.price ??= day.lp;
    quote.before = day.prev_close_price;
    quote.high = Math.max(day.high_price, quote.price);
    quote.low = Math.min(day.low_price, quote.price);
    quote.volume = day.volume;
    this.#onChange(quote);
  }
}

/** Calls `refresh` every minute, and at once when the tab is looked at again. */
export function keepFresh(refresh) {
  setInterval(refresh, REFRESH_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
}

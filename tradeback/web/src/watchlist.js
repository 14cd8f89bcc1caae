// The watchlist: a list of options, of which one is shown in the chart.

import { onNextFrame } from "./frame.js";
import * as format from "./format.js";
import { Sparkline } from "./sparkline.js";
import { setText } from "./text.js";

const FLASH_MS = 600;
const FLASH_PAUSE_MS = 150;
const still = matchMedia("(prefers-reduced-motion: reduce)");

class Row {
  #flashedAt = -Infinity;
  #price = part("row-price");
  #change = part("row-change");
  #base = part("row-base");
  #counter = part("row-counter muted");

  constructor(quote) {
    this.quote = quote;
    this.sparkline = new Sparkline(quote);
    this.element = document.createElement("li");
    this.element.id = `watch-${quote.symbol}`;
    this.element.className = "row";
    this.element.role = "option";
    this.element.dataset.symbol = quote.symbol;
    this.element.ariaSelected = "false";
    const name = part("row-name");
    name.append(this.#base, this.#counter);
    this.element.append(name, this.sparkline.canvas, this.#price, this.#change);
    this.paint = this.paint.bind(this);
    this.paint();
  }

  paint() {
    const { base, counter, price, precision, change, moved } = this.quote;
    setText(this.#base, base);
    setText(this.#counter, counter && `/${counter}`);
    setText(this.#price, price === null ? "–" : format.price(price, precision));
    setText(this.#change, change === null ? "" : format.percent(change));
    this.#change.dataset.sign = Math.sign(change ?? 0);
    this.sparkline.paint();
    if (moved !== 0) this.#flash(moved);
    this.quote.moved = 0;
  }

  #flash(direction) {
    const now = performance.now();
    if (now - this.#flashedAt < FLASH_PAUSE_MS) return;
    this.#flashedAt = now;
    this.#price.dataset.moved = direction > 0 ? "up" : "down";
    const color = `var(--${direction > 0 ? "up" : "down"}-flash)`;
    if (!still.matches) {
      this.#price.animate([{ backgroundColor: color }, { backgroundColor: "transparent" }], FLASH_MS);
    }
  }
}

function part(className) {
  const element = document.createElement("span");
  element.className = className;
  return element;
}

/** The list. `onSelect(symbol)` when a row is chosen, `onRemove(symbol)` when it is to go, `onArrange(symbols)` on another order. */
export class Watchlist {
  #rows = new Map();
  #list = document.getElementById("watchlist");
  #market;
  #selected = null;

  constructor(market, { onSelect, onRemove, onArrange }) {
    this.#market = market;
    this.onSelect = onSelect;
    this.onRemove = onRemove;
    this.onArrange = onArrange;
    this.#list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (!row) return;
      this.onSelect(row.dataset.symbol);
      // Where the chart is above the list, as on a phone, it comes into view.
      document.getElementById("market").scrollIntoView({ block: "nearest" });
    });
    this.#list.addEventListener("keydown", (event) => this.#key(event));
  }

  get symbols() {
    return [...this.#rows.keys()];
  }

  has(symbol) {
    return this.#rows.has(symbol);
  }

  /** Show these symbols, in this order. Rows that were there stay the same elements. */
  show(symbols) {
    const rows = new Map(
      symbols.map((symbol) => [symbol, this.#rows.get(symbol) ?? new Row(this.#market.quote(symbol))]),
    );
    this.#rows = rows;
    this.#list.replaceChildren(...[...rows.values()].map((row) => row.element));
    document.getElementById("watch-count").textContent = symbols.length ? String(symbols.length) : "";
    document.getElementById("watch-empty").hidden = symbols.length > 0;
    this.mark(this.#selected);
    for (const row of rows.values()) row.sparkline.load();
  }

  /** Have a symbol's row painted with the next frame. */
  changed(symbol) {
    const row = this.#rows.get(symbol);
    if (row) onNextFrame(row.paint);
  }

  repaint() {
    for (const symbol of this.#rows.keys()) this.changed(symbol);
  }

  /** The symbol that is shown in the chart. */
  mark(symbol) {
    this.#selected = symbol;
    for (const [name, row] of this.#rows) row.element.ariaSelected = String(name === symbol);
    const row = this.#rows.get(symbol);
    if (row) {
      this.#list.setAttribute("aria-activedescendant", row.element.id);
      row.element.scrollIntoView({ block: "nearest" });
    } else {
      this.#list.removeAttribute("aria-activedescendant");
    }
  }

  /** Select the symbol that many places further; the ends are ends. */
  step(by) {
    const symbols = this.symbols;
    if (symbols.length === 0) return;
    const at = symbols.indexOf(this.#selected);
    const to = at < 0 ? 0 : Math.min(Math.max(at + by, 0), symbols.length - 1);
    if (to !== at) this.onSelect(symbols[to]);
  }

  removeSelected() {
    if (this.#rows.has(this.#selected)) this.onRemove(this.#selected);
  }

  focus() {
    this.#list.focus();
  }

  /** Move the selected row that many places. */
  moveSelected(by) {
    const symbols = this.symbols;
    const at = symbols.indexOf(this.#selected);
    const to = at + by;
    if (at < 0 || to < 0 || to >= symbols.length) return;
    symbols.splice(to, 0, ...symbols.splice(at, 1));
    this.onArrange(symbols);
  }

  #key(event) {
    const symbols = this.symbols;
    if (event.key === "Home" && symbols.length) this.onSelect(symbols[0]);
    else if (event.key === "End" && symbols.length) this.onSelect(symbols.at(-1));
    else return;
    event.preventDefault();
  }
}

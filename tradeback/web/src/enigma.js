// The Enigma level: where the price stands between the lowest and the highest ever, with the Fibonacci levels.

import { onNextFrame } from "./frame.js";
import * as format from "./format.js";
import * as rest from "./rest.js";
import { setText } from "./text.js";

export class Enigma {
  #level = document.getElementById("enigma-level");
  #mark = document.getElementById("enigma-mark");
  #table = document.getElementById("levels");
  #note = document.getElementById("enigma-note");
  #data = null;
  #symbol = null;
  #precision = 2;
  #asking = null;
  #cells = new Map();

  /** `onLevels(levels)` gets prices by name, such as `{"38.2": 96216.08}`, or null, whenever they change. */
  constructor({ onLevels }) {
    this.onLevels = onLevels;
    this.paint = this.paint.bind(this);
  }

  /** Show a symbol's level. Where the server knows none yet, or has this switched off, a sentence says so. */
  async show(symbol, precision) {
    if (symbol === this.#symbol && precision === this.#precision && this.#data !== null) return;
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    this.#symbol = symbol;
    this.#precision = precision;
    this.#set(null, "");
    try {
      const data = await rest.enigma(symbol, asking.signal);
      // A message of the WebSocket may be quicker than an answer that was made before it.
      if (this.#data === null || data.timestamp >= this.#data.timestamp) this.#set(data, "");
    } catch (error) {
      if (!asking.signal.aborted && this.#data === null) this.#set(null, error.message);
    }
  }

  /** Show nothing, and ask for nothing more. */
  clear() {
    this.#asking?.abort();
    this.#symbol = null;
    this.#set(null, "");
  }

  /** The data of an `enigma` message. */
  update(data) {
    if (data.symbol === this.#symbol) this.#set(data, "");
  }

  #set(data, note) {
    this.#data = data;
    this.#note.textContent = note;
    this.#note.hidden = note === "";
    onNextFrame(this.paint);
    this.onLevels(data?.fib_levels ?? null);
  }

  paint() {
    const data = this.#data;
    const level = data?.level ?? null;
    this.#level.textContent = level === null ? "–" : level.toFixed(2);
    this.#mark.hidden = level === null;
    if (level !== null) this.#mark.style.left = `${level}%`;
    const levels = Object.entries(data?.fib_levels ?? {}).sort((one, other) => other[1] - one[1]);
    if (levels.map(([name]) => name).join() !== [...this.#cells.keys()].join()) this.#rows(levels);
    for (const [name, price] of levels) {
      const cell = this.#cells.get(name);
      setText(cell, format.price(price, this.#precision));
      cell.parentElement.classList.toggle("passed", level !== null && Number(name) <= level);
    }
  }

  #rows(levels) {
    this.#cells.clear();
    this.#table.replaceChildren(
      ...levels.map(([name]) => {
        const row = document.createElement("tr");
        const head = document.createElement("th");
        head.scope = "row";
        head.textContent = { 0: "0% · lowest", 100: "100% · highest" }[name] ?? `${name}%`;
        const cell = document.createElement("td");
        row.append(head, cell);
        this.#cells.set(name, cell);
        return row;
      }),
    );
  }
}

// The search: a combobox whose list shows what the server finds, as one types.

import * as rest from "./rest.js";

const PAUSE_MS = 120;
const MOST = 50;

export class Search {
  #input = document.getElementById("search");
  #list = document.getElementById("found");
  #entries = [];
  #active = -1;
  #fresh = false; // the list is that of what the input has now
  #takesFirst = false; // Enter was pressed before that list was there
  #timer = 0;
  #asking = null;

  /** `isWatched(symbol)` marks what is on the watchlist; `onChoose(entry)` gets an entry of `GET /symbols`. */
  constructor({ isWatched, onChoose, onFailure }) {
    this.isWatched = isWatched;
    this.onChoose = onChoose;
    this.onFailure = onFailure;
    this.#input.addEventListener("input", () => this.#later());
    this.#input.addEventListener("focus", () => this.#later());
    this.#input.addEventListener("blur", () => this.close());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    // Before the click takes the focus away, and with it the list.
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#choose(Number(option.dataset.at));
    });
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /** Forget what was typed. */
  clear() {
    this.#input.value = "";
    this.#input.blur();
    this.close();
  }

  close() {
    this.#outdate();
    this.#entries = [];
    this.#list.replaceChildren();
    this.#list.hidden = true;
    this.#input.ariaExpanded = "false";
  }

  #later() {
    this.#outdate();
    this.#timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  /** Nothing in the list is to be taken for what the input has now, and no list of before is to come. */
  #outdate() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#fresh = false;
    this.#takesFirst = false;
    this.#activate(-1);
  }

  async #ask() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    try {
      const found = await rest.search(this.#input.value.trim(), { limit: MOST, signal: asking.signal });
      if (!asking.signal.aborted) this.#show(found);
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#takesFirst = false;
      this.onFailure(error);
    }
  }

  #show(found) {
    const takesFirst = this.#takesFirst;
    this.#takesFirst = false;
    this.#fresh = true;
    this.#entries = found;
    const options = this.#entries.map((entry, at) => this.#option(entry, at));
    if (options.length === 0) {
      const none = document.createElement("li");
      none.className = "muted";
      none.textContent = "No symbol has this in its name.";
      options.push(none);
    }
    this.#list.replaceChildren(...options);
    this.#list.hidden = false;
    this.#input.ariaExpanded = "true";
    this.#activate(this.#entries.length > 0 ? 0 : -1);
    if (takesFirst) this.#choose(0);
  }

  #option(entry, at) {
    const option = document.createElement("li");
    option.id = `found-${at}`;
    option.role = "option";
    option.dataset.at = String(at);
    option.dataset.symbol = entry.symbol;
    const [name, pair, mark] = ["strong", "span", "span"].map((tag) => document.createElement(tag));
    name.textContent = entry.symbol;
    pair.textContent = entry.name;
    pair.className = "muted";
    mark.textContent = this.isWatched(entry.symbol) ? "★" : "";
    mark.className = "found-mark";
    option.append(name, pair, mark);
    return option;
  }

  #activate(at) {
    this.#active = at;
    this.#entries.forEach((_, index) => {
      const option = this.#list.children[index];
      option.ariaSelected = String(index === at);
      if (index === at) option.scrollIntoView({ block: "nearest" });
    });
    if (at >= 0) this.#input.setAttribute("aria-activedescendant", `found-${at}`);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #choose(at) {
    const entry = this.#entries[at];
    if (entry === undefined) return;
    this.clear();
    this.onChoose(entry);
  }

  /** Takes the active option, or the first one of the list that is still to come. */
  #enter() {
    if (this.#fresh || this.#active >= 0) this.#choose(this.#active);
    else if (!this.#takesFirst) {
      this.#takesFirst = true;
      this.#ask();
    }
  }

  #key(event) {
    const last = this.#entries.length - 1;
    if (event.key === "ArrowDown") this.#activate(Math.min(this.#active + 1, last));
    else if (event.key === "ArrowUp") this.#activate(Math.max(this.#active - 1, Math.min(0, last)));
    else if (event.key === "Enter") this.#enter();
    else if (event.key === "Escape") this.clear();
    else return;
    event.preventDefault();
  }
}

// The page put together: login, watchlist, chart, Enigma level, connection; and the keys.

import { RESOLUTIONS } from "./bars.js";
import { Chart } from "./chart.js";
import { ConnectionPanel } from "./connection.js";
import { Enigma } from "./enigma.js";
import * as format from "./format.js";
import { onNextFrame } from "./frame.js";
import { Live } from "./live.js";
import { Login } from "./login.js";
import { keepFresh, Market, Quote } from "./market.js";
import { notify } from "./notices.js";
import * as rest from "./rest.js";
import { Search } from "./search.js";
import { setText } from "./text.js";
import * as theme from "./theme.js";
import { Watchlist } from "./watchlist.js";

const element = (id) => document.getElementById(id);
const desk = element("desk");
const help = element("help");

const NOTHING = new Quote("\u00a0");

let visits = 0; // logins and their ends; an answer to what was asked before the last one is nobody's
let shown = null; // the symbol in the chart
let resolution = RESOLUTIONS[0];
let levels = null;
let shownPrecisely = ""; // the symbol, its precision and the resolution that the chart has

const market = new Market((quote) => {
  watchlist.changed(quote.symbol);
  if (quote.symbol === shown) onNextFrame(paintHead);
});
const watchlist = new Watchlist(market, { onSelect: show, onRemove: remove, onArrange: arrange });
const chart = new Chart(element("chart"), {
  onAwayFromNow: (away) => {
    element("to-now").hidden = !away;
  },
});
const enigma = new Enigma({
  onLevels: (prices) => {
    levels = prices;
    paintLevels();
  },
});
const search = new Search({
  isWatched: (symbol) => watchlist.has(symbol),
  onChoose: async (entry) => {
    market.describe(entry);
    watchlist.focus();
    if (await add(entry.symbol)) show(entry.symbol);
  },
  onFailure: failed,
});
const live = new Live({
  onPrice: (symbol, price, volume) => {
    market.update(symbol, price, volume);
    if (symbol === shown) chart.update(price, volume);
  },
  onEnigma: (data) => enigma.update(data),
  // Another tab or program of this user has changed the watchlist.
  onWatchlist: () => loadWatchlist().catch(failed),
  onRefused: ({ message, symbols = [] }) => notify([message, symbols.join(", ")].filter(Boolean).join(": ")),
  onState: (state) => {
    panel.changed();
    if (state !== "connected" || shown === null) return;
    refresh();
    chart.restart();
  },
  onLoggedOut: () => leave("Your session has ended. Log in again."),
});
const panel = new ConnectionPanel(live);
const login = new Login({ onLogin: enter });

function failed(error) {
  if (desk.hidden) return; // who asked has left
  if (error.status === 401) leave("Your session has ended. Log in again.");
  else notify(error.message);
}

async function enter(user) {
  visits += 1;
  element("user").textContent = user.username;
  desk.hidden = false;
  live.start();
  watchlist.focus();
  try {
    await loadWatchlist();
  } catch (error) {
    failed(error);
  }
}

/** Nothing of one user stays for the next. */
function leave(reason) {
  visits += 1;
  login.forget();
  live.stop();
  desk.hidden = true;
  shown = null;
  shownPrecisely = "";
  chart.clear();
  enigma.clear();
  search.clear();
  panel.watch(null);
  watchlist.mark(null);
  setWatchlist([]);
  paintHead();
  paintTitle();
  element("user").textContent = "";
  login.ask(reason);
}

async function loadWatchlist() {
  if (!(await takeWatchlist(rest.watchlist()))) return;
  const first = watchlist.symbols[0];
  if (shown === null && first !== undefined) show(first);
  else await refresh();
}

function setWatchlist(symbols) {
  watchlist.show(symbols);
  subscribe();
  paintStar();
}

/** Show the watchlist that was asked for. False where who asked has left meanwhile. */
async function takeWatchlist(asked) {
  const visit = visits;
  const symbols = await asked;
  if (visit !== visits) return false;
  setWatchlist(symbols);
  return true;
}

/** What the page shows prices of. */
const seen = () => [...new Set(shown === null ? watchlist.symbols : [...watchlist.symbols, shown])];

/**
 * Have the updates of what is seen. The server sends those of the watchlist by itself; what was asked for stays asked
 * for while it is on the watchlist, for to unsubscribe would keep it away there too.
 */
function subscribe() {
  const asked = live.wanted.filter((symbol) => watchlist.has(symbol));
  live.want(shown === null || watchlist.has(shown) ? asked : [...asked, shown]);
}

async function refresh() {
  try {
    await market.refresh(seen());
    // Where the precision was not to be had before, the chart has another one.
    if (shown !== null && market.quote(shown).described) showPrecisely();
  } catch (error) {
    failed(error);
  }
}

/** Put a symbol on the watchlist. False where it is not to be shown: the user may not watch it, or has left. */
async function add(symbol) {
  try {
    if (!(await takeWatchlist(rest.watch(symbol)))) return false;
    refresh();
  } catch (error) {
    failed(error);
    return error.status !== 403;
  }
  return true;
}

async function arrange(symbols) {
  watchlist.show(symbols);
  try {
    await takeWatchlist(rest.arrange(symbols));
  } catch (error) {
    failed(error);
  }
}

async function remove(symbol) {
  const symbols = watchlist.symbols;
  const at = symbols.indexOf(symbol);
  try {
    if (!(await takeWatchlist(rest.unwatch(symbol)))) return;
    const next = symbols[at + 1] ?? symbols[at - 1];
    if (symbol === shown && next !== undefined) show(next);
    notify(`${symbol} is off the watchlist.`);
  } catch (error) {
    failed(error);
  }
}

function show(symbol) {
  if (symbol !== shown) {
    shown = symbol;
    subscribe();
    refresh().then(showPrecisely);
  }
  watchlist.mark(symbol);
  panel.watch(market.quote(symbol));
  paintStar();
  paintHead();
  if (market.quote(symbol).described) showPrecisely();
}

/** The chart of what is shown, unless it is that already. */
function showPrecisely() {
  if (shown === null) return;
  const quote = market.quote(shown);
  const { precision } = quote;
  const key = `${shown} ${precision} ${resolution.name}`;
  if (key === shownPrecisely) return;
  shownPrecisely = key;
  chart.show(quote, resolution);
  paintLevels();
  enigma.show(shown, precision);
}

function setResolution(chosen) {
  resolution = chosen;
  for (const button of element("resolutions").children) {
    const checked = button.dataset.resolution === chosen.name;
    button.ariaChecked = String(checked);
    button.tabIndex = checked ? 0 : -1;
  }
  showPrecisely();
}

const [symbolText, priceText, changeText, highText, lowText, volumeText] = [
  "symbol",
  "price",
  "change",
  "high",
  "low",
  "volume",
].map(element);

function paintHead() {
  const { base, counter, price, precision, change, high, low, volume } =
    shown === null ? NOTHING : market.quote(shown);
  const text = (value) => (value === null ? "–" : format.price(value, precision));
  setText(symbolText, counter ? `${base} / ${counter}` : base);
  setText(priceText, text(price));
  setText(changeText, change === null ? "" : format.percent(change));
  changeText.dataset.sign = Math.sign(change ?? 0);
  setText(highText, text(high));
  setText(lowText, text(low));
  setText(volumeText, volume === null ? "–" : `${format.amount(volume)} ${base}`);
}

/** The tab's title: once a second, for to set it costs more than a row of the list. */
function paintTitle() {
  const { price, precision } = shown === null ? { price: null } : market.quote(shown);
  document.title = price === null ? "Trade-Back" : `${format.price(price, precision)} ${shown} · Trade-Back`;
}

function paintStar() {
  element("star").ariaPressed = String(shown !== null && watchlist.has(shown));
  element("star").disabled = shown === null;
}

function paintLevels() {
  chart.setLevels(element("fibonacci").checked ? levels : null);
}

function toggleStar() {
  if (shown === null) return;
  if (watchlist.has(shown)) remove(shown);
  else add(shown);
}

const KEYS = {
  "/": () => search.focus(),
  ArrowDown: () => watchlist.step(1),
  ArrowUp: () => watchlist.step(-1),
  "Alt+ArrowDown": () => watchlist.moveSelected(1),
  "Alt+ArrowUp": () => watchlist.moveSelected(-1),
  Delete: () => watchlist.removeSelected(),
  f: () => element("fibonacci").click(),
  n: () => chart.toNow(),
  t: () => theme.toggle(),
  "?": () => help.showModal(),
  ...Object.fromEntries(RESOLUTIONS.map((one, at) => [String(at + 1), () => setResolution(one)])),
};

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (desk.hidden || help.open || event.defaultPrevented || event.ctrlKey || event.metaKey) return;
  if (target.matches("input[type=text], input[type=password]")) return;
  const name = event.altKey ? `Alt+${key}` : key;
  const act = Object.hasOwn(KEYS, name) ? KEYS[name] : undefined;
  if (act === undefined) return;
  event.preventDefault();
  act();
});

for (const [at, one] of RESOLUTIONS.entries()) {
  const button = document.createElement("button");
  button.type = "button";
  button.role = "radio";
  button.textContent = one.name;
  button.dataset.resolution = one.name;
  button.title = `${one.spoken} (${at + 1})`;
  button.addEventListener("click", () => setResolution(one));
  element("resolutions").append(button);
}
element("resolutions").addEventListener("keydown", (event) => {
  // Up and down belong to the watchlist, wherever the focus is.
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  const to = (RESOLUTIONS.indexOf(resolution) + by + RESOLUTIONS.length) % RESOLUTIONS.length;
  setResolution(RESOLUTIONS[to]);
  element("resolutions").children[to].focus();
});
setResolution(resolution);

element("star").addEventListener("click", toggleStar);
element("theme").addEventListener("click", theme.toggle);
element("keys").addEventListener("click", () => help.showModal());
element("fibonacci").addEventListener("change", paintLevels);
element("to-now").addEventListener("click", () => chart.toNow());
element("logout").addEventListener("click", () => {
  login.logout().then(() => leave("You are logged out."), failed);
});
theme.onChange(() => watchlist.repaint());
setInterval(paintTitle, 1000);
keepFresh(() => {
  if (!desk.hidden) loadWatchlist().catch(failed);
});

login.start();

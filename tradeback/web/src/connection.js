// The connection panel, twice a second: what the WebSocket does; and the pill and the banner that stand for it.

import * as format from "./format.js";
import { setText } from "./text.js";
import { color } from "./theme.js";

const SECONDS = 60;
const PAINT_MS = 500;
const STALE_MS = 10_000;

const WORDS = {
  idle: "not connected",
  connecting: "connecting",
  connected: "live",
  waiting: "reconnecting",
  refused: "disconnected",
  unauthorized: "logged out",
};
const DOWN = new Set(["waiting", "refused"]);

export class ConnectionPanel {
  #pill = document.getElementById("pill");
  #pillText = document.getElementById("pill-text");
  #banner = document.getElementById("banner");
  #bannerText = document.getElementById("banner-text");
  #canvas = document.getElementById("pulse");
  #values = Object.fromEntries(
    ["state", "round-trip", "updates", "bytes", "stale", "reconnects"].map((id) => [
      id,
      document.getElementById(id),
    ]),
  );
  #live;
  #quote = null;
  #history = new Array(SECONDS).fill(0);
  #second = 0;
  #updates = 0;
  #wasDown = false;

  /** `live` as in live.js. */
  constructor(live) {
    this.#live = live;
    document.getElementById("banner-button").addEventListener("click", () => live.connectNow());
    this.#pill.addEventListener("click", () => {
      const panel = document.getElementById("connection");
      panel.scrollIntoView({ block: "nearest" });
      panel.focus({ preventScroll: true });
    });
    setInterval(() => this.#look(), PAINT_MS);
  }

  /** The symbol whose price's age is shown. */
  watch(quote) {
    this.#quote = quote;
  }

  /** The state has changed. */
  changed() {
    this.#paintState(this.#live.statistics);
  }

  #look() {
    const now = performance.now();
    const figures = this.#live.statistics;
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      const passed = Math.min(second - this.#second, SECONDS);
      const each = (figures.updates - this.#updates) / passed;
      this.#history = [...this.#history.slice(passed), ...new Array(passed).fill(each)];
      this.#second = second;
      this.#updates = figures.updates;
    }
    if (!document.hidden) this.#paint(figures, now);
  }

  #paint(figures, now) {
    const { roundTripMs, updatesPerSecond, bytesPerSecond, connections } = figures;
    const age = this.#quote?.at == null ? null : now - this.#quote.at;
    this.#show("round-trip", roundTripMs === null ? "–" : format.duration(roundTripMs));
    this.#show("updates", `${updatesPerSecond.toFixed(updatesPerSecond < 10 ? 1 : 0)} /s`);
    this.#show("bytes", format.rate(bytesPerSecond));
    this.#show("stale", age === null ? "–" : format.duration(age));
    this.#show("reconnects", String(Math.max(connections - 1, 0)));
    this.#values.stale.classList.toggle("bad", age !== null && age > STALE_MS);
    this.#paintState(figures);
    this.#paintPulse();
  }

  #paintState({ roundTripMs }) {
    const { state, retryAt, reason } = this.#live;
    const down = DOWN.has(state) || (state === "connecting" && this.#wasDown);
    this.#wasDown = down;
    this.#pill.dataset.state = state;
    this.#pill.dataset.delay =
      state === "connected" && roundTripMs !== null ? `· ${format.duration(roundTripMs)}` : "";
    // What is read out changes with the state alone; the delay beside it is for the eye.
    setText(this.#pillText, WORDS[state]);
    this.#show("state", WORDS[state]);
    this.#banner.hidden = !down;
    if (!down) return;
    const seconds = retryAt === null ? 0 : Math.ceil((retryAt - performance.now()) / 1000);
    const next = seconds > 0 ? ` Trying again in ${seconds} s.` : state === "refused" ? "" : " Trying again …";
    setText(this.#bannerText, `${reason}${next}`);
  }

  #show(name, text) {
    setText(this.#values[name], text);
  }

  #paintPulse() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (width === 0) return;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const most = Math.max(...this.#history, 1);
    const step = width / SECONDS;
    context.fillStyle = color("accent");
    this.#history.forEach((value, index) => {
      const tall = Math.max((value / most) * (height - 2), value > 0 ? 1 : 0);
      context.globalAlpha = 0.35 + (0.65 * index) / SECONDS;
      context.fillRect(index * step, height - tall, Math.max(step - 1, 1), tall);
    });
  }
}

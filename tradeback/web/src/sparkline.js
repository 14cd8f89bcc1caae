// The last day of a symbol as a line, beside its price.

import { color } from "./theme.js";
import * as rest from "./rest.js";

const HOURS = 24;
const RELOAD_MS = 600_000;
const REPAINT_MS = 1_000;
const AT_ONCE = 2;
const [WIDTH, HEIGHT] = [56, 26]; // as panels.css has it: to ask would make the browser lay out the page

// A long watchlist asks for its lines by and by: prices and the chart come first.
const queue = [];
let running = 0;

function next() {
  while (running < AT_ONCE && queue.length > 0) {
    running += 1;
    queue.shift()().finally(() => {
      running -= 1;
      next();
    });
  }
}

export class Sparkline {
  #quote;
  #closes = [];
  #loadedAt = -Infinity;
  #paintedAt = -Infinity;

  constructor(quote) {
    this.#quote = quote;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "sparkline";
    this.canvas.ariaHidden = "true";
  }

  /** Ask for the line, unless that was done lately. Where it cannot be had there is none. */
  load() {
    const now = performance.now();
    if (now - this.#loadedAt < RELOAD_MS) return;
    this.#loadedAt = now;
    queue.push(async () => {
      try {
        const bars = await rest.bars(this.#quote.symbol, "1h", { limit: HOURS });
        this.#closes = bars.map((bar) => bar.close);
        this.paint(true);
      } catch (error) {
        console.info(`no line for ${this.#quote.symbol}: ${error.message}`);
      }
    });
    next();
  }

  paint(now = false) {
    const time = performance.now();
    if (!now && time - this.#paintedAt < REPAINT_MS) return;
    if (this.#closes.length < 2) return;
    this.#paintedAt = time;
    const scale = devicePixelRatio;
    this.canvas.width = Math.round(WIDTH * scale);
    this.canvas.height = Math.round(HEIGHT * scale);
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const values = [...this.#closes.slice(0, -1), this.#quote.price ?? this.#closes.at(-1)];
    const low = Math.min(...values);
    const range = Math.max(...values) - low || 1;
    context.beginPath();
    values.forEach((value, index) => {
      const x = 1 + (index / (values.length - 1)) * (WIDTH - 2);
      const y = HEIGHT - 2 - ((value - low) / range) * (HEIGHT - 4);
      if (index === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    });
    context.strokeStyle = color(values.at(-1) >= values[0] ? "up" : "down");
    context.lineWidth = 1.4;
    context.lineJoin = "round";
    context.stroke();
    context.lineTo(WIDTH - 1, HEIGHT);
    context.lineTo(1, HEIGHT);
    context.globalAlpha = 0.12;
    context.fillStyle = context.strokeStyle;
    context.fill();
  }
}

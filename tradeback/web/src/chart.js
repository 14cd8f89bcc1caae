// The candlestick chart: history by REST, older bars as one scrolls there, live bars from updates.

import {
  CandlestickSeries,
  ColorType,
  createChart,
  CrosshairMode,
  HistogramSeries,
  LineStyle,
} from "lightweight-charts";

import { merged } from "./bars.js";
import * as format from "./format.js";
import { onNextFrame } from "./frame.js";
import { LiveBars } from "./livebars.js";
import * as rest from "./rest.js";
import * as theme from "./theme.js";

const FIRST_BARS = 500;
const OLDER_BARS = 1000;
const MOST_BARS = 50_000;
const NEAR_THE_EDGE = 60;
const FIRST_BACKOFF_MS = 1000; // before the first bars are asked for again, shortened at random by up to a half
const LONGEST_BACKOFF_MS = 30_000;

export class Chart {
  #legend = document.getElementById("legend");
  #note = document.getElementById("chart-note");
  #chart;
  #candles;
  #volumes;
  #bars = [];
  #symbol = null;
  #resolution = null;
  #precision = 2;
  #shown = null; // aborted once something else is shown
  #live = null;
  #hurry = null; // ends the pause before the first bars are asked for again
  #loadingOlder = false;
  #complete = false; // there are no older bars
  #lines = [];
  #levels = null;
  #hovered = null;

  constructor(element, { onAwayFromNow }) {
    this.#chart = createChart(element, {
      autoSize: true,
      // The footer names TradingView; its mark in the chart would bring a style past the page's policy.
      layout: { attributionLogo: false },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#chart.priceScale("right").applyOptions({ scaleMargins: { top: 0.1, bottom: 0.2 } });
    this.#chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.#chart.subscribeCrosshairMove((at) => {
      this.#hovered = at.time ?? null;
      onNextFrame(this.#paintLegend);
    });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range === null) return;
      if (range.from < NEAR_THE_EDGE) onNextFrame(this.#lookSoon);
      onAwayFromNow(this.#bars.length > 0 && range.to < this.#bars.length - 1);
    });
    theme.onChange(() => this.#colour());
    this.#colour();
    // A canvas cannot be read: this tells what is in it. docs/page.md has it for tests and other scripts.
    Object.defineProperty(element, "drawn", { get: () => this.#drawn() });
  }

  /**
   * Show a symbol, a `Quote`, at a resolution. What was shown before is gone at once; the first bars are asked for until
   * they come.
   */
  async show(quote, resolution) {
    this.clear();
    const { symbol, precision } = quote;
    const shown = new AbortController();
    this.#shown = shown;
    this.#symbol = symbol;
    this.#resolution = resolution;
    this.#precision = precision;
    const minMove = 10 ** -precision;
    this.#candles.applyOptions({ priceFormat: { type: "price", precision, minMove } });
    this.#chart.applyOptions({ timeScale: { timeVisible: resolution.seconds < 86_400 } });
    this.#tell("Loading bars …");
    const { signal } = shown;
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(2 * backoffMs, LONGEST_BACKOFF_MS)) {
      try {
        const bars = await rest.bars(symbol, resolution.name, { limit: FIRST_BARS, signal });
        if (signal.aborted) return;
        this.#complete = bars.length < FIRST_BARS;
        this.#setBars(bars);
        this.toNow();
        this.#tell(bars.length ? "" : "No trade of this symbol is stored yet.");
        this.#live = this.#liveBars(quote, resolution, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#pause(error, backoffMs, signal);
        if (signal.aborted) return;
      }
    }
  }

  /** Tell of bars that could not be had, and wait until it is time to ask again. */
  #pause(error, backoffMs, signal) {
    // What is refused for good may still be had from the server that is there after a lost connection.
    const forGood = error instanceof rest.Refused && error.status < 500 && error.status !== 429;
    this.#tell(forGood ? `No bars: ${error.message}` : `No bars yet, trying again: ${error.message}`);
    const waitMs = Math.max(backoffMs * (0.5 + Math.random() / 2), 1000 * (error.retryAfter ?? 0));
    return new Promise((resolve) => {
      const timer = forGood ? undefined : setTimeout(resolve, waitMs);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", this.#hurry, { once: true });
    });
  }

  /** Show nothing, and ask for nothing more. */
  clear() {
    this.#shown?.abort();
    this.#shown = null;
    this.#live?.stop();
    this.#live = null;
    this.#hurry = null;
    this.#loadingOlder = false;
    this.#complete = false;
    this.#setBars([]);
    this.setLevels(null);
  }

  /** An update of the symbol that is shown. */
  update(price, volume) {
    this.#live?.update(price, volume);
  }

  /** The connection is a new one: what was missed meanwhile is asked for, and what could not be had, at once. */
  restart() {
    if (this.#live !== null) this.#live.restart();
    else this.#hurry?.();
  }

  /** Lines at these prices, by name; null for none. */
  setLevels(levels) {
    const same = JSON.stringify(levels) === JSON.stringify(this.#levels);
    if (same) return;
    this.#levels = levels;
    for (const line of this.#lines) this.#candles.removePriceLine(line);
    this.#lines = Object.entries(levels ?? {}).map(([name, price]) =>
      this.#candles.createPriceLine({
        price,
        title: `${name}%`,
        color: theme.color(name === "0" || name === "100" ? "level-edge" : "level"),
        lineWidth: 1,
        lineStyle: LineStyle.Dashed,
        axisLabelVisible: true,
      }),
    );
  }

  toNow() {
    this.#chart.timeScale().resetTimeScale();
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
  }

  // While bars are replaced the range runs through what nobody sees; the chart has settled a frame after its own.
  #lookSoon = () => onNextFrame(this.#loadWhatIsSeen);

  #loadWhatIsSeen = () => {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    if (range !== null && range.from < NEAR_THE_EDGE) this.#loadOlder();
  };

  async #loadOlder() {
    if (this.#loadingOlder || this.#complete || this.#bars.length === 0) return;
    if (this.#bars.length >= MOST_BARS) return;
    this.#loadingOlder = true;
    const { signal } = this.#shown;
    try {
      const to = this.#bars[0].time;
      const bars = await rest.bars(this.#symbol, this.#resolution.name, { to, limit: OLDER_BARS, signal });
      if (signal.aborted) return;
      this.#complete = bars.length < OLDER_BARS;
      if (bars.length > 0) this.#setBars(merged(bars, this.#bars));
    } catch (error) {
      if (!signal.aborted) this.#tell(`No older bars: ${error.message}`);
    } finally {
      if (!signal.aborted) this.#loadingOlder = false;
    }
  }

  #liveBars(quote, resolution, signal) {
    const { symbol } = quote;
    return new LiveBars({
      lengthMs: 1000 * resolution.seconds,
      volumePrecision: quote.quantityPrecision,
      newest: this.#bars.length ? 1000 * this.#bars.at(-1).time : null,
      ask: async (fromMs) => {
        const range = fromMs === null ? { limit: 2 } : { from: fromMs / 1000 };
        const bars = await rest.bars(symbol, resolution.name, { ...range, signal });
        return bars.map((bar) => ({ ...bar, time: 1000 * bar.time }));
      },
      now: () => rest.clock.now(),
      emit: (bar) => this.#grow({ ...bar, time: bar.time / 1000 }),
      reset: () => this.#mend(signal),
      fail: (error) => {
        if (!signal.aborted) console.info(`The latest bars are asked for again: ${error.message}`);
      },
    });
  }

  /** The last bar has changed, or there is a new one. */
  #grow(bar) {
    const last = this.#bars.at(-1);
    if (last?.time === bar.time) {
      this.#bars[this.#bars.length - 1] = bar;
      onNextFrame(this.#paintLast);
    } else if (last === undefined || bar.time > last.time) {
      // The frame that would have painted the last state of the bar before comes too late: only the last bar is painted.
      this.#paintLast();
      this.#bars.push(bar);
      this.#tell("");
      this.#paintLast();
    } else {
      this.#setBars(merged(this.#bars, [bar]));
    }
  }

  /** Closed bars turned out to be others: trades that were missing have been fetched. */
  async #mend(signal) {
    try {
      const bars = await rest.bars(this.#symbol, this.#resolution.name, { limit: FIRST_BARS, signal });
      // The last one goes on growing with what is not stored yet.
      if (!signal.aborted) this.#setBars(merged(this.#bars, bars.slice(0, -1)));
    } catch (error) {
      if (!signal.aborted) console.info(`Repaired bars are shown with the next ones: ${error.message}`);
    }
  }

  #setBars(bars) {
    this.#bars = bars;
    this.#candles.setData(bars);
    this.#volumes.setData(bars.map((bar) => this.#volumeOf(bar)));
    if (bars.length > 0) this.#tell("");
    onNextFrame(this.#paintLegend);
  }

  #paintLast = () => {
    const bar = this.#bars.at(-1);
    if (bar === undefined) return;
    this.#candles.update(bar);
    this.#volumes.update(this.#volumeOf(bar));
    if (this.#hovered === null || this.#hovered === bar.time) this.#paintLegend();
  };

  /** Copies of what the library has, which is not always what it was last given. */
  #drawn() {
    const volumes = this.#volumes.data();
    return {
      bars: this.#candles.data().map(({ time, open, high, low, close }, at) => ({
        ...{ time, open, high, low, close },
        volume: volumes[at].value,
      })),
      levels: this.#candles.priceLines().map((line) => {
        const { title, price } = line.options();
        return { title, price };
      }),
    };
  }

  #volumeOf(bar) {
    const color = theme.color(bar.close >= bar.open ? "up-volume" : "down-volume");
    return { time: bar.time, value: bar.volume, color };
  }

  #paintLegend = () => {
    const last = this.#bars.at(-1);
    const at = this.#hovered;
    const bar = at === null ? last : (this.#bars.findLast((one) => one.time === at) ?? last);
    if (bar === undefined) {
      this.#legend.textContent = "";
      return;
    }
    const show = (value) => format.price(value, this.#precision);
    const parts = [
      format.utc(bar.time),
      `O ${show(bar.open)}`,
      `H ${show(bar.high)}`,
      `L ${show(bar.low)}`,
      `C ${show(bar.close)}`,
      `V ${format.amount(bar.volume)}`,
    ];
    this.#legend.dataset.sign = Math.sign(bar.close - bar.open);
    this.#legend.replaceChildren(
      ...parts.map((text) => {
        const element = document.createElement("span");
        element.textContent = text;
        return element;
      }),
    );
  };

  #tell(text) {
    this.#note.textContent = text;
    this.#note.hidden = text === "";
  }

  #colour() {
    const line = theme.color("grid");
    this.#chart.applyOptions({
      layout: {
        background: { type: ColorType.Solid, color: theme.color("panel") },
        textColor: theme.color("muted"),
        fontFamily: getComputedStyle(document.body).fontFamily,
        fontSize: 11,
      },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderColor: theme.color("line") },
      timeScale: { borderColor: theme.color("line"), rightOffset: 6, barSpacing: 7, minBarSpacing: 0.5 },
    });
    const [up, down] = [theme.color("up"), theme.color("down")];
    this.#candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    if (this.#bars.length > 0) this.#setBars(this.#bars);
    const levels = this.#levels;
    this.setLevels(null);
    this.setLevels(levels);
  }
}

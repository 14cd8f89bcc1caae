// The candlestick chart: history by REST, older bars as one scrolls there, live bars from updates.

import {
  CandlestickSeries,
  ColorType,
  createChart,
  CrosshairMode,
  HistogramSeries,
  LineStyle,
} from "lightweight-charts";

import { grown, merged } from "./bars.js";
import * as format from "./format.js";
import { onNextFrame } from "./frame.js";
import * as rest from "./rest.js";
import * as theme from "./theme.js";

const FIRST_BARS = 500;
const OLDER_BARS = 1000;
const MOST_BARS = 50_000;
const NEAR_THE_EDGE = 60;
const MEND_BARS = 5;
const MEND_AFTER_MS = 3_000;

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
  #loading = null;
  #older = null;
  #complete = false;
  #lines = [];
  #levels = null;
  #hovered = null;
  #mending = 0;

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
      if (range.from < NEAR_THE_EDGE) this.#loadOlder();
      onAwayFromNow(this.#bars.length > 0 && range.to < this.#bars.length - 1);
    });
    theme.onChange(() => this.#colour());
    this.#colour();
  }

  /** The number of bars that are loaded, and the last of them. */
  get loaded() {
    return { count: this.#bars.length, last: this.#bars.at(-1) ?? null };
  }

  /** Show a symbol at a resolution. What was shown before is gone at once. */
  async show(symbol, precision, resolution) {
    this.#loading?.abort();
    this.#older?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    this.#older = null;
    this.#symbol = symbol;
    this.#resolution = resolution;
    this.#complete = false;
    this.#setBars([]);
    this.setLevels(null);
    const minMove = 10 ** -precision;
    this.#precision = precision;
    this.#candles.applyOptions({ priceFormat: { type: "price", precision, minMove } });
    this.#chart.applyOptions({ timeScale: { timeVisible: resolution.seconds < 86_400 } });
    this.#tell("Loading bars …");
    try {
      const options = { limit: FIRST_BARS, signal: loading.signal };
      const bars = await rest.bars(symbol, resolution.name, options);
      this.#complete = bars.length < FIRST_BARS;
      this.#setBars(bars);
      this.toNow();
      this.#tell(bars.length ? "" : "No trade of this symbol is stored yet.");
    } catch (error) {
      if (!loading.signal.aborted) this.#tell(`No bars: ${error.message}`);
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
  }

  /** An update of the symbol that is shown, at `now` in unix seconds. */
  update(price, volume, now) {
    // While history is on its way, what comes now is in it.
    if (this.#resolution === null || this.#loading !== null) return;
    const last = this.#bars.at(-1);
    const bar = grown(last, price, volume, now, this.#resolution.seconds);
    if (bar === undefined || bar === last) return;
    if (last === undefined || bar.time > last.time) {
      if (last === undefined) this.#tell("");
      this.#bars.push(bar);
      this.#paintLast();
      if (last !== undefined) this.#mendSoon();
    } else {
      this.#bars[this.#bars.length - 1] = bar;
      onNextFrame(this.#paintLast);
    }
  }

  /** Ask again for the latest bars: after a time without updates, and when a bar has closed. */
  async mend(count = MEND_BARS) {
    const resolution = this.#resolution;
    const symbol = this.#symbol;
    if (symbol === null || this.#loading !== null) return;
    try {
      const fresh = await rest.bars(symbol, resolution.name, { limit: count });
      if (this.#symbol !== symbol || this.#resolution !== resolution || this.#loading !== null) return;
      const last = this.#bars.at(-1);
      // The bar in progress is ahead of the store by what was traded in the last moment.
      const kept = fresh.filter((bar) => last === undefined || bar.time !== last.time || bar.volume > last.volume);
      if (this.#differs(kept)) this.#setBars(merged(this.#bars, kept));
    } catch (error) {
      console.info(`the latest bars of ${symbol} are asked for again later: ${error.message}`);
    }
  }

  /** As many bars as were missed since the last one that is there, and some more. */
  async catchUp(now) {
    const last = this.#bars.at(-1);
    const missed = last === undefined ? FIRST_BARS : Math.ceil((now - last.time) / this.#resolution.seconds);
    await this.mend(Math.min(missed + MEND_BARS, OLDER_BARS));
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
    this.#chart.timeScale().scrollToRealTime();
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
  }

  /** The chart as a canvas, for those who look at pixels. */
  screenshot() {
    return this.#chart.takeScreenshot();
  }

  async #loadOlder() {
    if (this.#older !== null || this.#loading !== null || this.#complete || this.#bars.length === 0) return;
    if (this.#bars.length >= MOST_BARS) return;
    const older = new AbortController();
    this.#older = older;
    try {
      const to = this.#bars[0].time;
      const options = { to, limit: OLDER_BARS, signal: older.signal };
      const bars = await rest.bars(this.#symbol, this.#resolution.name, options);
      if (older.signal.aborted) return;
      this.#complete = bars.length < OLDER_BARS;
      if (bars.length > 0) this.#setBars(merged(bars, this.#bars));
    } catch (error) {
      if (!older.signal.aborted) this.#tell(`No older bars: ${error.message}`);
    } finally {
      if (this.#older === older) this.#older = null;
    }
  }

  #mendSoon() {
    clearTimeout(this.#mending);
    this.#mending = setTimeout(() => this.mend(), MEND_AFTER_MS);
  }

  #differs(fresh) {
    const times = new Map(this.#bars.slice(-fresh.length - MEND_BARS).map((bar) => [bar.time, bar]));
    return fresh.some((bar) => JSON.stringify(times.get(bar.time)) !== JSON.stringify(bar));
  }

  #setBars(bars) {
    this.#bars = bars;
    this.#candles.setData(bars);
    this.#volumes.setData(bars.map((bar) => this.#volumeOf(bar)));
    onNextFrame(this.#paintLegend);
  }

  #paintLast = () => {
    const bar = this.#bars.at(-1);
    if (bar === undefined) return;
    this.#candles.update(bar);
    this.#volumes.update(this.#volumeOf(bar));
    if (this.#hovered === null || this.#hovered === bar.time) this.#paintLegend();
  };

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

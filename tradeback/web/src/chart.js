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
// How often the latest bars are asked for again: regularly, and when one has closed and all of it is stored.
const MEND_BARS = 5;
const MEND_MS = 10_000;
const CLOSED_MS = 2_500;
const MOST_MEANWHILE = 5_000; // updates that are kept while an answer is on its way

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
  #fetching = null;
  #meanwhile = null; // updates since the bars were asked for that are on their way
  #timer = 0;
  #older = null;
  #complete = false;
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
  }

  /** Show a symbol at a resolution. What was shown before is gone at once. */
  async show(symbol, precision, resolution) {
    this.#older?.abort();
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
    const bars = await this.#fetch(FIRST_BARS, (error) => this.#tell(`No bars: ${error.message}`));
    if (bars === null) return;
    this.#complete = bars.length < FIRST_BARS;
    this.toNow();
    this.#tell(this.#bars.length ? "" : "No trade of this symbol is stored yet.");
  }

  /** An update of the symbol that is shown, at `now` in unix seconds. */
  update(price, volume, now) {
    if (this.#resolution === null) return;
    if (this.#meanwhile !== null && this.#meanwhile.length < MOST_MEANWHILE) {
      this.#meanwhile.push([price, volume, now]);
    }
    if (this.#bars.length === 0 && this.#fetching !== null) return;
    const last = this.#bars.at(-1);
    const bar = grown(last, price, volume, now, this.#resolution.seconds);
    if (bar === undefined || bar === last) return;
    if (last === undefined || bar.time > last.time) {
      this.#tell("");
      this.#bars.push(bar);
      this.#paintLast();
      this.#mendAfter(CLOSED_MS);
    } else {
      this.#bars[this.#bars.length - 1] = bar;
      onNextFrame(this.#paintLast);
    }
  }

  /** As many bars as were missed since the last one that is there, and some more. */
  async catchUp(now) {
    const last = this.#bars.at(-1);
    if (last !== undefined) {
      const missed = Math.ceil((now - last.time) / this.#resolution.seconds);
      await this.#mend(Math.min(missed + MEND_BARS, OLDER_BARS));
    } else if (this.#symbol !== null && this.#fetching === null) {
      await this.show(this.#symbol, this.#precision, this.#resolution);
    }
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
    if (this.#older !== null || this.#complete || this.#bars.length === 0) return;
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

  /**
   * The latest bars as they are stored, and on top of the one in progress the updates that came since they were asked
   * for. So what a page missed or counted into a neighbour, by its clock, is right again with the next time.
   * Returns them, or null where something else is shown by then or they could not be had.
   */
  async #fetch(count, onFailure) {
    this.#fetching?.abort();
    clearTimeout(this.#timer);
    const fetching = new AbortController();
    this.#fetching = fetching;
    this.#meanwhile = [];
    try {
      const options = { limit: count, signal: fetching.signal };
      const bars = await rest.bars(this.#symbol, this.#resolution.name, options);
      if (fetching.signal.aborted) return null;
      this.#take(bars);
      return bars;
    } catch (error) {
      if (!fetching.signal.aborted) onFailure(error);
      return null;
    } finally {
      if (this.#fetching === fetching) {
        this.#fetching = null;
        this.#meanwhile = null;
        this.#mendAfter(MEND_MS);
      }
    }
  }

  #take(bars) {
    const last = this.#bars.at(-1);
    const fresh = [...bars];
    if (last === undefined || last.time <= (fresh.at(-1)?.time ?? 0)) {
      for (const [price, volume, now] of this.#meanwhile) {
        const bar = grown(fresh.at(-1), price, volume, now, this.#resolution.seconds);
        if (bar === undefined) continue;
        if (bar.time === fresh.at(-1)?.time) fresh.pop();
        fresh.push(bar);
      }
    }
    if (this.#differs(fresh)) this.#setBars(merged(this.#bars, fresh));
  }

  async #mend(count) {
    if (this.#symbol === null) return;
    await this.#fetch(count, (error) => {
      console.info(`The latest bars are asked for again: ${error.message}`);
    });
  }

  #mendAfter(ms) {
    if (this.#fetching !== null) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // Who looks at the page again gets the bars then.
      if (document.hidden) this.#mendAfter(MEND_MS);
      else this.#mend(this.#bars.length > 0 ? MEND_BARS : FIRST_BARS);
    }, ms);
  }

  #differs(fresh) {
    const times = new Map(this.#bars.slice(-fresh.length - MEND_BARS).map((bar) => [bar.time, bar]));
    return fresh.some((bar) => JSON.stringify(times.get(bar.time)) !== JSON.stringify(bar));
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

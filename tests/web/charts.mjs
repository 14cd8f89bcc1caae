/**
 * Charts on a real server, for a test in another language: `node charts.mjs API SYMBOL`. Commands come as JSON lines,
 * {"do"}: open, older, report, reset, end. What happens goes out as JSON lines, {"event", "told"}.
 */

import assert from "node:assert/strict";
import { createInterface } from "node:readline";

import { Datafeed } from "../../tradeback/web/src/datafeed.js";
import { ChartingLibrary } from "./library.mjs";

const [, , api, symbol] = process.argv;
const say = (event, told) => process.stdout.write(`${JSON.stringify({ event, told })}\n`);
const failures = [];
const datafeed = new Datafeed(api, { onError: (error) => failures.push(String(error)) });
const library = new ChartingLibrary(datafeed);
const charts = new Map();

const commands = {
  /** One chart a resolution, and the rest of the interface. */
  async open() {
    const config = await library.start();
    const found = await library.search(symbol.slice(0, 3));
    assert.ok(found.some((row) => row.ticker === symbol), "the search does not find it");
    assert.deepEqual(await library.search("NOTHING OF THE KIND"), []);
    await assert.rejects(library.resolve("NOPE"), /NOPE/);
    const { exchange, ticker } = await library.resolve(symbol);
    assert.equal((await library.resolve(`${exchange}:${ticker}`)).ticker, ticker);
    for (const resolution of config.supported_resolutions) charts.set(resolution, await library.chart(symbol, resolution));
    const [quote, unknown] = await library.quotes([symbol, "NOPE"]);
    assert.deepEqual([quote.s, unknown.s], ["ok", "error"]);
    for (const name of ["lp", "ch", "chp", "open_price", "high_price", "low_price", "prev_close_price", "volume"]) {
      assert.ok(Number.isFinite(quote.v[name]), name);
    }
    say("open", [...charts.keys()]);
  },
  /** Scroll to the left until nothing older exists, or so many times. */
  async older() {
    for (const chart of charts.values()) {
      for (let i = 0; i < 6 && !chart.complete; i++) await chart.older();
    }
    say("older", {});
  },
  async report() {
    const told = {};
    for (const [resolution, { bars, ticks, resets }] of charts) told[resolution] = { bars, ticks, resets };
    say("report", { charts: told, failures });
  },
  async reset() {
    for (const chart of charts.values()) if (chart.resets) await chart.reset();
    say("reset", {});
  },
  async end() {
    for (const chart of charts.values()) chart.end();
    say("end", {});
  },
};

// One after the other.
let done = Promise.resolve();
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  done = done.then(() => commands[command.do](command));
});
lines.on("close", () => {
  done = done.then(() => datafeed.close());
});

/** Live bars over a history that is late and updates that come at once, in a time of the test's own. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { LiveBars } from "../../tradeback/web/src/livebars.js";
import { chosenSeed, randomNumbers } from "./frames.mjs";

const SEED = chosenSeed();
const MIDNIGHT = Date.UTC(2026, 1, 1);
const MINUTE = 60000;
const LENGTHS = { "1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440 };
const PRECISION = 5;
const STREAM_MS = 31; // an update is so long under way at most; the history is later
const SETTLED_MS = 15000; // after the last trade: the history was asked once more

mock.timers.enable({ apis: ["setTimeout", "Date"] });

/** What was traded by then, as the history has it: volumes as sums of whole units. */
function barsOf(trades, lengthMs, untilMs = Infinity) {
  const bars = [];
  for (const { at, price, units } of trades) {
    if (at > untilMs) break;
    const time = Math.floor(at / lengthMs) * lengthMs;
    let bar = bars.at(-1);
    if (bar?.time !== time) bars.push((bar = { time, open: price, high: price, low: price, close: price, units: 0 }));
    bar.high = Math.max(bar.high, price);
    bar.low = Math.min(bar.low, price);
    bar.close = price;
    bar.units += units;
  }
  return bars.map(({ units, ...bar }) => ({ ...bar, volume: Number(`${units}e-${PRECISION}`) }));
}

/** A market, its history and its stream, and live bars on them; time passes by passTo(). */
class Scene {
  trades = [];
  told = []; // every bar emitted, with the moment
  resets = 0;
  failures = 0;
  asked = 0;
  #events = [];
  #connected = true;

  constructor({ lengthMs, random, start, newest = null, lagMs = 100, reachable = () => true }) {
    mock.timers.setTime(start);
    this.lengthMs = lengthMs;
    this.random = random;
    this.reachable = reachable;
    this.begin = () => {
      this.bars = new LiveBars({
        lengthMs,
        volumePrecision: PRECISION,
        newest,
        ask: (fromMs) => this.#ask(fromMs, lagMs),
        now: () => Date.now(),
        emit: (bar) => this.told.push({ ...bar, at: Date.now() }),
        reset: () => this.resets++,
        fail: () => this.failures++,
      });
    };
  }

  async #ask(fromMs, lagMs) {
    this.asked++;
    await new Promise((resolve) => setTimeout(resolve, 1 + 30 * this.random()));
    if (!this.reachable(Date.now())) throw new Error("not to be reached");
    const bars = barsOf(this.trades, this.lengthMs, Date.now() - STREAM_MS - lagMs * this.random());
    await new Promise((resolve) => setTimeout(resolve, 1 + 30 * this.random()));
    return fromMs === null ? bars.slice(-2) : bars.filter((bar) => bar.time >= fromMs);
  }

  at(ms, what) {
    this.#events.push({ ms, what });
  }

  /** Trades at these moments; each reaches the client a little later, in order; a share of them with the next one. */
  trade(trades, conflated = 0, arrived = () => {}) {
    let arrival = 0;
    let waiting = 0;
    for (const trade of trades) {
      this.at(trade.at, () => this.trades.push(trade));
      waiting += trade.units;
      if (this.random() < conflated && trade !== trades.at(-1)) continue;
      arrival = Math.max(arrival, trade.at + 1 + (STREAM_MS - 1) * this.random());
      const units = waiting;
      waiting = 0;
      this.at(arrival, () => {
        if (!this.#connected) return;
        this.bars.update(trade.price, Number(`${units}e-${PRECISION}`));
        arrived(trade);
      });
    }
  }

  cut(fromMs, toMs) {
    this.at(fromMs, () => (this.#connected = false));
    this.at(toMs, () => {
      this.#connected = true;
      this.bars.restart();
      const last = this.trades.at(-1);
      if (last) this.bars.update(last.price, 0);
    });
  }

  async passTo(end) {
    const events = this.#events.sort((one, other) => one.ms - other.ms);
    while (Date.now() < end) {
      const next = events.length && events[0].ms <= end ? events[0].ms : end;
      // In small steps, so that timers and what waits for them take turns as they do in earnest.
      mock.timers.tick(Math.max(0, Math.min(next - Date.now(), 25)));
      await new Promise((resolve) => setImmediate(resolve));
      while (events.length && events[0].ms <= Date.now()) events.shift().what();
    }
  }
}

function randomTrades(random, from, to, perSecond) {
  const trades = [];
  let price = 50000;
  for (let at = from; at < to; at += (-Math.log(1 - random()) * 1000) / perSecond) {
    if (random() < 0.5) price += Math.round(20 * random() - 10) / 100;
    price = Math.round(price * 100) / 100;
    trades.push({ at, price, units: 1 + Math.floor(50000 * random()) });
  }
  return trades;
}

/** The last state told of each bar, in the order of their beginnings. */
function lastStates(scene) {
  const states = new Map();
  for (const { at: _, ...bar } of scene.told) states.set(bar.time, bar);
  return [...states.values()];
}

for (const [name, minutes] of Object.entries(LENGTHS)) {
  test(`${name}: a new bar begins at its boundary, closed bars are the history's, nothing is counted twice`, async () => {
    const lengthMs = minutes * MINUTE;
    for (let round = 0; round < 5; round++) {
      const seed = (SEED + round) >>> 0;
      const random = randomNumbers(seed);
      const start = MIDNIGHT - 20000 - Math.floor(20000 * random());
      const end = MIDNIGHT + 80000;
      const scene = new Scene({ lengthMs, random, start });
      // What was traded before: the history has it.
      scene.trades.push(...randomTrades(random, start - 2 * lengthMs, start, Math.min(1, 200 / (lengthMs / 1000))));
      const perSecond = [0.1, 2, 15][round % 3];
      scene.begin();
      const conflated = round < 3 ? 0 : 0.3;
      scene.trade(randomTrades(random, start, end, perSecond), conflated);
      await scene.passTo(end + SETTLED_MS);
      scene.bars.stop();
      const context = `seed ${seed}, ${perSecond} trades a second`;
      const truth = barsOf(scene.trades, lengthMs);
      const states = lastStates(scene);
      const first = truth.findIndex((bar) => bar.time === states[0].time);
      assert.deepEqual(states, truth.slice(first), context);
      scene.told.reduce((before, bar) => {
        assert.ok(bar.time >= before.time, `${context}: ${bar.time} after ${before.time}`);
        return bar;
      });
      // Never more than was traded by then: nothing is counted twice. Half of a record that stands for two trades may
      // be in the history already; that is put right with the next look at it.
      for (const bar of scene.told) {
        const then = barsOf(scene.trades, lengthMs, bar.at).find(({ time }) => time === bar.time);
        assert.ok(then && (conflated || bar.volume <= then.volume + 1e-6), `${context}: ${JSON.stringify([bar, then])}`);
        assert.ok(bar.low <= Math.min(bar.open, bar.close) && bar.high >= Math.max(bar.open, bar.close));
      }
      assert.equal(scene.resets, 0, context);
      assert.equal(scene.failures, 0);
    }
  });
}

test("closed bars are the history's where that is a second late and trades cross the boundary", async () => {
  const rounds = [0, 1, 2, 3, 4, 5].map((round) => [round, (SEED + round) >>> 0]);
  // Two answers in a row that lack the same trades: that they agree does not say that the history has the whole bar.
  for (const seed of [805488326, 805520002, 805678382]) rounds.push([2, seed]);
  for (const [round, seed] of rounds) {
    const random = randomNumbers(seed);
    const start = MIDNIGHT - 15000;
    const scene = new Scene({ lengthMs: MINUTE, random, start, lagMs: 1200 });
    scene.trades.push({ at: start - 1000, price: 50000, units: 3 });
    scene.begin();
    const trades = [...randomTrades(random, start, MIDNIGHT + 20000, [2, 15][round % 2])];
    for (const ms of [-20, -9, -3, 2, 8]) trades.push({ at: MIDNIGHT + ms, price: 50000, units: 1 });
    // A price that stays tells nothing of how much the history has.
    if (round % 3 === 2) for (const trade of trades) trade.price = 50000;
    scene.trade(trades.sort((one, other) => one.at - other.at));
    await scene.passTo(MIDNIGHT + 20000 + SETTLED_MS);
    scene.bars.stop();
    const states = lastStates(scene);
    const truth = barsOf(scene.trades, MINUTE);
    assert.deepEqual(states, truth.slice(-states.length), `seed ${seed}`);
    assert.equal(scene.resets, 0, `seed ${seed}`);
  }
});

test("the bar in progress has what was traded, as a rule: all of it and no more", async () => {
  const random = randomNumbers(SEED);
  const scene = new Scene({ lengthMs: 60 * MINUTE, random, start: MIDNIGHT + 1000 });
  scene.trades.push(...randomTrades(random, MIDNIGHT, MIDNIGHT + 1000, 10));
  scene.begin();
  let arrived = scene.trades.reduce((sum, { units }) => sum + units, 0);
  const known = [];
  const trades = randomTrades(random, MIDNIGHT + 1000, MIDNIGHT + 61000, 10);
  scene.trade(trades, 0, ({ units }) => known.push({ at: Date.now(), units: (arrived += units) }));
  await scene.passTo(MIDNIGHT + 61000);
  scene.bars.stop();
  const late = known.filter(({ at }) => at > MIDNIGHT + 15000);
  const exact = late.filter(({ at, units }) => {
    const shown = scene.told.findLast((bar) => bar.at <= at);
    return Math.abs(shown.volume - units / 10 ** PRECISION) < 1e-6;
  });
  assert.ok(exact.length > 0.85 * late.length, `seed ${SEED}: ${exact.length} of ${late.length} are exact`);
});

test("after the connection was away the bars are the history's again, those between included", async () => {
  for (let round = 0; round < 5; round++) {
    const seed = (SEED + round) >>> 0;
    const random = randomNumbers(seed);
    const scene = new Scene({ lengthMs: MINUTE, random, start: MIDNIGHT });
    const away = MIDNIGHT + 20000 + 60000 * random();
    const back = away + 150000 * random();
    const end = MIDNIGHT + 300000;
    scene.begin();
    scene.cut(away, back);
    scene.trade(randomTrades(random, MIDNIGHT, end, 5));
    await scene.passTo(end + SETTLED_MS);
    scene.bars.stop();
    assert.deepEqual(lastStates(scene), barsOf(scene.trades, MINUTE), `seed ${seed}`);
  }
});

test("where the history cannot be had, the bars go on, and it is told when they turn out to be others", async () => {
  const random = randomNumbers(SEED);
  let reachable = true;
  const scene = new Scene({ lengthMs: MINUTE, random, start: MIDNIGHT, reachable: () => reachable });
  scene.begin();
  scene.at(MIDNIGHT + 30000, () => (reachable = false));
  scene.at(MIDNIGHT + 90000, () => (reachable = true));
  // The last one of the minute arrives in the next one, and there is nobody to ask which it belongs to.
  scene.trade(randomTrades(random, MIDNIGHT + 1000, MIDNIGHT + 50000, 5));
  scene.trade([{ at: MIDNIGHT + 59999.9, price: 60000, units: 7 }]);
  scene.trade(randomTrades(random, MIDNIGHT + 61000, MIDNIGHT + 110000, 5));
  await scene.passTo(MIDNIGHT + 110000 + SETTLED_MS);
  scene.bars.stop();
  assert.ok(scene.failures > 0);
  const [first, second] = lastStates(scene);
  const truth = barsOf(scene.trades, MINUTE);
  assert.deepEqual(second, truth[1], `seed ${SEED}`);
  assert.equal(first.time, truth[0].time);
  assert.equal(scene.resets, first.volume === truth[0].volume ? 0 : 1);
});

test("a repair of a closed bar is told", async () => {
  const random = randomNumbers(SEED);
  const scene = new Scene({ lengthMs: MINUTE, random, start: MIDNIGHT });
  scene.begin();
  scene.trade([10, 30, 62, 70].map((second) => ({ at: MIDNIGHT + 1000 * second, price: second, units: 5 })));
  await scene.passTo(MIDNIGHT + 80000);
  assert.equal(scene.resets, 0);
  scene.trades.splice(1, 0, { at: MIDNIGHT + 20000, price: 99, units: 1 });
  await scene.passTo(MIDNIGHT + 95000);
  assert.equal(scene.resets, 1);
  await scene.passTo(MIDNIGHT + 115000);
  assert.equal(scene.resets, 1);
  scene.bars.stop();
});

test("stopped, it neither asks nor tells", async () => {
  const random = randomNumbers(SEED);
  const scene = new Scene({ lengthMs: MINUTE, random, start: MIDNIGHT });
  scene.trades.push({ at: MIDNIGHT - 1, price: 1, units: 1 });
  scene.begin();
  scene.bars.stop();
  await scene.passTo(MIDNIGHT + 200000);
  assert.deepEqual([scene.asked, scene.told, scene.failures], [1, [], 0]);
});

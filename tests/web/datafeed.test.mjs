/** The datafeed against a REST interface and a WebSocket whose every answer is written here. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Client } from "../../tradeback/web/src/client.js";
import { Datafeed } from "../../tradeback/web/src/datafeed.js";
import { ServerClock } from "../../tradeback/web/src/serverclock.js";
import { chosenSeed, encode, randomNumbers } from "./frames.mjs";
import { scripted } from "./scripted.mjs";

const SEED = chosenSeed();
const INFO = { name: "BTCUSDT", ticker: "BTCUSDT", volume_precision: 5 };
const PERIOD = { from: 1000, to: 2000, countBack: 10, firstDataRequest: false };

/** A datafeed on a REST interface that answers by `answer(path, query, count)`: [status, content, headers?]. */
async function feed(t, answer, options = {}) {
  const asked = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    const path = url.pathname.replace("/api/v1/", "").replace("tradingview/", "");
    asked.push({ path, query: Object.fromEntries(url.searchParams) });
    const [status, content, headers] = answer(path, asked.at(-1).query, asked.length);
    response.writeHead(status, { "Content-Type": "application/json", ...headers });
    if (content !== undefined) response.end(JSON.stringify(content)); // else it never answers
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const failures = [];
  const datafeed = new Datafeed(`http://127.0.0.1:${server.address().port}/api/v1/`, {
    onError: (error) => failures.push(error.message),
    ...options,
  });
  t.after(() => {
    datafeed.close();
    server.closeAllConnections();
    server.close();
  });
  return { datafeed, asked, failures };
}

const bars = (datafeed, resolution = "1") =>
  new Promise((resolve) =>
    datafeed.getBars(INFO, resolution, PERIOD, (...got) => resolve(got), (reason) => resolve(reason)),
  );

const HISTORY = { s: "ok", t: [1020, 1080], o: [1, 2], h: [3, 4], l: [0.5, 1.5], c: [2, 3], v: [10, 20] };

test("bars come with their times in ms, and what is older than nothing too", async (t) => {
  const answers = [HISTORY, { s: "no_data", nextTime: 900 }, { s: "no_data" }];
  const { datafeed, asked } = await feed(t, () => [200, answers.shift()]);
  assert.deepEqual(await bars(datafeed), [
    [
      { time: 1020000, open: 1, high: 3, low: 0.5, close: 2, volume: 10 },
      { time: 1080000, open: 2, high: 4, low: 1.5, close: 3, volume: 20 },
    ],
    { noData: false },
  ]);
  assert.deepEqual(asked[0], {
    path: "history",
    query: { symbol: "BTCUSDT", resolution: "1", from: "1000", to: "2000", countback: "10" },
  });
  assert.deepEqual(await bars(datafeed), [[], { noData: true, nextTime: 900000 }]);
  assert.deepEqual(await bars(datafeed), [[], { noData: true }]);
});

test("an error is its sentence; a search that fails finds nothing", async (t) => {
  const { datafeed, failures } = await feed(t, (path) => [
    path === "symbols" ? 404 : 500,
    { s: "error", errmsg: `no ${path} today` },
  ]);
  assert.equal(await bars(datafeed), "no history today");
  const refused = await new Promise((resolve) => datafeed.resolveSymbol("X", assert.fail, resolve));
  assert.equal(refused, "no symbols today");
  assert.deepEqual(await new Promise((resolve) => datafeed.searchSymbols("x", "", "", resolve)), []);
  assert.deepEqual(await new Promise((resolve) => datafeed.getMarks(INFO, 0, 1, resolve, "1")), []);
  assert.ok((await new Promise((resolve) => datafeed.onReady(resolve))).supported_resolutions.includes("1D"));
  assert.deepEqual(failures, ["no search today", "no marks today", "no config today"]);
});

test("after close() nothing is asked", async (t) => {
  const { datafeed, asked } = await feed(t, () => [200, HISTORY]);
  datafeed.close();
  assert.match(await bars(datafeed), /abort/);
  assert.deepEqual(asked, []);
});

test("where the server is busy it is asked again after the time it says, a few times", async (t) => {
  let busy = 2;
  const { datafeed, asked } = await feed(t, () =>
    busy-- > 0 ? [429, { s: "error", errmsg: "too many" }, { "Retry-After": "0" }] : [200, HISTORY],
  );
  assert.equal((await bars(datafeed))[0].length, 2);
  assert.equal(asked.length, 3);
  busy = 10;
  assert.equal(await bars(datafeed), "too many");
  assert.equal(asked.length, 6);
});

test("close() ends what is under way", async (t) => {
  const { datafeed } = await feed(t, () => [200, undefined]);
  const waiting = bars(datafeed);
  datafeed.close();
  assert.match(await waiting, /abort/);
  const paused = await feed(t, () => [429, { s: "error", errmsg: "too many" }, { "Retry-After": "9" }]);
  const pausing = bars(paused.datafeed);
  setTimeout(() => paused.datafeed.close(), 20);
  // Timers run in their order, however late they are: what ends at once is there before this one.
  const waited = new Promise((resolve) => setTimeout(resolve, 8000, "it waited for the pause's end").unref());
  assert.match(await Promise.race([pausing, waited]), /abort/);
});

const QUOTE = {
  s: "ok", n: "BINANCE:BTCUSDT",
  v: { lp: 100, ch: 0, chp: 0, prev_close_price: 100, high_price: 101, low_price: 99, volume: 5, bid: 99.5, ask: 100.5 },
};

test("quotes are REST's, with the WebSocket's prices in between, on a client that the page has", async (t) => {
  let unsubscribed;
  const ended = new Promise((resolve) => (unsubscribed = resolve));
  const server = await scripted(async (connection) => {
    assert.deepEqual((await connection.subscribes(["BTCUSDT"])).symbols, ["BTCUSDT"]);
    connection.binary(encode([[1, 100, 0]]));
    connection.binary(encode([[1, 102, 0.5]]));
    connection.binary(encode([[1, 101.5, 0.25]]));
    unsubscribed(await connection.next());
  });
  const client = new Client(server.url);
  t.after(async () => {
    client.close();
    await server.close();
  });
  const { datafeed } = await feed(t, () => [200, { s: "ok", d: [QUOTE] }], { client });
  const told = [];
  await new Promise((resolve) => {
    datafeed.subscribeQuotes(["BINANCE:BTCUSDT"], [], (quotes) => {
      told.push(...quotes);
      if (told.length === 1) client.connect(); // which is the page's to do
      if (told.length === 2) resolve();
    }, "quotes");
  });
  assert.deepEqual(told[0], QUOTE);
  assert.deepEqual(told[1], {
    ...QUOTE,
    v: { ...QUOTE.v, lp: 101.5, ch: 1.5, chp: 1.5, high_price: 102, volume: 5.75 },
  });
  datafeed.unsubscribeQuotes("quotes");
  datafeed.unsubscribeQuotes("quotes");
  assert.deepEqual(await ended, { type: "unsubscribe", symbols: ["BTCUSDT"] });
  datafeed.close();
  assert.equal(client.state, "connected", "the page's client is the page's to close");
});

test("live bars ask for the address of the WebSocket, and share one connection", async (t) => {
  let subscribed;
  const following = new Promise((resolve) => (subscribed = resolve));
  const server = await scripted(async (connection) => {
    await connection.subscribes(["BTCUSDT"]);
    subscribed();
  });
  const { datafeed, failures } = await feed(t, (path) => {
    if (path === "ws") return [426, { error: { code: "upgrade_required", message: "there", websocket: server.url } }];
    if (path === "time") return [200, Math.floor(Date.now() / 1000)];
    const time = 60 * Math.floor(Date.now() / 60000);
    return [200, { ...HISTORY, t: [time - 60, time] }];
  });
  t.after(() => server.close());
  const ticks = [];
  for (const [resolution, guid] of [["1", "a"], ["1", "b"], ["7", "never"]]) {
    datafeed.subscribeBars(INFO, resolution, () => ticks.push(guid), guid, () => assert.fail("a reset"));
  }
  await following;
  while (new Set(ticks).size < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(server.connections.length, 1);
  assert.deepEqual(failures, ["There are no bars of the resolution 7"]);
});

test("symbols that the WebSocket refuses are told, where the library follows them", async (t) => {
  const server = await scripted(async (connection) => {
    await connection.subscribes(["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
    const refuses = (code, ...symbols) => connection.say({ type: "error", code, message: "no such", symbols });
    refuses("symbol_not_allowed", "SOLUSDT");
    refuses("unknown_symbols", "ETHUSDT", "SOLUSDT", "BTCUSDT");
    connection.say({ type: "error", code: "malformed", message: "what" });
  });
  const client = new Client(server.url);
  t.after(async () => {
    client.close();
    await server.close();
  });
  let told;
  const failure = new Promise((resolve) => (told = resolve));
  const failures = [];
  const { datafeed } = await feed(
    t,
    (path) => [200, path === "time" ? 1 : path === "quotes" ? { s: "ok", d: [] } : HISTORY],
    { client, onError: (error) => told(failures.push(error.message)) },
  );
  datafeed.subscribeBars({ ...INFO, ticker: "BINANCE:BTCUSDT" }, "1", () => {}, "bars", () => {});
  datafeed.subscribeQuotes(["ETHUSDT"], [], () => {}, "quotes");
  client.subscribe("SOLUSDT"); // which is the page's
  client.connect();
  await failure;
  assert.deepEqual(failures, ["No live prices of ETHUSDT, BTCUSDT: no such (unknown_symbols)"]);
});

test("a clock is found out from whole seconds, and left alone where it may be right", () => {
  const random = randomNumbers(SEED);
  for (let round = 0; round < 500; round++) {
    const clock = new ServerClock();
    assert.equal(clock.aheadMs, 0);
    const ahead = round % 3 === 0 ? 0 : Math.round(20000 * random() - 10000);
    let now = 1e12 * (1 + random());
    for (let look = 0; look < 4; look++) {
      const under = [100 * random(), 100 * random()];
      const seconds = Math.floor((now + under[0] + ahead) / 1000);
      clock.heard(seconds, now, now + under[0] + under[1]);
      now += 250;
    }
    const off = Math.abs(clock.aheadMs - ahead);
    // Four looks a quarter of a second apart leave 250 ms of doubt, and the time under way.
    assert.ok(off <= 450, `seed ${SEED}, round ${round}: ${off} ms off`);
    if (ahead === 0) assert.equal(clock.aheadMs, 0);
    // Set anew by an hour: the old bounds no longer hold.
    clock.heard(Math.floor((now + ahead + 3600000) / 1000), now, now + 10);
    assert.ok(Math.abs(clock.aheadMs - ahead - 3600000) <= 1000);
  }
});

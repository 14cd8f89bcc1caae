/** The client against a server whose every frame is written here. */

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";

// Browsers tell a window that the network came or went.
const window = new EventTarget();
globalThis.addEventListener = window.addEventListener.bind(window);
globalThis.removeEventListener = window.removeEventListener.bind(window);

const { CLOSE_CODES, Client } = await import("../../tradeback/web/src/client.js");
const { chosenSeed, encode, randomNumbers } = await import("./frames.mjs");
const { inState, next, updates } = await import("./events.mjs");
const { scripted } = await import("./scripted.mjs");

const SEED = chosenSeed();
const NAMES = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
// Backs off for so long that only retry() connects again.
const PATIENT = { firstBackoffMs: 1e8, longestBackoffMs: 1e8 };

/** A client and a server, both ended with the test. */
async function pair(t, behave, { refuse, ...options } = {}) {
  const server = await scripted(behave, refuse);
  const client = new Client(server.url, { ...PATIENT, ...options });
  t.after(async () => {
    client.close();
    await server.close();
  });
  return { client, server };
}

const obliging = async (connection) => {
  for (;;) await connection.subscribes(NAMES);
};

test("updates come with their symbols, after one message for many calls", async (t) => {
  const { client, server } = await pair(t, async (connection) => {
    const message = await connection.subscribes(NAMES);
    assert.deepEqual(message, { type: "subscribe", symbols: ["BTCUSDT", "ETHUSDT"] });
    connection.binary(encode([[1, 50000.5, 0], [2, 3000.25, 0]]));
    connection.binary(encode([[2, 3000.5, 1.5]]));
  });
  client.subscribe("btcusdt");
  client.connect();
  client.subscribe("ETHUSDT", "BTCUSDT");
  assert.deepEqual(await updates(client, 3), [
    ["BTCUSDT", 50000.5, 0], ["ETHUSDT", 3000.25, 0], ["ETHUSDT", 3000.5, 1.5],
  ]);
  assert.equal(server.connections[0].request.headers["sec-websocket-protocol"], "tradeback.v1");
  const figures = client.statistics();
  assert.deepEqual([figures.updates, figures.frames, figures.connections, figures.faults], [3, 2, 1, 0]);
  assert.ok(figures.bytes >= 42 + 24);
  assert.ok(figures.staleMs >= 0);
});

test("a symbol is unsubscribed when all who wanted it no longer do", async (t) => {
  const { client, server } = await pair(t, async (connection) => {
    await connection.subscribes(NAMES);
    assert.deepEqual(await connection.next(), { type: "unsubscribe", symbols: ["ETHUSDT"] });
    connection.say({ type: "unsubscribed", symbols: [{ symbol: "ETHUSDT", id: 2 }] });
    assert.deepEqual(await connection.next(), { type: "unsubscribe", symbols: ["BTCUSDT"] });
    connection.say({ type: "unsubscribed", symbols: [{ symbol: "BTCUSDT", id: 1 }] });
  });
  client.connect();
  client.subscribe("BTCUSDT", "ETHUSDT");
  client.subscribe("BTCUSDT");
  await next(client, "subscribed");
  client.unsubscribe("BTCUSDT", "ETHUSDT", "NEVER");
  assert.deepEqual(await next(client, "unsubscribed"), [{ symbol: "ETHUSDT", id: 2 }]);
  assert.deepEqual(client.symbols, ["BTCUSDT"]);
  client.unsubscribe("BTCUSDT");
  await next(client, "unsubscribed");
  assert.deepEqual(client.symbols, []);
  assert.equal(server.connections.length, 1);
});

test("a long list of symbols becomes messages that the server takes", async (t) => {
  const names = Array.from({ length: 1024 }, (_, i) => `${i}`.padStart(50, "S"));
  const told = [];
  let taken;
  const all = new Promise((resolve) => (taken = resolve));
  const { client } = await pair(t, async (connection) => {
    while (told.length < names.length) {
      const message = await connection.next();
      assert.ok(JSON.stringify(message).length <= 16384);
      told.push(...message.symbols);
    }
    taken();
  });
  client.subscribe(...names);
  client.connect();
  await all;
  assert.deepEqual(told, names);
});

for (const [text, rule] of Object.entries(CLOSE_CODES)) {
  const code = Number(text);
  test(`closed with ${code}: ${rule.reconnect}`, async (t) => {
    const { client, server } = await pair(t, async (connection, index) => {
      await connection.subscribes(NAMES);
      if (index === 0) connection.close(code, "because");
      else connection.binary(encode([[1, 2, 3]]));
    });
    client.subscribe("BTCUSDT");
    client.connect();
    const refused = next(client, "unauthorized");
    const told = await next(client, "state", ({ before }) => before === "connected");
    assert.equal(told.code, code);
    assert.match(told.sentence, new RegExp(`closed with ${code} \\(because\\)`));
    if (rule.waitMs) {
      assert.equal(told.state, "waiting");
      assert.ok(told.waitMs >= rule.waitMs[0] && told.waitMs <= rule.waitMs[1], `waits ${told.waitMs} ms`);
      // That the network is back is no reason to hurry where the server asked for patience.
      window.dispatchEvent(new Event("online"));
      assert.equal(client.state, "waiting");
      client.retry();
    } else {
      assert.equal(told.state, code === 4401 ? "unauthorized" : "refused");
      if (code === 4401) assert.match(await refused, /logged in/);
      client.retry();
      assert.equal(server.connections.length, 1);
      client.connect();
    }
    assert.deepEqual(await updates(client, 1), [["BTCUSDT", 2, 3]]);
    assert.equal(server.connections.length, 2);
  });
}

test("closed for symbols that the session may not watch, it connects again without them", async (t) => {
  const { client, server } = await pair(
    t,
    async (connection, index) => {
      const { symbols } = await connection.subscribes(NAMES);
      if (index > 0) {
        assert.deepEqual(symbols, ["BTCUSDT"]);
        connection.binary(encode([[1, 2, 3]]));
        // Asked for anew by a caller, it is asked for again.
        assert.deepEqual((await connection.next()).symbols, ["ETHUSDT"]);
        connection.abort();
        return;
      }
      connection.say({ type: "error", code: "unknown_symbols", message: "none", symbols: ["BTCUSDT"] });
      connection.say({ type: "error", code: "symbol_not_allowed", message: "no", symbols: ["ETHUSDT", "SOLUSDT"] });
      connection.close(4403, "asked too often");
    },
    { firstBackoffMs: 1, longestBackoffMs: 1 },
  );
  client.subscribe(...NAMES);
  client.connect();
  const { state, code, sentence } = await next(client, "state", ({ before }) => before === "connected");
  assert.deepEqual([state, code], ["waiting", 4403]);
  assert.match(sentence, /without that symbol: ETHUSDT, SOLUSDT$/);
  assert.deepEqual(await updates(client, 1), [["BTCUSDT", 2, 3]]);
  assert.deepEqual(client.symbols, NAMES);
  client.subscribe("ETHUSDT");
  // Another connection without a refusal: what was forbidden stays away, and ETHUSDT does not.
  await inState(client, "waiting");
  client.close();
  assert.equal(server.connections.length, 2);
});

for (const [what, end] of [
  ["with a code of no table", (connection) => connection.close(4999)],
  ["by cutting the line", (connection) => connection.abort()],
]) {
  test(`ended ${what}: connects again by the back-off`, async (t) => {
    const { client, server } = await pair(
      t,
      async (connection, index) => {
        await connection.subscribes(NAMES);
        if (index < 3) end(connection);
        else connection.binary(encode([[1, 2, 3]]));
      },
      { firstBackoffMs: 1, longestBackoffMs: 8 },
    );
    client.subscribe("BTCUSDT");
    client.connect();
    assert.deepEqual(await updates(client, 1), [["BTCUSDT", 2, 3]]);
    assert.equal(server.connections.length, 4);
    assert.equal(client.statistics().connections, 4);
  });
}

test("the back-off doubles up to its limit, with jitter, while connections do not last", async (t) => {
  const { client, server } = await pair(t, async (connection) => connection.abort(), {
    firstBackoffMs: 10000,
    longestBackoffMs: 60000,
  });
  const waits = [];
  client.connect();
  for (let i = 0; i < 5; i++) {
    waits.push((await next(client, "state", ({ state }) => state === "waiting")).waitMs);
    client.retry();
  }
  [10000, 20000, 40000, 60000, 60000].forEach((most, i) => {
    assert.ok(waits[i] >= most / 2 && waits[i] <= most, `${waits}`);
  });
  assert.ok(server.attempts >= 5);
});

test("a wrong CRC is counted, told, and ends the connection, not the client", async (t) => {
  const { client } = await pair(t, async (connection, index) => {
    await connection.subscribes(NAMES);
    const frame = encode([[1, 2, 3]]);
    if (index === 0) frame[9] ^= 1;
    connection.binary(frame);
  });
  client.subscribe("BTCUSDT");
  client.connect();
  const fault = await next(client, "fault");
  assert.equal(fault.code, "bad_crc");
  await inState(client, "waiting");
  client.retry();
  assert.deepEqual(await updates(client, 1), [["BTCUSDT", 2, 3]]);
  const { crcErrors, faults, connections } = client.statistics();
  assert.deepEqual([crcErrors, faults, connections], [1, 1, 2]);
});

for (const [what, code, send] of [
  ["an id that was never told", "unknown_id", (connection) => connection.binary(encode([[9, 2, 3]]))],
  ["a text that is no JSON", "bad_message", (connection) => connection.say("{")],
  ["JSON null", "bad_message", (connection) => connection.say("null")],
  ["symbols without ids", "bad_message", (connection) => connection.say({ type: "subscribed", symbols: [{}] })],
  ["prices that are none", "bad_message", (connection) => connection.say({ type: "prices", data: [{ symbol: "A" }] })],
]) {
  test(`a fault of the server: ${what}`, async (t) => {
    const { client } = await pair(t, async (connection) => {
      await connection.subscribes(NAMES);
      send(connection);
    });
    client.subscribe("BTCUSDT");
    client.connect();
    assert.equal((await next(client, "fault")).code, code);
    await inState(client, "waiting");
  });
}

test("messages of a type that is not known are passed over", async (t) => {
  const { client } = await pair(t, async (connection) => {
    await connection.subscribes(NAMES);
    connection.say({ type: "of a later version", data: 1 });
    connection.binary(encode([[1, 2, 3]]));
  });
  client.subscribe("BTCUSDT");
  client.connect();
  await updates(client, 1);
  assert.equal(client.statistics().faults, 0);
});

test("a connection that says nothing is made anew, one that answers pings is not", async (t) => {
  const { client, server } = await pair(
    t,
    async (connection, index) => {
      connection.answersPings = index > 0;
      await connection.subscribes(NAMES);
    },
    { pingMs: 20, patienceMs: 100 },
  );
  client.subscribe("BTCUSDT");
  client.connect();
  const told = await next(client, "state", ({ state }) => state === "waiting");
  assert.match(told.sentence, /does not answer/);
  assert.equal(server.connections.length, 1);
  client.retry();
  await inState(client, "connected");
  await next(client, "subscribed");
  assert.ok(client.statistics().roundTripMs === null || client.statistics().roundTripMs >= 0);
});

test("a server that takes connections and never answers is given up", async (t) => {
  const sockets = [];
  const silent = createServer((socket) => sockets.push(socket));
  await new Promise((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const client = new Client(`ws://127.0.0.1:${silent.address().port}/`, { ...PATIENT, connectMs: 50 });
  t.after(() => {
    client.close();
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  client.connect();
  assert.match((await next(client, "state", ({ state }) => state === "waiting")).sentence, /within 0.05 s/);
});

test("where nobody is logged in, it says so and stops", async (t) => {
  let loggedIn = false;
  const { client, server } = await pair(t, obliging, {
    refuse: () => (loggedIn ? 0 : 401),
    isLoggedIn: async () => loggedIn,
  });
  client.subscribe("BTCUSDT");
  client.connect();
  await next(client, "unauthorized");
  assert.equal(client.state, "unauthorized");
  const { attempts } = server; // Node from 22 on makes two of one
  client.retry();
  assert.equal(client.state, "unauthorized");
  assert.equal(server.attempts, attempts);
  loggedIn = true;
  client.connect();
  await next(client, "subscribed");
});

test("where it cannot be known who is logged in, it tries again", async (t) => {
  const answers = [async () => true, () => Promise.reject(new Error("no network")), () => { throw new Error("a bug"); }];
  const { client } = await pair(t, obliging, { refuse: (index) => (index < 3 ? 503 : 0), isLoggedIn: () => answers.shift()() });
  client.subscribe("BTCUSDT");
  client.connect();
  for (const expected of [/refuses$/, /no network/, /a bug/]) {
    assert.match((await next(client, "state", ({ state }) => state === "waiting")).sentence, expected);
    client.retry();
  }
  await next(client, "subscribed");
});

test("the watchlist's symbols come and go by themselves", async (t) => {
  const { client } = await pair(t, async (connection) => {
    connection.say({ type: "auto_subscribe", data: { symbol: "SOLUSDT", id: 3 } });
    connection.say({ type: "auto_subscribe", data: { symbol: "BTCUSDT", id: 1 } });
    connection.binary(encode([[3, 100, 0], [1, 50000, 0]]));
    await connection.subscribes(NAMES);
    // The caller no longer wants it, the watchlist still does: nothing is said.
    const after = await connection.next();
    assert.deepEqual(after, { type: "subscribe", symbols: ["ETHUSDT"] });
    connection.say({ type: "subscribed", symbols: [{ symbol: "ETHUSDT", id: 2 }] });
    connection.binary(encode([[1, 50001, 1]]));
    // Off the watchlist while a caller wants it: asked for again.
    connection.say({ type: "auto_subscribe", data: { symbol: "ETHUSDT", id: 2 } });
    connection.say({ type: "auto_unsubscribe", data: { symbol: "ETHUSDT", id: 2 } });
    connection.say({ type: "auto_unsubscribe", data: { symbol: "SOLUSDT", id: 3 } });
    assert.deepEqual(await connection.next(), { type: "subscribe", symbols: ["ETHUSDT"] });
    // What the caller asked for goes on; what no caller wants any more is ended.
    connection.say({ type: "auto_unsubscribe", data: { symbol: "ETHUSDT", id: 2, subscribed: true } });
    connection.say({ type: "auto_unsubscribe", data: { symbol: "BTCUSDT", id: 1, subscribed: true } });
    assert.deepEqual(await connection.next(), { type: "unsubscribe", symbols: ["BTCUSDT"] });
    connection.binary(encode([[1, 50002, 1]]));
    connection.say({ type: "enigma", data: { symbol: "BTCUSDT", level: 50 } });
  });
  client.connect();
  client.subscribe("BTCUSDT");
  const removed = [];
  client.on("auto_unsubscribe", ({ symbol }) => removed.push(symbol));
  assert.deepEqual(await updates(client, 2), [["SOLUSDT", 100, 0], ["BTCUSDT", 50000, 0]]);
  await next(client, "subscribed");
  client.unsubscribe("BTCUSDT");
  client.subscribe("ETHUSDT");
  assert.deepEqual(await updates(client, 1), [["BTCUSDT", 50001, 1]]);
  assert.deepEqual(await next(client, "enigma"), { symbol: "BTCUSDT", level: 50 });
  assert.deepEqual(removed, ["ETHUSDT", "SOLUSDT", "ETHUSDT", "BTCUSDT"]);
});

test("updates as JSON, of a server that sends no binary ones", async (t) => {
  const { client } = await pair(t, async (connection) => {
    await connection.subscribes(NAMES);
    connection.say({ type: "prices", data: [{ symbol: "BTCUSDT", price: 50000.5, volume: 0.25 }] });
  });
  client.subscribe("BTCUSDT");
  client.connect();
  assert.deepEqual(await next(client, "update"), ["BTCUSDT", 50000.5, 0.25, 1]);
  assert.equal(client.statistics().updates, 1);
});

test("errors are told; what the server cannot do now is asked for again, what it does not know is not", async (t) => {
  const { client, server } = await pair(
    t,
    async (connection) => {
      await connection.next();
      connection.say({ type: "error", code: "not_now", message: "later", symbols: ["ETHUSDT"] });
      connection.say({ type: "error", code: "unknown_symbols", message: "never heard", symbols: ["NOPE"] });
      const again = await connection.subscribes(NAMES);
      assert.deepEqual(again, { type: "subscribe", symbols: ["ETHUSDT"] });
    },
    { pingMs: 10, patienceMs: 1e6 },
  );
  const codes = [];
  client.on("error", ({ code, symbols }) => codes.push([code, symbols]));
  client.subscribe("ETHUSDT", "NOPE");
  client.connect();
  await next(client, "subscribed");
  assert.deepEqual(codes, [["not_now", ["ETHUSDT"]], ["unknown_symbols", ["NOPE"]]]);
  assert.deepEqual(server.connections[0].unasked, []);
});

test("when the browser says that the network changed, the connection is looked at, and made where it waits", async (t) => {
  const { client, server } = await pair(
    t,
    async (connection) => {
      connection.answersPings = false;
      await connection.subscribes(NAMES);
    },
    { pingMs: 1e7, patienceMs: 1e7, probeMs: 50 },
  );
  client.subscribe("BTCUSDT");
  client.connect();
  await next(client, "subscribed");
  window.dispatchEvent(new Event("offline"));
  assert.match((await next(client, "state")).sentence, /does not answer/);
  window.dispatchEvent(new Event("offline"));
  assert.equal(client.state, "waiting");
  window.dispatchEvent(new Event("online"));
  await next(client, "subscribed");
  assert.equal(server.connections.length, 2);
});

test("a listener may end the client in the middle of a frame, and gets nothing more", async (t) => {
  const { client } = await pair(t, async (connection) => {
    await connection.subscribes(NAMES);
    connection.binary(encode([[1, 1, 1], [1, 2, 1], [1, 3, 1]]));
    connection.binary(encode([[1, 4, 1]]));
    await connection.ended;
  });
  const prices = [];
  client.on("update", (symbol, price) => {
    prices.push(price);
    if (price === 2) client.close();
  });
  client.subscribe("BTCUSDT");
  client.connect();
  await inState(client, "idle");
  client.connect();
  await next(client, "subscribed");
  assert.deepEqual(prices.slice(0, 2), [1, 2]);
});

test("whatever a server sends, the client goes on", async (t) => {
  const random = randomNumbers(SEED);
  const pick = (list) => list[Math.floor(list.length * random())];
  const types = ["subscribed", "unsubscribed", "auto_subscribe", "auto_unsubscribe", "prices", "enigma", "error", "pong"];
  const values = [null, true, 0, -1, Infinity, "", "x", [], {}, [null], [[]], [{}], { symbol: 1 }, [{ symbol: "A", id: 70000 }],
    [{ symbol: "A", id: 1.5 }], { symbol: "A", id: 1 }, [{ symbol: "__proto__", id: 1 }]];
  const anything = () => {
    const kind = random();
    if (kind < 0.3) return { bytes: Uint8Array.from({ length: 200 * random() }, () => 256 * random()) };
    if (kind < 0.4) return { bytes: encode([[Math.floor(4 * random()), random(), random()]]) };
    if (kind < 0.5) return { text: String.fromCharCode(...Array.from({ length: 20 }, () => 32 + 90 * random())) };
    return { text: JSON.stringify({ type: pick(types), symbols: pick(values), data: pick(values), code: pick(values) }) };
  };
  const ROUNDS = 300;
  const { client, server } = await pair(t, async (connection, index) => {
    if (index >= ROUNDS) {
      await connection.subscribes(NAMES);
      connection.binary(encode([[1, 2, 3]]));
      return;
    }
    for (let i = 0; i < 5; i++) {
      const { bytes, text } = anything();
      if (bytes) connection.binary(bytes);
      else connection.say(text);
    }
    connection.close(4999);
  });
  client.on("state", ({ state }) => state === "waiting" && queueMicrotask(() => client.retry()));
  client.subscribe("BTCUSDT");
  client.connect();
  await next(client, "update", (symbol, price, volume) => symbol === "BTCUSDT" && price === 2 && volume === 3);
  assert.equal(server.connections.length, ROUNDS + 1, `seed ${SEED}`);
});

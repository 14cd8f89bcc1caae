/** A closed client leaves nothing that keeps a process alive; a listener's fault is everybody's to see. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:net";
import { test } from "node:test";
import { promisify } from "node:util";

import { encode } from "./frames.mjs";
import { scripted } from "./scripted.mjs";

const CLIENT = JSON.stringify(new URL("../../tradeback/web/src/client.js", import.meta.url).href);
const PATIENCE_MS = 30000; // a safety net: a process that ends does so at once

/** Run a module in a Node of its own, to its end; `client` is one of `url`. */
function run(url, body) {
  const module = `import { Client } from ${CLIENT}; const client = new Client(${JSON.stringify(url)}); ${body}`;
  const command = [...process.execArgv.filter((flag) => flag.startsWith("--experimental")), "--no-warnings"];
  return promisify(execFile)(process.execPath, [...command, "--input-type=module", "--eval", module], {
    timeout: PATIENCE_MS,
  });
}

test("closed while connected", async (t) => {
  const server = await scripted(async (connection) => {
    await connection.subscribes(["A"]);
    await connection.ended;
  });
  t.after(() => server.close());
  const { stdout } = await run(
    server.url,
    `client.on("subscribed", () => client.close()); client.on("state", ({ state }) => console.log(state));
     client.subscribe("A"); client.connect();`,
  );
  assert.deepEqual(stdout.split(/\s+/), ["connecting", "connected", "idle", ""]);
  assert.equal(server.connections[0].closeCode, 1000);
});

test("closed while it waits to connect again", async (t) => {
  const server = await scripted(async (connection) => connection.close(4429));
  t.after(() => server.close());
  const { stdout } = await run(
    server.url,
    `client.on("state", ({ state }) => { console.log(state); if (state === "waiting") client.close(); }); client.connect();`,
  );
  assert.deepEqual(stdout.split(/\s+/), ["connecting", "connected", "waiting", "idle", ""]);
});

test("closed while it connects", async (t) => {
  const silent = createServer((socket) => socket.on("error", () => {}));
  await new Promise((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => silent.close());
  const { stdout } = await run(
    `ws://127.0.0.1:${silent.address().port}/`,
    `client.on("state", ({ state }) => console.log(state)); client.connect(); setTimeout(() => client.close(), 20);`,
  );
  assert.deepEqual(stdout.split(/\s+/), ["connecting", "idle", ""]);
});

test("refused for good", async (t) => {
  const server = await scripted(async (connection) => connection.close(4400));
  t.after(() => server.close());
  const { stdout } = await run(server.url, `client.on("state", ({ state }) => console.log(state)); client.connect();`);
  assert.deepEqual(stdout.split(/\s+/), ["connecting", "connected", "refused", ""]);
});

test("what a listener throws is an uncaught error, and the others get the update all the same", async (t) => {
  const server = await scripted(async (connection) => {
    await connection.subscribes(["A"]);
    connection.binary(encode([[1, 5, 0], [1, 6, 0]]));
    await connection.ended;
  });
  t.after(() => server.close());
  const { stdout } = await run(
    server.url,
    `process.on("uncaughtException", (error) => console.log(error.message));
     client.on("update", (symbol, price) => { throw new Error("fault " + price); });
     client.on("update", (symbol, price) => { console.log("got " + price); if (price === 6) setTimeout(() => client.close()); });
     client.subscribe("A"); client.connect();`,
  );
  assert.deepEqual(stdout.trim().split("\n").sort(), ["fault 5", "fault 6", "got 5", "got 6"]);
});

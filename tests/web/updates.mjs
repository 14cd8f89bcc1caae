/**
 * A client for a test in another language: `node updates.mjs URL`. Commands come as JSON lines, {"do", "symbols"?}:
 * subscribe, unsubscribe, connect, retry, close, report. What happens goes out as JSON lines, {"event", "told"}.
 */

import { createInterface } from "node:readline";

import { Client } from "../../tradeback/web/src/client.js";

/** With the login of the environment, where there is one. */
class WithToken extends WebSocket {
  constructor(url, protocols) {
    super(url, { protocols, headers: { Authorization: `Bearer ${process.env.TRADEBACK_TOKEN}` } });
  }
}

const loggedIn = process.env.TRADEBACK_TOKEN !== undefined;
const client = new Client(process.argv[2], loggedIn ? { WebSocket: WithToken, isLoggedIn: async () => false } : {});
const sums = {};
const prices = {};
const say = (event, told) => process.stdout.write(`${JSON.stringify({ event, told })}\n`);

client.on("update", (symbol, price, volume) => {
  sums[symbol] = (sums[symbol] ?? 0) + volume;
  prices[symbol] = price;
});
for (const event of ["state", "subscribed", "unsubscribed", "auto_subscribe", "auto_unsubscribe", "error", "fault"]) {
  client.on(event, (told) => say(event, told));
}

const commands = {
  subscribe: ({ symbols }) => client.subscribe(...symbols),
  unsubscribe: ({ symbols }) => client.unsubscribe(...symbols),
  connect: () => client.connect(),
  retry: () => client.retry(),
  close: () => client.close(),
  report: () => say("report", { sums, prices, ...client.statistics() }),
};
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
lines.on("close", () => client.close());

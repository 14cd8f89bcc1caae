/**
 * When the server closes with which code, and whether to connect again: from and to in ms between which to wait at
 * random, null where connecting again is of no use. The table of docs/protocol.md, which a test compares. After any
 * other code, or none, the client connects again by its back-off.
 *
 * @type {Readonly<Record<number, {when: string, reconnect: string, waitMs: readonly [number, number] | null}>>}
 */
export const CLOSE_CODES = Object.freeze({
  1000: { when: "the client asked for it", reconnect: "no", waitMs: null },
  1001: { when: "the server stops", reconnect: "yes, after 1 s to 10 s at random", waitMs: [1000, 10000] },
  1002: { when: "frames that break RFC 6455", reconnect: "no: mend the client", waitMs: null },
  1007: { when: "a text message that is not UTF-8", reconnect: "no: mend the client", waitMs: null },
  1008: { when: "a rule was broken that no other code names", reconnect: "no", waitMs: null },
  1009: { when: "a message longer than the limit", reconnect: "no: send shorter messages", waitMs: null },
  1011: { when: "a fault of the server", reconnect: "yes, after 1 s to 10 s at random", waitMs: [1000, 10000] },
  1012: {
    when: "the server restarts, or cannot tell yet who is logged in",
    reconnect: "yes, after 1 s to 10 s at random",
    waitMs: [1000, 10000],
  },
  4400: { when: "malformed messages, repeatedly", reconnect: "no: mend the client", waitMs: null },
  4401: { when: "not or no longer logged in", reconnect: "after logging in", waitMs: null },
  4403: { when: "a symbol that the session may not watch", reconnect: "without that symbol", waitMs: null },
  4408: {
    when: "took no data for longer than WS_BLOCKED_LIMIT",
    reconnect: "yes, with fewer symbols or a better line",
    waitMs: [1000, 10000],
  },
  4429: {
    when: "more messages than allowed",
    reconnect: "yes, after a minute, and slower",
    waitMs: [60000, 70000],
  },
});

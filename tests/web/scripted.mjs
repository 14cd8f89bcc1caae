/** A WebSocket server whose every frame a test writes, for what the real one is too polite to do. */

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

/** The server's end of one connection. */
class Connection {
  #socket;
  #unread = Buffer.alloc(0);
  #messages = [];
  #waiting = [];
  answersPings = true;
  closeCode = null;

  constructor(socket, request) {
    this.#socket = socket;
    this.request = request;
    this.ended = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => {}); // the other end may be gone: that is what `ended` tells
    socket.on("data", (bytes) => this.#read(bytes));
    socket.once("close", () => this.#waiting.splice(0).forEach(({ reject }) => reject(new Error("it hung up"))));
  }

  #read(bytes) {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    for (;;) {
      const unread = this.#unread;
      if (unread.length < 2) return;
      let length = unread[1] & 127;
      let at = 2;
      if (length === 126) {
        if (unread.length < 4) return;
        length = unread.readUInt16BE(2);
        at = 4;
      }
      if (unread.length < at + 4 + length) return;
      const mask = unread.subarray(at, at + 4);
      const payload = Buffer.from(unread.subarray(at + 4, at + 4 + length)).map((byte, i) => byte ^ mask[i & 3]);
      const kind = unread[0] & 15;
      this.#unread = unread.subarray(at + 4 + length);
      if (kind === CLOSE) {
        this.closeCode = payload.length ? payload.readUInt16BE(0) : 1005;
        this.#socket.end();
      } else if (kind === TEXT) this.#heard(JSON.parse(payload.toString()));
      else if (kind === PING) this.frame(PONG, payload);
      else if (kind !== PONG && kind !== CONTINUATION) throw new Error(`the client sent a frame of kind ${kind}`);
    }
  }

  #heard(message) {
    if (message.type === "ping") {
      if (this.answersPings) this.say({ type: "pong" });
      return;
    }
    const first = this.#waiting.shift();
    if (first) first.resolve(message);
    else this.#messages.push(message);
  }

  /** The next message that is no ping. */
  next() {
    if (this.#messages.length) return Promise.resolve(this.#messages.shift());
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** What came and was not asked for with next(). */
  get unasked() {
    return this.#messages;
  }

  frame(kind, payload) {
    const bytes = Buffer.from(payload);
    const head =
      bytes.length < 126
        ? Buffer.from([128 | kind, bytes.length])
        : Buffer.from([128 | kind, 126, bytes.length >> 8, bytes.length & 255]);
    this.#socket.write(Buffer.concat([head, bytes]));
  }

  say(message) {
    this.frame(TEXT, typeof message === "string" ? message : JSON.stringify(message));
  }

  binary(bytes) {
    this.frame(BINARY, bytes);
  }

  close(code, reason = "") {
    this.frame(CLOSE, Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]));
    this.#socket.end();
  }

  abort() {
    this.#socket.destroy();
  }

  /** Take a subscription, and answer it with ids from 1 on in the order of `names`. */
  async subscribes(names) {
    const message = await this.next();
    const symbols = message.symbols.map((symbol) => ({ symbol, id: names.indexOf(symbol) + 1 }));
    this.say({ type: "subscribed", symbols });
    return message;
  }
}

/**
 * Listen on a free port. `behave(connection, index)` is called for each connection, from 0 on; what it throws is
 * thrown by close(). `refuse(index)`, where given, answers a status instead of the upgrade.
 */
export async function scripted(behave, refuse = () => 0) {
  const sockets = new Set();
  const connections = [];
  const failures = [];
  let attempts = 0;
  const server = createServer((request, response) => response.writeHead(404).end());
  server.on("upgrade", (request, socket) => {
    const status = refuse(attempts++);
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    if (status) {
      socket.on("error", () => {});
      socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const offered = request.headers["sec-websocket-protocol"];
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        (offered ? `Sec-WebSocket-Protocol: ${offered}\r\n` : "") +
        `Sec-WebSocket-Accept: ${createHash("sha1").update(key).digest("base64")}\r\n\r\n`,
    );
    const connection = new Connection(socket, request);
    connections.push(connection);
    Promise.resolve(behave(connection, connections.length - 1)).catch((error) => failures.push(error));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `ws://127.0.0.1:${server.address().port}/api/v1/ws`,
    connections,
    get attempts() {
      return attempts;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      const told = failures.filter((error) => error.message !== "it hung up");
      if (told.length) throw told[0];
    },
  };
}

/** Decoding of frames: the vectors of docs/protocol.md, a plain decoder, and bytes that are no frames. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { FrameDecoder, ProtocolError } from "../../tradeback/web/src/frames.js";
import { chosenSeed, decode, encode, plainCrc32, randomNumbers } from "./frames.mjs";

const PROTOCOL = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");
const VECTORS = [...PROTOCOL.matchAll(/^ {4}([0-9a-f]{40,})$/gm)].map(([, hex]) => Buffer.from(hex, "hex"));
const ROUNDS = 2000;
const SEED = chosenSeed();

/** A copy in memory of its own that begins at the given distance from a multiple of eight. */
function placed(bytes, offset) {
  const room = new Uint8Array(bytes.length + 16);
  room.set(bytes, offset);
  return room.subarray(offset, offset + bytes.length);
}

function recordsOf(decoder) {
  return Array.from({ length: decoder.count }, (_, i) => [decoder.ids[i], decoder.prices[i], decoder.volumes[i]]);
}

test("the vectors of the protocol's document are decoded", () => {
  const decoder = new FrameDecoder();
  const expected = [[[1, 50000.5, 0.25]], [[1, 50000.5, 0.25], [65535, 0.00000001, 0]]];
  assert.equal(VECTORS.length, 2);
  VECTORS.forEach((bytes, i) => {
    const exact = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    assert.equal(decoder.decode(exact), expected[i].length);
    assert.deepEqual(recordsOf(decoder), expected[i]);
  });
});

test("every flipped bit of a vector is found", () => {
  const decoder = new FrameDecoder();
  for (const bytes of VECTORS) {
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const wrong = Buffer.from(bytes);
      wrong[bit >> 3] ^= 1 << (bit & 7);
      assert.throws(() => decoder.decode(wrong), ProtocolError, `bit ${bit}`);
      assert.equal(decoder.count, 0);
    }
  }
});

test("every length but the right one is refused", () => {
  const decoder = new FrameDecoder();
  const bytes = encode([[7, 1.5, 2.5], [8, 3.5, 4.5]]);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decoder.decode(bytes.subarray(0, length)), ProtocolError);
  }
  assert.throws(() => decoder.decode(Buffer.concat([bytes, Buffer.alloc(1)])), { code: "bad_length" });
  assert.throws(() => decoder.decode(encode([])), { code: "bad_length" });
  const tooMany = Array.from({ length: 51 }, () => [1, 1, 1]);
  assert.throws(() => decoder.decode(encode(tooMany)), { code: "bad_length" });
});

test("random frames are decoded as the plain decoder does it", () => {
  const random = randomNumbers(SEED);
  const decoder = new FrameDecoder();
  const bits = new DataView(new ArrayBuffer(8));
  const anyDouble = () => {
    bits.setUint32(0, 4294967296 * random());
    bits.setUint32(4, 4294967296 * random());
    return bits.getFloat64(0);
  };
  for (let round = 0; round < ROUNDS; round++) {
    const records = Array.from({ length: 1 + (round % 50) }, () => [
      Math.floor(65536 * random()), anyDouble(), anyDouble(),
    ]);
    const bytes = placed(encode(records), Math.floor(9 * random()));
    assert.equal(decoder.decode(bytes), records.length);
    assert.deepEqual(recordsOf(decoder), decode(Buffer.from(bytes)), `seed ${SEED}, round ${round}`);
  }
});

test("random bytes end in a ProtocolError and nothing else", () => {
  const random = randomNumbers(SEED);
  const decoder = new FrameDecoder();
  for (let round = 0; round < ROUNDS; round++) {
    const count = Math.floor(53 * random());
    const near = Math.max(0, 6 + 18 * count + Math.floor(3 * random()) - 1);
    const bytes = Buffer.from(Uint8Array.from({ length: near }, () => 256 * random()));
    // As a plausible one, so that the later checks are reached too.
    if (near >= 6 && random() < 0.7) bytes.writeUInt16LE(count, 4);
    if (near >= 6 && random() < 0.5) bytes.writeUInt32LE(plainCrc32(bytes.subarray(4)), 0);
    const expected = decode(bytes);
    let records = null;
    try {
      decoder.decode(bytes);
      records = recordsOf(decoder);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, `seed ${SEED}, round ${round}: ${error}`);
    }
    assert.deepEqual(records, expected, `seed ${SEED}, round ${round}`);
  }
});

/** The file of test vectors, by the decoder that pages use. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { FrameDecoder, ProtocolError } from "../../tradeback/web/src/frames.js";

const VECTORS = JSON.parse(readFileSync(new URL("../../docs/protocol-vectors.json", import.meta.url), "utf8"));

for (const { name, payload, records } of VECTORS.valid) {
  test(name, () => {
    const decoder = new FrameDecoder();
    assert.equal(decoder.decode(Buffer.from(payload, "hex")), records.length);
    const decoded = records.map((_, i) => [decoder.ids[i], decoder.prices[i], decoder.volumes[i]]);
    assert.deepEqual(decoded, records);
  });
}

for (const { name, payload, why } of VECTORS.invalid) {
  test(`refused: ${name}`, () => {
    assert.throws(() => new FrameDecoder().decode(Buffer.from(payload, "hex")), ProtocolError, why);
  });
}

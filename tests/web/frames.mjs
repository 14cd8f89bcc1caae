/** Frames as a test makes and reads them: the plain way, number by number, that the product is held against. */

/** @param {Array<[number, number, number]>} records id, price, volume */
export function encode(records) {
  const bytes = Buffer.alloc(6 + 18 * records.length);
  bytes.writeUInt16LE(records.length, 4);
  records.forEach(([id, price, volume], i) => {
    bytes.writeUInt16LE(id, 6 + 18 * i);
    bytes.writeDoubleLE(price, 8 + 18 * i);
    bytes.writeDoubleLE(volume, 16 + 18 * i);
  });
  bytes.writeUInt32LE(plainCrc32(bytes.subarray(4)), 0);
  return bytes;
}

/** @param {Buffer} bytes @returns {Array<[number, number, number]> | null} null where the frame is wrong */
export function decode(bytes) {
  if (bytes.length < 6) return null;
  const count = bytes.readUInt16LE(4);
  if (count < 1 || count > 50 || bytes.length !== 6 + 18 * count) return null;
  if (bytes.readUInt32LE(0) !== plainCrc32(bytes.subarray(4))) return null;
  return Array.from({ length: count }, (_, i) => [
    bytes.readUInt16LE(6 + 18 * i),
    bytes.readDoubleLE(8 + 18 * i),
    bytes.readDoubleLE(16 + 18 * i),
  ]);
}

/** Bit by bit, as RFC 1952 defines it. */
export function plainCrc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/**
 * The seed of a file of tests: TRADEBACK_SEED where it is set, under CI always the same one, else another each time. It is
 * printed, so that they can be run again with the same numbers.
 */
export function chosenSeed() {
  const seed = Number(process.env.TRADEBACK_SEED ?? (process.env.CI ? 1 : Date.now() % 2 ** 32));
  console.info(`TRADEBACK_SEED=${seed}`);
  return seed;
}

/** Numbers from 0 up to 1, the same ones for the same seed (mulberry32). */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

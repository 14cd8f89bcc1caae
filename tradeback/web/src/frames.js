/** Binary frames of protocol v1: their CRC-32, and their records. docs/protocol.md has the layout. */

export const HEADER_BYTES = 6; // CRC-32 u32, number of records u16
export const RECORD_BYTES = 18; // id u16, price f64, volume f64
export const MAX_RECORDS = 50;

/** What came cannot be understood. `code` is short_frame, bad_length, bad_crc, unknown_id or bad_message. */
export class ProtocolError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "ProtocolError";
    this.code = code;
  }
}

const MAX_BYTES = HEADER_BYTES + MAX_RECORDS * RECORD_BYTES;

// Each frame is copied to where it is read from: words at multiples of four, of an array that is always the same one,
// take less time than words of an array that is new with each frame.
const ROOM = new ArrayBuffer(8 * Math.ceil(MAX_BYTES / 8));
const BYTES = new Uint8Array(ROOM);
const WORDS = new Int32Array(ROOM); // of a little-endian machine; browsers run on no other
const VIEW = new DataView(ROOM);

// CRC-32 as zlib's, sixteen bytes a step: of the sixteen tables in here, each of 256 numbers, number k takes a byte that
// is followed by k others. After Kounavis and Berry, "A Systematic Approach to Building High Performance Software-based
// CRC Generators", 2005. What depends on the step before comes last, for the others not to wait for it.
const CRCS = crcTables(16);

/** @param {number} count */
function crcTables(count) {
  const tables = new Int32Array(256 * count);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const before = tables[i - 256];
    tables[i] = (before >>> 8) ^ tables[before & 255];
  }
  return tables;
}

/**
 * CRC-32 of the bytes in BYTES from the fifth up to `end`.
 *
 * @param {number} end
 * @returns {number} unsigned
 */
function crcOfRoom(end) {
  let crc = -1;
  let at = 1;
  const words = WORDS; // read once: the compiler cannot know that it stays
  const crcs = CRCS;
  const last = (end >> 2) - 4;
  while (at <= last) {
    const a = words[at] ^ crc;
    const b = words[at + 1];
    const c = words[at + 2];
    const d = words[at + 3];
    const ofB =
      crcs[(b & 255) + 2816] ^ crcs[((b >>> 8) & 255) + 2560] ^
      crcs[((b >>> 16) & 255) + 2304] ^ crcs[(b >>> 24) + 2048];
    const ofC =
      crcs[(c & 255) + 1792] ^ crcs[((c >>> 8) & 255) + 1536] ^
      crcs[((c >>> 16) & 255) + 1280] ^ crcs[(c >>> 24) + 1024];
    const ofD =
      crcs[(d & 255) + 768] ^ crcs[((d >>> 8) & 255) + 512] ^
      crcs[((d >>> 16) & 255) + 256] ^ crcs[d >>> 24];
    const ofA =
      crcs[(a & 255) + 3840] ^ crcs[((a >>> 8) & 255) + 3584] ^
      crcs[((a >>> 16) & 255) + 3328] ^ crcs[(a >>> 24) + 3072];
    crc = ofB ^ ofC ^ ofD ^ ofA;
    at += 4;
  }
  for (at *= 4; at < end; at++) crc = (crc >>> 8) ^ CRCS[(crc ^ BYTES[at]) & 255];
  return ~crc >>> 0;
}

/**
 * Decodes frames into arrays of its own: of the last frame, `ids[i]`, `prices[i]` and `volumes[i]` hold for
 * 0 <= i < `count`, until the next call.
 */
export class FrameDecoder {
  count = 0;
  ids = new Uint16Array(MAX_RECORDS);
  prices = new Float64Array(MAX_RECORDS);
  volumes = new Float64Array(MAX_RECORDS);

  /**
   * @param {ArrayBuffer | ArrayBufferView} frame one binary message
   * @returns {number} the number of its records
   * @throws {ProtocolError} where length or CRC are wrong; `count` is 0 then
   */
  decode(frame) {
    this.count = 0;
    const bytes =
      frame instanceof ArrayBuffer
        ? new Uint8Array(frame)
        : new Uint8Array(frame.buffer, frame.byteOffset, frame.byteLength);
    const length = bytes.length;
    if (length < HEADER_BYTES) {
      throw new ProtocolError("short_frame", `A frame of ${length} bytes is shorter than its header`);
    }
    if (length > MAX_BYTES) {
      throw new ProtocolError("bad_length", `A frame of ${length} bytes is longer than ${MAX_RECORDS} records`);
    }
    BYTES.set(bytes);
    const count = VIEW.getUint16(4, true);
    if (count < 1 || length !== HEADER_BYTES + count * RECORD_BYTES) {
      throw new ProtocolError("bad_length", `A frame of ${length} bytes cannot hold ${count} records`);
    }
    if (crcOfRoom(length) !== VIEW.getUint32(0, true)) {
      throw new ProtocolError("bad_crc", `A frame of ${count} records came with a wrong CRC`);
    }
    const { ids, prices, volumes } = this;
    for (let i = 0, at = HEADER_BYTES; i < count; i++, at += RECORD_BYTES) {
      ids[i] = VIEW.getUint16(at, true);
      prices[i] = VIEW.getFloat64(at + 2, true);
      volumes[i] = VIEW.getFloat64(at + 10, true);
    }
    this.count = count;
    return count;
  }
}

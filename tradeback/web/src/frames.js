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

// CRC-32 as zlib's, sixteen bytes a step: table k takes a byte that is followed by k others. After "Slicing-by-8",
// Kounavis and Berry, 2005.
const [T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15] = crcTables(16);

/** @param {number} count @returns {Int32Array[]} */
function crcTables(count) {
  const tables = Array.from({ length: count }, () => new Int32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    tables[0][byte] = crc;
  }
  for (let k = 1; k < count; k++) {
    for (let byte = 0; byte < 256; byte++) {
      const before = tables[k - 1][byte];
      tables[k][byte] = (before >>> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}

/**
 * CRC-32 of the bytes from `from` up to `to`.
 *
 * @param {DataView} view @param {number} from @param {number} to
 * @returns {number} unsigned
 */
export function crc32(view, from, to) {
  let crc = -1;
  let at = from;
  for (const end = to - 15; at < end; at += 16) {
    const a = view.getInt32(at, true) ^ crc;
    const b = view.getInt32(at + 4, true);
    const c = view.getInt32(at + 8, true);
    const d = view.getInt32(at + 12, true);
    crc =
      T15[a & 255] ^ T14[(a >>> 8) & 255] ^ T13[(a >>> 16) & 255] ^ T12[a >>> 24] ^
      T11[b & 255] ^ T10[(b >>> 8) & 255] ^ T9[(b >>> 16) & 255] ^ T8[b >>> 24] ^
      T7[c & 255] ^ T6[(c >>> 8) & 255] ^ T5[(c >>> 16) & 255] ^ T4[c >>> 24] ^
      T3[d & 255] ^ T2[(d >>> 8) & 255] ^ T1[(d >>> 16) & 255] ^ T0[d >>> 24];
  }
  for (; at < to; at++) crc = (crc >>> 8) ^ T0[(crc ^ view.getUint8(at)) & 255];
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
    const view =
      frame instanceof ArrayBuffer
        ? new DataView(frame)
        : new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    const length = view.byteLength;
    if (length < HEADER_BYTES) {
      throw new ProtocolError("short_frame", `A frame of ${length} bytes is shorter than its header`);
    }
    const count = view.getUint16(4, true);
    if (count < 1 || count > MAX_RECORDS || length !== HEADER_BYTES + count * RECORD_BYTES) {
      throw new ProtocolError("bad_length", `A frame of ${length} bytes cannot hold ${count} records`);
    }
    if (crc32(view, 4, length) !== view.getUint32(0, true)) {
      throw new ProtocolError("bad_crc", `A frame of ${count} records came with a wrong CRC`);
    }
    const { ids, prices, volumes } = this;
    for (let i = 0, at = HEADER_BYTES; i < count; i++, at += RECORD_BYTES) {
      ids[i] = view.getUint16(at, true);
      prices[i] = view.getFloat64(at + 2, true);
      volumes[i] = view.getFloat64(at + 10, true);
    }
    this.count = count;
    return count;
  }
}

// Numbers as they are shown. Formatters are made once: making one costs more than a hundred uses of it.

const byPrecision = new Map();

function fixed(digits) {
  let format = byPrecision.get(digits);
  if (format === undefined) {
    format = new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    byPrecision.set(digits, format);
  }
  return format;
}

const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const signed = new Intl.NumberFormat("en-US", {
  signDisplay: "exceptZero",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});

export const price = (value, precision) => fixed(precision).format(value);
export const amount = (value) => compact.format(value);

/** A change in percent, with its sign. */
export const percent = (value) => `${signed.format(value)}%`;

/** Bytes a second, in units of 1000. */
export function rate(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} B/s`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB/s` : `${(bytes / 1e6).toFixed(2)} MB/s`;
}

/** A duration, from milliseconds. */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 3_600_000 ? `${Math.floor(ms / 60_000)} min` : `${Math.floor(ms / 3_600_000)} h`;
}

/** A time in unix seconds as UTC. */
export const utc = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 16);

// Bars: {time, open, high, low, close, volume}; time is the opening one in unix seconds, aligned in UTC.

export const RESOLUTIONS = [
  { name: "1m", seconds: 60, spoken: "1 minute" },
  { name: "5m", seconds: 300, spoken: "5 minutes" },
  { name: "15m", seconds: 900, spoken: "15 minutes" },
  { name: "1h", seconds: 3600, spoken: "1 hour" },
  { name: "4h", seconds: 14400, spoken: "4 hours" },
  { name: "1d", seconds: 86400, spoken: "1 day" },
];

/** Two lists of bars by rising time as one; where both have a time, the second one's bar. */
export function merged(bars, fresh) {
  if (fresh.length === 0) return bars;
  if (bars.length === 0 || bars.at(-1).time < fresh[0].time) return bars.concat(fresh);
  const byTime = new Map(bars.map((bar) => [bar.time, bar]));
  for (const bar of fresh) byTime.set(bar.time, bar);
  return [...byTime.values()].sort((one, other) => one.time - other.time);
}

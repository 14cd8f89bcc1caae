// What a browser does with 50 updates: our frame with its CRC check, beside JSON.parse of the same content. As a module it
// is what Chromium imports; run by Node it reads the content from its input and writes the figures.
import { FrameDecoder } from "../tradeback/web/src/frames.js";

const PARTS = 100;

/**
 * @param {{frames: string[], texts: string[]}} content frames in base64, and each frame's updates as JSON
 * @param {{rounds: number, passes: number}} effort passes over a frame a round; a twentieth of them over a text
 * @returns {{ours: number[], theirs: number[]}} nanoseconds a frame or text, round by round
 */
export function measure(content, { rounds, passes }) {
  const frames = content.frames.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const { texts } = content;
  const decoder = new FrameDecoder();
  frames.forEach((frame, i) => {
    const { data } = JSON.parse(texts[i]);
    const count = decoder.decode(frame);
    const equal = data.every(({ price, volume }, k) => price === decoder.prices[k] && volume === decoder.volumes[k]);
    if (count !== data.length || !equal) throw new Error(`frame ${i} and its JSON differ`);
  });
  // A batch as JSON comes is used as it is, as ours is: what is read of both is one number.
  const ourPass = (i) => {
    const count = decoder.decode(frames[i % frames.length]);
    return decoder.prices[count - 1];
  };
  const theirPass = (i) => {
    const { data } = JSON.parse(texts[i % texts.length]);
    return data[data.length - 1].price;
  };
  timed(ourPass, passes);
  timed(theirPass, passes / 20);
  const ours = [];
  const theirs = [];
  for (let round = 0; round < rounds; round++) {
    ours.push(timed(ourPass, passes));
    theirs.push(timed(theirPass, passes / 20));
  }
  return { ours, theirs };
}

let kept = 0; // so that no result is thought to be of no use

// The median of a hundred parts: where a neighbour took the core away, it did so in a few of them.
function timed(pass, passes) {
  const part = Math.ceil(passes / PARTS);
  const times = [];
  for (let first = 0; first < PARTS * part; first += part) {
    const start = performance.now();
    for (let i = first; i < first + part; i++) kept += pass(i);
    times.push(((performance.now() - start) * 1e6) / part);
  }
  if (Number.isNaN(kept)) throw new Error("a price is no number");
  return times.sort((one, other) => one - other)[PARTS / 2];
}

if (globalThis.process?.argv[2] === "--measure") {
  let input = "";
  for await (const chunk of process.stdin) input += chunk;
  const { content, effort } = JSON.parse(input);
  process.stdout.write(JSON.stringify(measure(content, effort)));
}

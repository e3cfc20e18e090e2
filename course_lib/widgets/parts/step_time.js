// The time of a step of data parallelism: gradients are computed and travel, bucket by bucket.
// timeline.py has the same, and the formula.

import { tidy } from "./data.js";

export const sumOf = (values) => values.reduce((sum, value) => sum + value, 0);

// The layers of each bucket, in the order in which their gradients come.
function bucketsOf(sizes, cap) {
  const filled = [];
  let [bucket, held] = [[], 0];
  for (let i = sizes.length - 1; i >= 0; i--) {
    bucket.push(i);
    held += sizes[i];
    if (held < cap) continue;
    filled.push(bucket);
    [bucket, held] = [[], 0];
  }
  return bucket.length ? [...filled, bucket] : filled;
}

const ringTime = (bytes, { processes: n, bandwidth, latency }) =>
  (2 * (n - 1)) / n * bytes / bandwidth + 2 * (n - 1) * latency;

// What is computed and sent when: {layers, travels, done, end, total, hidden}. A layer is {index, start,
// end}, a bucket that travels also has its layers, bytes and when it was `ready`; `done` is the end of
// the backward pass, `end` that of the step, `hidden` the share of the communication before `done`.
export function timelineOf(step) {
  const { sizes, backward, bucket_bytes, overlap } = step;
  const layers = [];
  const readyAt = [];
  let done = 0;
  for (let i = sizes.length - 1; i >= 0; i--) {
    layers.push({ index: i, start: done, end: done + backward[i] });
    done = readyAt[i] = done + backward[i];
  }
  let free = overlap ? 0 : done;
  const travels = bucketsOf(sizes, bucket_bytes).map((bucket, index) => {
    const bytes = sumOf(bucket.map((i) => sizes[i]));
    const ready = readyAt[bucket.at(-1)];
    const start = Math.max(free, ready);
    free = start + ringTime(bytes, step);
    return { index, layers: bucket, bytes, ready, start, end: free };
  });
  const total = sumOf(travels.map(({ start, end }) => end - start));
  const during = sumOf(travels.map(({ start, end }) => Math.min(end, done) - Math.min(start, done)));
  return { layers, travels, done, end: Math.max(done, free), total, hidden: total ? during / total : 1 };
}

// ------------------------------------------------------------------------------------- in writing

export const inShort = (value) => tidy(value < 99.5 ? Number(value.toPrecision(2)) : Number(value.toPrecision(3)));

export function bytesText(bytes) {
  const [unit, name] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "bytes"]].find(([size]) => bytes >= size) || [1, "bytes"];
  return `${inShort(bytes / unit)} ${name}`;
}

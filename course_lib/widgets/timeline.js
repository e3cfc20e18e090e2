// Timeline: backward pass and all-reduce beside each other, bucket by bucket.

import { drawPlane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE, inkOn, rgb } from "./parts/colours.js";
import { row, slider, toggle } from "./parts/controls.js";
import { tidy } from "./parts/data.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, groundedWords, inside, segment, trace, words } from "./parts/panel.js";
import { bytesText, timelineOf } from "./parts/step_time.js";
import STYLE from "./timeline.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// parts/step_time.js has when what is computed and sent.

// The bandwidth with which the step ends at a time, or the nearest one: the faster, the earlier.
function bandwidthFor(step, end, [low, high]) {
  let [slow, fast] = [Math.log(low), Math.log(high)];
  for (let k = 0; k < 30; k++) {
    const middle = (slow + fast) / 2;
    if (timelineOf({ ...step, bandwidth: Math.exp(middle) }).end > end) slow = middle;
    else fast = middle;
  }
  return clamp(Number(Math.exp((slow + fast) / 2).toPrecision(3)), low, high);
}

// -------------------------------------------------------------------------------------- the state

const CHOSEN = ["processes", "bandwidth", "latency", "bucket_bytes", "overlap"];
const POINTS = 120; // of the curve

function stateOf(model) {
  const get = (names) => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const fixed = get(["sizes", "backward"]);
  const [bucketRange, bandwidths, latencies, counts] =
    ["bucket_range", "bandwidths", "latencies", "counts"].map((name) => model.get(name));
  const { change, send } = throttledChanges(model);
  const sizesOfBuckets = Array.from({ length: POINTS + 1 }, (_, i) =>
    bucketRange[0] * (bucketRange[1] / bucketRange[0]) ** (i / POINTS));
  let known = { facts: "" };
  const run = () => {
    const step = { ...fixed, ...get(CHOSEN) };
    const facts = CHOSEN.map((name) => step[name]).join();
    if (known.facts === facts) return known;
    const ends = sizesOfBuckets.map((bucket_bytes) => timelineOf({ ...step, bucket_bytes }).end);
    known = { facts, step, ...timelineOf(step), ends };
    return known;
  };
  const setBucket = (bytes) => change({ bucket_bytes: clamp(Math.round(Number(bytes.toPrecision(3))), ...bucketRange) });
  const setBandwidth = (value) => change({ bandwidth: clamp(Number(value.toPrecision(3)), ...bandwidths) });
  const endAt = (time) => change({ bandwidth: bandwidthFor(run().step, time, bandwidths) });
  return { ...fixed, bucketRange, bandwidths, latencies, counts, sizesOfBuckets, run, setBucket, setBandwidth, endAt, change, send };
}

// ------------------------------------------------------------------------------------- in writing

function unitOf(seconds) {
  if (seconds >= 1) return [1, "s"];
  return seconds >= 1e-3 ? [1e-3, "ms"] : [1e-6, "\u00b5s"];
}

function timeText(seconds) {
  const [unit, name] = unitOf(seconds || 1);
  return `${tidy(Number((seconds / unit).toPrecision(3)))} ${name}`;
}

function sentenceOf({ step, travels, done, end, total, hidden }) {
  if (!total) return `One process has nothing to send: the step ends with the backward pass, after ${timeText(done)}.`;
  const sent = travels.length === 1 ? "one bucket" : `${travels.length} buckets`;
  const late = end - done;
  return `${step.processes} processes: the backward pass takes ${timeText(done)}, the all-reduce of ${sent} ${timeText(total)}, of which ` +
    `${Math.round(100 * hidden)} % is hidden. The step ends at ${timeText(end)}, ${timeText(late)} after the backward pass.`;
}

// ------------------------------------------------------------------------------------ the picture

// The lanes, and beside them or below the curve.
function stands(width) {
  const beside = width >= 640;
  const wide = beside ? Math.round(0.58 * width) : width;
  const high = Math.round(clamp(0.085 * width, 34, 54));
  const lanes = { x: 6, y: 22, width: wide - 22, high, gap: 40 };
  lanes.second = lanes.y + high + lanes.gap;
  lanes.floor = lanes.second + high + 8;
  const foot = lanes.floor + 40;
  const left = beside ? wide + 50 : 56;
  const curve = { x: left, y: 22, width: width - left - 14, height: foot - 62 };
  if (!beside) Object.assign(curve, { y: foot + 26, height: Math.round(clamp(0.3 * width, 100, 150)) });
  return { lanes, curve, total: beside ? foot : curve.y + curve.height + 42 };
}

const headOf = (ctx, text, x, y, most, theme) => words(ctx, text, x, y, theme.ink, `600 12px ${theme.font}`, "left", "middle", most);

// A block of a lane, and in it what it is called if there is room.
function block(ctx, x0, x1, y, high, colour, alpha, text, theme) {
  const gap = x1 - x0 > 3 ? 1 : 0;
  ctx.globalAlpha = alpha;
  ctx.fillStyle = colour;
  ctx.fillRect(x0, y, Math.max(x1 - x0 - gap, 0.5), high);
  ctx.globalAlpha = 1;
  ctx.font = `11px ${theme.font}`;
  if (text && ctx.measureText(text).width + 6 < x1 - x0) {
    words(ctx, text, (x0 + x1) / 2, y + high / 2, alpha > 0.9 ? inkOn(rgb(colour)) : theme.ink, ctx.font, "center");
  }
}

// From where a bucket is full to where it travels.
function drawWaiting(ctx, lanes, travels, x, theme) {
  if (travels.length > 40) return;
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const { ready, start } of travels) segment(ctx, x(ready), lanes.y + lanes.high + 1, x(start), lanes.second - 1);
  ctx.stroke();
}

// Both lanes over `span` seconds. Returns the map of times.
function drawLanes(ctx, lanes, found, span, theme) {
  const { layers, travels, done, end, step } = found;
  const x = (time) => lanes.x + (time / span) * lanes.width;
  const box = { x: lanes.x, y: lanes.y, width: lanes.width, height: lanes.floor - lanes.y };
  const [unit, name] = unitOf(span);
  const marks = ticks(0, span / unit, Math.max(3, lanes.width / 60));
  drawPlane(ctx, box, theme);
  inside(ctx, { ...box, width: box.width + 8 }, () => {
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const place of marks.map((value) => Math.round(x(value * unit)) + 0.5)) segment(ctx, place, box.y, place, lanes.floor);
    ctx.stroke();
    drawWaiting(ctx, lanes, travels, x, theme);
    const bucketOf = new Map(travels.flatMap(({ index, layers: own }) => own.map((i) => [i, index])));
    const named = layers.every((layer) => x(layer.end) - x(layer.start) > 19);
    for (const { index, start, end: until } of layers) {
      block(ctx, x(start), x(until), lanes.y + 2, lanes.high, PALETTE.data, bucketOf.get(index) % 2 ? 0.62 : 1, named ? String(index) : "", theme);
    }
    for (const { bytes, start, end: until } of travels) {
      const text = bytesText(bytes);
      const middle = clamp(done, start, until);
      const ahead = middle - start >= until - middle; // the words stand in the longer part
      if (middle > start) block(ctx, x(start), x(middle), lanes.second, lanes.high, PALETTE.latent, 1, ahead ? text : "", theme);
      if (until > middle) block(ctx, x(middle), x(until), lanes.second, lanes.high, PALETTE.model, 1, ahead ? "" : text, theme);
    }
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1.5;
    for (const [time, dash] of [[done, [4, 3]], [end, []]]) {
      ctx.setLineDash(dash);
      ctx.beginPath();
      segment(ctx, x(time), box.y, x(time), lanes.floor);
      ctx.stroke();
    }
    ctx.setLineDash([]);
  });
  headOf(ctx, "backward pass, the last layer first", lanes.x, lanes.y - 11, lanes.width, theme);
  const what = step.processes > 1 ? "all-reduce, bucket by bucket" : "all-reduce: nothing to send";
  groundedWords(ctx, what, lanes.x + 4, lanes.second - 12, theme.ink, `600 12px ${theme.font}`, theme, { box });
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(box.x) + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
  for (const value of marks) {
    words(ctx, tidy(value), x(value * unit), lanes.floor + 5, theme.muted, `11px ${theme.font}`, value ? "center" : "left", "top");
  }
  words(ctx, `time in ${name}`, box.x + box.width / 2, lanes.floor + 28, theme.muted, `12px ${theme.font}`, "center");
  return { x, timeAt: (place) => ((place - lanes.x) / lanes.width) * span };
}

// When the step ends, for every size of the buckets.
function drawCurve(ctx, box, { bucketRange, sizesOfBuckets }, { ends, done, step, end }, theme) {
  const most = Math.max(...ends, 1.02 * done);
  const [unit, name] = unitOf(most);
  const [mega, bytes] = bucketRange[1] >= 1e9 ? [1e9, "GB"] : bucketRange[1] >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
  const across = axisOf(bucketRange[0] / mega, bucketRange[1] / mega, true);
  const up = axisOf(0, (1.08 * most) / unit);
  const map = chart(ctx, [across, up], box, theme, (own) => {
    ctx.lineWidth = 1.5;
    ctx.strokeStyle = theme.ink;
    ctx.setLineDash([4, 3]);
    ctx.beginPath();
    segment(ctx, box.x, own.y(done / unit), box.x + box.width, own.y(done / unit));
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.strokeStyle = theme.words.model;
    ctx.lineWidth = 2;
    ctx.lineJoin = "round";
    trace(ctx, ends.map((value, i) => [own.x(sizesOfBuckets[i] / mega), own.y(value / unit)]));
    ctx.stroke();
    words(ctx, "backward pass alone", box.x + 6, own.y(done / unit) + 10, theme.ink, `11px ${theme.font}`);
  });
  headOf(ctx, `end of the step in ${name}`, box.x - 40, box.y - 11, box.width + 40, theme);
  axisNames(ctx, box, `a bucket is full at (${bytes})`, "", 0, theme);
  return {
    point: [map.x(step.bucket_bytes / mega), map.y(end / unit)],
    bytesAt: (place) => across.value(clamp((place - box.x) / box.width, 0, 1)) * mega
  };
}

const sign = (colour) => `<rect x="3" y="2" width="16" height="10" fill="${colour}"/>`;
const KEY = [
  [sign(PALETTE.data), "backward"],
  [sign(PALETTE.latent), "all-reduce, hidden"],
  [sign(PALETTE.model), "all-reduce, waited for"],
  [`<path d="M11 0v14" stroke="currentColor" stroke-width="1.5" stroke-dasharray="4 3"/>`, "end of the backward pass"],
  [`<path d="M11 0v14" stroke="currentColor" stroke-width="1.5"/>`, "end of the step"]
];

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { bucketRange, bandwidths, latencies, counts, run, setBucket, setBandwidth, endAt, change, send } = state;
  const said = element("p", { class: "cw-status timeline-said", role: "status" });
  let [at, time, curve] = [null, null, null]; // as last laid out and drawn
  let span = 0; // seconds on the axis, which stays as long as it can, so that one sees the end move

  const draw = (ctx, _, theme) => {
    const found = run();
    if (!endGrip.held && (found.end > 0.97 * span || found.end < 0.45 * span)) span = 1.12 * found.end;
    time = drawLanes(ctx, at.lanes, found, span, theme);
    curve = drawCurve(ctx, at.curve, state, found, theme);
    endGrip.stand(clamp(time.x(found.end), at.lanes.x, at.lanes.x + at.lanes.width), at.lanes.second - 20, found.end, timeText(found.end));
    bucketGrip.stand(...curve.point, found.step.bucket_bytes / 1e6, bytesText(found.step.bucket_bytes));
    say(said, sentenceOf(found));
  };
  const layout = (width) => {
    at = stands(width);
    keepRoom(said, `${counts[1]} processes: the backward pass takes 0.123 ms, the all-reduce of 96 buckets 0.123 ms, of which 100 % ` +
      "is hidden. The step ends at 0.1234 ms, 0.1234 ms after the backward pass.");
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 820, style: STYLE, name: "timeline" });
  const endGrip = handle(view, "End of the step", {
    shape: "diamond timeline-end", colour: PALETTE.model, end: () => {
      send();
      view.redraw();
    },
    start: ([x]) => {
      const off = time.x(run().end) - x;
      return ([toX]) => endAt(time.timeAt(clamp(toX + off, at.lanes.x, at.lanes.x + at.lanes.width)));
    }
  });
  const bucketGrip = handle(view, "Size of the buckets, on the curve", {
    shape: "round timeline-bucket", colour: PALETTE.model, range: bucketRange.map((bytes) => bytes / 1e6), end: send,
    start: ([x]) => {
      const off = curve.point[0] - x;
      return ([toX]) => setBucket(curve.bytesAt(toX + off));
    }
  });

  const per = (value) => `${bytesText(value)}/s`;
  const speed = row(slider(view, "bandwidth", "bandwidth", {
    min: bandwidths[0], max: bandwidths[1], log: true, text: per, change, title: "Bandwidth of each link"
  }), slider(view, "bucket_bytes", "bucket", {
    min: bucketRange[0], max: bucketRange[1], log: true, text: bytesText, change: ({ bucket_bytes }) => setBucket(bucket_bytes),
    title: "When a bucket is full"
  }));
  const tools = row(
    slider(view, "latency", "latency", { min: latencies[0], max: latencies[1], log: true, text: timeText, change, title: "Latency of each message" }),
    slider(view, "processes", "processes N", {
      min: counts[0], max: counts[1], log: true, step: Math.log10(2), round: Math.round, change, title: "How many processes there are"
    }),
    toggle(view, "overlap", "overlap", { title: "Buckets travel while the backward pass still computes" }));
  view.controls.before(said);
  view.controls.append(speed, tools);
  view.controls.after(legend(KEY), hint(
    "Drag the diamond, the end of the step, to change the bandwidth; drag the dot along its curve to change the size of the buckets. Thin lines " +
    "lead from where a bucket is full to where it travels. Keys: \u2190 \u2192 size of the buckets, \u2191 \u2193 bandwidth (Shift: finer)."));

  const stretch = (event) => 10 ** (event.shiftKey ? 0.02 : 0.1);
  const bucketBy = (power) => (event) => setBucket(Math.max(run().step.bucket_bytes * stretch(event) ** power, 1));
  const fasterBy = (power) => (event) => setBandwidth(run().step.bandwidth * stretch(event) ** power);
  onKeys(view, { ArrowLeft: bucketBy(-1), ArrowRight: bucketBy(1), ArrowUp: fasterBy(1), ArrowDown: fasterBy(-1) });
  // On the diamond left and right move the diamond: more bandwidth, an earlier end.
  onKeys(view, { ArrowLeft: fasterBy(1), ArrowRight: fasterBy(-1) }, endGrip.node);
  view.follow(CHOSEN, view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

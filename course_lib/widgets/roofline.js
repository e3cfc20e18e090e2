// Roofline: operations a byte against operations a second, and where the steps of attention stand.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart, traceMark } from "./parts/chart.js";
import { PALETTE } from "./parts/colours.js";
import { choice, row } from "./parts/controls.js";
import { tidy } from "./parts/data.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { logSlider } from "./parts/log_slider.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, trace, words } from "./parts/panel.js";
import STYLE from "./roofline.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// roofline.py has the same, and the formulas.

// What each step takes: [flops, bytes] of the three, of them together, and of FlashAttention.
function attentionCosts({ n, d, rows, number_bytes }) {
  const [product, probabilities] = [2 * n * n * d, 5 * n * n];
  const flash = 2 * n * d * Math.ceil(n / rows) + 2 * n * d + n;
  const all = 2 * product + probabilities;
  return [[product, n * n + 2 * n * d], [probabilities, 2 * n * n], [product, n * n + 2 * n * d], [all, 4 * n * n + 4 * n * d], [all, flash]]
    .map(([flops, numbers]) => [flops, number_bytes * numbers]);
}

const attainableSpeed = (intensity, { peak, bandwidth }) => Math.min(peak, intensity * bandwidth);
const leastSeconds = ([flops, bytes], { peak, bandwidth }) => Math.max(flops / peak, bytes / bandwidth);

// The steps: {flops, bytes, intensity, seconds, waits}, the three one after the other.
function stepsOf(given) {
  const steps = attentionCosts(given).map((cost) => {
    const [flops, bytes] = cost;
    return { flops, bytes, intensity: flops / bytes, seconds: leastSeconds(cost, given), waits: bytes / given.bandwidth >= flops / given.peak };
  });
  steps[3].seconds = steps[0].seconds + steps[1].seconds + steps[2].seconds;
  return steps;
}

// -------------------------------------------------------------------------------------- the state

const SIZES = ["n", "d", "rows"];
const SPEEDS = ["peak", "bandwidth", "number_bytes"];

function stateOf(model) {
  const { change: send1, send } = throttledChanges(model);
  const given = () => Object.fromEntries([...SIZES, ...SPEEDS].map((name) => [name, model.get(name)]));
  const known = model.get("known");
  // Speeds that are moved are no longer those of a named machine; one that is named brings its own.
  const change = (values) => {
    const { hardware } = values;
    if (hardware) send1(Object.fromEntries([["hardware", hardware], ...SPEEDS.map((name, i) => [name, known[hardware][i]])]));
    else send1(SIZES.some((name) => name in values) ? values : { ...values, hardware: "" });
  };
  const [peaks, bandwidths] = ["peaks", "bandwidths"].map((name) => model.get(name));
  const moveRidge = (intensity, speed) => {
    const peak = clamp(speed, ...peaks);
    change({ peak, bandwidth: clamp(peak / intensity, ...bandwidths) });
  };
  return { given, names: [...model.get("steps"), "three steps", "FlashAttention"], peaks, bandwidths, moveRidge, change, send };
}

// ------------------------------------------------------------------------------------ the picture

const ACROSS = axisOf(0.25, 2048, true);
const UP = axisOf(0.3, 3000, true); // in TFLOP/s or GFLOP/s
const unitOf = (peak) => (peak >= 2e12 ? [1e12, "TFLOP/s"] : [1e9, "GFLOP/s"]);
const MARK_OF = [0, 1, 0, 2, 3]; // both products stand at one place
const ROLE_OF = ["data", "data", "data", "error", "latent"];

// The roof, and the times beside it or, where there is no room, below.
function stands(width) {
  const beside = width >= 620;
  const room = beside ? Math.round(0.52 * width) : width;
  const plot = { x: 56, y: 24, width: room - 66, height: Math.round(clamp(0.62 * (room - 66), 170, 260)) };
  const floor = plot.y + plot.height + 42;
  const times = beside ? { x: room + 16, y: 24, width: width - room - 18 } : { x: 4, y: floor + 24, width: width - 8 };
  return { plot, times, total: beside ? Math.max(floor, times.y + 220) : times.y + 214 };
}

function drawMark(ctx, k, x, y, theme) {
  ctx.beginPath();
  traceMark(ctx, MARK_OF[k], x, y, 5.5);
  ctx.fillStyle = PALETTE[ROLE_OF[k]];
  ctx.fill();
  ctx.strokeStyle = theme.plot;
  ctx.lineWidth = 1.2;
  ctx.stroke();
  ctx.lineWidth = 1;
}

// Returns the map, in operations a byte and operations a second.
function drawRoof(ctx, given, steps, box, theme) {
  const { peak, bandwidth } = given;
  const [unit, name] = unitOf(peak);
  const ridge = peak / bandwidth;
  const map = chart(ctx, [ACROSS, UP], box, theme, (own) => {
    const roof = [ACROSS.low, ridge, Math.max(ACROSS.high, ridge)].map((x) => [own.x(x), own.y(attainableSpeed(x, given) / unit)]);
    trace(ctx, [...roof, [roof[2][0], box.y + box.height], [own.x(ridge), box.y + box.height], roof[1]]);
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = PALETTE.data;
    ctx.fill();
    trace(ctx, [...roof.slice(0, 2), [own.x(ridge), box.y + box.height], [box.x, box.y + box.height]]);
    ctx.fillStyle = PALETTE.model;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 2.5;
    ctx.lineJoin = "round";
    trace(ctx, roof);
    ctx.stroke();
    ctx.lineWidth = 1;
    steps.forEach(({ flops, intensity, seconds }, k) => drawMark(ctx, k, own.x(intensity), own.y(flops / seconds / unit), theme));
    const font = `11px ${theme.font}`;
    words(ctx, "waits for memory", box.x + 6, box.y + box.height - 10, theme.words.model, font);
    words(ctx, "computes", box.x + box.width - 6, box.y + box.height - 10, theme.words.data, font, "right");
  });
  axisNames(ctx, box, "operations a byte", `speed (${name})`, 10, theme);
  const toPlane = (x, y) => [ACROSS.value((x - box.x) / box.width), unit * UP.value(1 - (y - box.y) / box.height)];
  return { x: map.x, y: (speed) => map.y(speed / unit), toPlane };
}

// A bar for each step, one after the other, and one for all; in the colour of what it waits for.
function drawTimes(ctx, { names }, steps, box, theme) {
  const most = Math.max(steps[3].seconds, steps[4].seconds);
  let start = 0;
  words(ctx, "the least time of each, for one head", box.x, box.y - 12, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
  steps.forEach((step, k) => {
    const top = box.y + 4 + 40 * k + (k > 2 ? 8 : 0);
    drawMark(ctx, k, box.x + 6, top + 8, theme);
    words(ctx, names[k], box.x + 18, top + 8, theme.ink, `12px ${theme.font}`);
    words(ctx, inSeconds(step.seconds), box.x + box.width, top + 8, theme.ink, `12px ${theme.font}`, "right");
    const long = (seconds) => (seconds / most) * box.width;
    const parts = k === 3 ? steps.slice(0, 3) : [step];
    let left = box.x + (k < 3 ? long(start) : 0);
    for (const { seconds, waits } of parts) {
      ctx.fillStyle = PALETTE[waits ? "model" : "data"];
      ctx.fillRect(left, top + 17, Math.max(long(seconds) - (k === 3 ? 1 : 0), 1), 12);
      left += long(seconds);
    }
    if (k < 3) start += step.seconds;
  });
}

// ------------------------------------------------------------------------------------ in writing

const short = (value) => tidy(Number(value.toPrecision(3)));
const inSeconds = (seconds) => {
  const [unit, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "\u00b5s"]].find(([size]) => seconds >= size) ?? [1e-9, "ns"];
  return `${short(seconds / unit)} ${name}`;
};
const inPrefix = (value, name) => {
  const [unit, letter] = [[1e15, "P"], [1e12, "T"], [1e9, "G"]].find(([size]) => value >= size) ?? [1e6, "M"];
  return `${short(value / unit)} ${letter}${name}`;
};
const counted = (count) => Math.round(count).toLocaleString("en-US");

function sentenceOf(given, steps) {
  const [{ seconds: all }, { seconds: flash, intensity, waits }] = steps.slice(3);
  const waiting = steps.slice(0, 3).reduce((sum, step) => sum + (step.waits ? step.seconds : 0), 0) / all;
  return `The three steps take ${inSeconds(all)} at least, ${Math.round(100 * waiting)} % of it in steps that wait for memory; FlashAttention takes ` +
    `${inSeconds(flash)}, ${short(all / flash)} times less. It makes ${short(intensity)} operations a byte; the ridge is at ` +
    `${short(given.peak / given.bandwidth)}: it ${waits ? "waits for memory" : "computes all the time"}.`;
}

// -------------------------------------------------------------------------------------- the widget

const block = (colour) => `<rect x="3" y="3" width="16" height="9" fill="${colour}"/>`;
const KEY = [
  [`<path d="M1 12L9 3h12" fill="none" stroke="currentColor" stroke-width="2.5"/>`, "the roof"],
  [block(PALETTE.model), "time bound by memory"], [block(PALETTE.data), "time bound by computing"]
];

function render({ model, el }) {
  const state = stateOf(model);
  const { given, peaks, bandwidths, moveRidge, change, send } = state;
  const said = element("p", { class: "roof-said", role: "status" });
  let [at, map] = [null, null]; // as last laid out, as last drawn

  const draw = (ctx, _, theme) => {
    const facts = given();
    const steps = stepsOf(facts);
    const ridge = facts.peak / facts.bandwidth;
    map = drawRoof(ctx, facts, steps, at.plot, theme);
    drawTimes(ctx, state, steps, at.times, theme);
    const [x, y] = [map.x(ridge), map.y(facts.peak)];
    grip.stand(clamp(x, at.plot.x, at.plot.x + at.plot.width), clamp(y, at.plot.y, at.plot.y + at.plot.height), ridge,
      `${short(ridge)} operations a byte, ${inPrefix(facts.peak, "FLOP/s")}`);
    say(said, sentenceOf(facts, steps));
  };
  const longest = "The three steps take 99.9 ms at least, 100 % of it in steps that wait for memory; FlashAttention takes 99.9 ms, 99.9 times less. " +
    "It makes 99.9 operations a byte; the ridge is at 99.9: it computes all the time.";
  const layout = (width) => {
    at = stands(width);
    keepRoom(said, longest);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 820, style: STYLE, name: "roof" });
  const grip = handle(view, "The ridge: peak over bandwidth", {
    shape: "diamond roof-ridge", colour: "var(--cw-accent)", range: [ACROSS.low, ACROSS.high], end: send,
    start: ([x, y]) => {
      const { peak, bandwidth } = given();
      const [left, top] = [map.x(peak / bandwidth) - x, map.y(peak) - y]; // to the middle of the handle
      const [unit] = unitOf(peak);
      return ([toX, toY]) => {
        const [intensity, speed] = map.toPlane(toX + left, toY + top);
        // The axis stays while one drags.
        moveRidge(clamp(intensity, 1, 1024), unit === 1e12 ? Math.max(speed, 2e12) : Math.min(speed, 1.99e12));
      };
    }
  });
  view.stage.after(said);
  view.controls.before(
    row(choice(view, "hardware", "hardware", model.get("machines").map((name) => [name, name]), { change })),
    row(
      logSlider(view, "peak", "peak", { min: peaks[0], max: peaks[1], text: (value) => inPrefix(value, "FLOP/s"), change }),
      logSlider(view, "bandwidth", "bandwidth", { min: bandwidths[0], max: bandwidths[1], text: (value) => inPrefix(value, "B/s"), change })),
    row(...[["n", "tokens N", 64], ["d", "head size d", 8], ["rows", "queries held", 8]].map(([name, label, least]) =>
      logSlider(view, name, label, {
        min: Math.min(least, model.get(name)), max: model.get("most")[name], step: 0.25, whole: true, text: counted, change,
        title: name === "rows" ? "Queries that FlashAttention holds while all keys pass by" : ""
      }))));
  view.controls.after(legend(KEY), hint(
    "Drag the diamond: up for a faster machine, to the left for a faster memory. Keys: arrows move it when it has the focus (Shift: finer)."));
  view.controls.remove();
  const nudge = (right, up) => (event) => {
    const by = event.shiftKey ? 1.02 : 1.15;
    const { peak, bandwidth } = given();
    moveRidge((peak / bandwidth) * by ** right, peak * by ** up);
  };
  onKeys(view, { ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1) }, grip.node);
  view.follow([...SIZES, ...SPEEDS, "hardware"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

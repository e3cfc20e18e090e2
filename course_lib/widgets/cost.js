// Cost: what training a model on N processes takes of each one's memory, and how fast it is.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE } from "./parts/colours.js";
import { choice, row, slider } from "./parts/controls.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, groundedWords, segment, trace, words } from "./parts/panel.js";
import { bytesText, inShort, sumOf, timelineOf } from "./parts/step_time.js";
import STYLE from "./cost.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// cost.py has the same, and the formulas.

const STAGES = [0, 1, 2, 3];

// What a process holds in bytes: [parameters, gradients, what the optimizer keeps].
function bytesAt({ parameters, each, kept }, stage, n) {
  return [[each, 3], [each, 2], [kept, 1]].map(([bytes, from]) => (bytes * parameters) / (stage >= from ? n : 1));
}

// How many times as fast n processes are as one.
function speedupOf({ parameters, each, stage_3, stage, batch, scaling, flops, layers, ...network }, n) {
  const seconds = (2 * parameters * (scaling === "weak" ? batch : batch / n)) / flops; // of the forward pass
  const size = Math.floor((each * (stage === 3 ? stage_3 : 1) * parameters) / layers + 0.5);
  const { done, end } = timelineOf({
    ...network, sizes: Array(layers).fill(size), backward: Array(layers).fill((2 * seconds) / layers), processes: n, overlap: true
  });
  return (n * (seconds + done)) / (seconds + end);
}

// -------------------------------------------------------------------------------------- the state

const CHOSEN = ["model", "processes", "batch", "scaling", "precision", "stage", "memory", "bandwidth"];
const LIMITS = { processes: "counts", batch: "batches", memory: "memories", bandwidth: "bandwidths" };

function stateOf(model) {
  const get = (names) => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const fixed = get(["optimizer", "flops", "latency", "layers", "bucket_bytes", "stage_3"]);
  const [names, counted, perParameter, kept] = ["names", "counted", "per_parameter", "kept"].map((name) => model.get(name));
  const limits = Object.fromEntries(Object.entries(LIMITS).map(([name, trait]) => [name, model.get(trait)]));
  const counts = Array.from({ length: Math.log2(limits.processes[1]) + 1 }, (_, k) => 2 ** k);
  const { change, send } = throttledChanges(model);
  let known = { facts: "" };
  const run = () => {
    const chosen = get(CHOSEN);
    const facts = Object.values(chosen).join();
    if (known.facts === facts) return known;
    const { precision, processes: n } = chosen;
    const training = {
      ...fixed, ...chosen, parameters: counted[names.indexOf(chosen.model)], each: perParameter[precision],
      kept: kept[precision][fixed.optimizer]
    };
    known = {
      ...chosen, facts, held: STAGES.map((stage) => bytesAt(training, stage, n)),
      speedups: counts.map((count) => speedupOf(training, count)), speedup: speedupOf(training, n),
      enough: counts.find((count) => sumOf(bytesAt(training, chosen.stage, count)) <= chosen.memory)
    };
    return known;
  };
  const set = (name, value) => change({ [name]: clamp(Number(value.toPrecision(3)), ...limits[name]) });
  const setCount = (n) => change({ processes: clamp(2 ** Math.round(Math.log2(Math.max(n, 1))), ...limits.processes) });
  return { names, limits, counts, run, set, setCount, change, send };
}

// ------------------------------------------------------------------------------------- in writing

const PARTS = [["parameters", "data"], ["gradients", "model"], ["optimizer\u2019s state", "latent"]];

function tokensText(tokens) {
  const [unit, name] = [[1e6, " M"], [1e3, " k"]].find(([size]) => tokens >= size) || [1, ""];
  return `${inShort(tokens / unit)}${name} tokens`;
}

function sentenceOf({ model, processes, stage, held, memory, speedup, scaling, enough }) {
  const total = sumOf(held[stage]);
  const fits = total <= memory;
  const other = enough ? `fits from N = ${enough} on` : "fits with none of these N";
  const where = processes === 1 ? "one process" : `each of ${processes} processes`;
  const room = fits ? `fits into ${bytesText(memory)}` : `does not fit into ${bytesText(memory)} (${other})`;
  const speed = `${scaling === "weak" ? "Weak" : "Strong"} scaling: ${inShort(speedup)} times as fast as one, ` +
    `${Math.round((100 * speedup) / processes)} % of ${processes}.`;
  return `${model}, stage ${stage}: ${where} holds ${bytesText(total)}, which ${room}. ` +
    (processes === 1 ? "Others are compared with its speed." : speed);
}

// ------------------------------------------------------------------------------------ the picture

// The bars, and beside them or below the speed-up.
function stands(width) {
  const beside = width >= 520;
  const half = beside ? Math.round(0.5 * width) : width;
  const height = Math.round(clamp(0.4 * half, 130, 220));
  const bars = { x: 44, y: 24, width: half - 44 - 16, height };
  const left = (beside ? half + 4 : 0) + 52;
  const speed = { x: left, y: beside ? 24 : height + 80, width: width - left - 14, height };
  return { bars, speed, total: speed.y + height + 40 };
}

const headOf = (ctx, text, { x, y, width }, theme) =>
  words(ctx, text, x - 40, y - 12, theme.ink, `600 12px ${theme.font}`, "left", "middle", width + 40);

// How far the axis of memory reaches: to the card's, unless the bars would be nothing beside it.
function topOf({ held, memory }) {
  const most = Math.max(...held.map(sumOf));
  return 1.12 * (memory > 4 * most ? most : Math.max(most, memory));
}

function drawBars(ctx, box, found, top, theme) {
  const { held, stage, memory } = found;
  const [unit, name] = top >= 1e9 ? [1e9, "GB"] : top >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
  const pitch = box.width / STAGES.length;
  const middle = (k) => box.x + (k + 0.5) * pitch;
  const wide = Math.min(0.56 * pitch, 64);
  const up = axisOf(0, top / unit);
  const fontOf = (k) => `${k === stage ? 600 : 400} 12px ${theme.font}`;
  const map = chart(ctx, [axisOf(-0.5, 3.5), up], box, theme, (own) => {
    ctx.fillStyle = theme.fill;
    ctx.fillRect(middle(stage) - pitch / 2, box.y, pitch, box.height);
    held.forEach((parts, k) => {
      let floor = 0;
      parts.forEach((bytes, i) => {
        const [y0, y1] = [own.y(floor / unit), own.y((floor + bytes) / unit)];
        ctx.fillStyle = PALETTE[PARTS[i][1]];
        ctx.fillRect(middle(k) - wide / 2, y1, wide, y0 - y1);
        floor += bytes;
      });
    });
    ctx.strokeStyle = theme.words.error;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 3]);
    ctx.beginPath();
    if (memory <= top) segment(ctx, box.x, own.y(memory / unit), box.x + box.width, own.y(memory / unit));
    ctx.stroke();
    ctx.setLineDash([]);
    held.map(sumOf).forEach((total, k) => {
      const [number, y] = [inShort(total / unit), Math.max(own.y(total / unit) - 8, box.y + 8)];
      if (memory <= top && Math.abs(own.y(memory / unit) - y) < 9) { // the line makes room for it
        ctx.font = fontOf(k);
        groundedWords(ctx, number, middle(k) - ctx.measureText(number).width / 2, y, theme.ink, fontOf(k), theme);
      } else words(ctx, number, middle(k), y, theme.ink, fontOf(k), "center");
    });
  }, { foot: false });
  const y = memory > top ? box.y : map.y(memory / unit);
  const text = `${memory > top ? "\u2191 " : ""}card: ${bytesText(memory)}`;
  words(ctx, text, box.x + box.width - (memory > top ? 16 : 0), box.y - 12, theme.words.error, `12px ${theme.font}`, "right");
  STAGES.forEach((k) => words(
    ctx, `stage ${k}`, middle(k), box.y + box.height + 12, k === stage ? theme.ink : theme.muted, fontOf(k), "center", "middle", pitch));
  headOf(ctx, `${name} in each process`, box, theme);
  return {
    y, valueAt: (place) => up.value(1 - (place - box.y) / box.height) * unit,
    stageAt: (place) => clamp(Math.floor((place - box.x) / pitch), 0, 3)
  };
}

function drawSpeedup(ctx, box, { counts }, { speedups, processes, speedup, scaling }, theme) {
  const most = counts.at(-1);
  const across = axisOf(0.8, 1.25 * most, true);
  const up = axisOf(Math.min(0.8, 0.8 * Math.min(...speedups)), 1.25 * most, true);
  const map = chart(ctx, [across, up], box, theme, (own) => {
    ctx.lineJoin = "round";
    for (const [values, colour, dash, line] of [[counts, theme.muted, [4, 3], 1.5], [speedups, theme.words.model, [], 2.5]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = line;
      ctx.setLineDash(dash);
      trace(ctx, counts.map((count, i) => [own.x(count), own.y(values[i])]));
      ctx.stroke();
    }
    ctx.setLineDash([]);
  });
  headOf(ctx, `speed-up, ${scaling} scaling (dashed: N)`, box, theme);
  axisNames(ctx, box, "processes N", "", 0, theme);
  return { point: [map.x(processes), map.y(speedup)], countAt: (place) => across.value((place - box.x) / box.width) };
}

const KEY = [
  ...PARTS.map(([name, role]) => [`<rect x="3" y="2" width="16" height="10" fill="${PALETTE[role]}"/>`, name]),
  [`<path d="M0 7h22" stroke="var(--cw-error-words)" stroke-width="1.5" stroke-dasharray="5 3"/>`, "memory of a card"]
];

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { names, limits, run, set, setCount, change, send } = state;
  const said = element("p", { class: "cw-status cost-said", role: "status" });
  let [at, bars, speed] = [null, null, null]; // as last laid out and drawn
  let top = 0; // of the axis of memory, which stays while the card's is dragged

  const draw = (ctx, _, theme) => {
    const found = run();
    if (!memoryGrip.held) top = topOf(found);
    bars = drawBars(ctx, at.bars, found, top, theme);
    speed = drawSpeedup(ctx, at.speed, state, found, theme);
    memoryGrip.stand(at.bars.x + at.bars.width, bars.y, found.memory / 1e9, bytesText(found.memory));
    countGrip.stand(...speed.point, found.processes, `${found.processes} processes, ${inShort(found.speedup)} times as fast`);
    say(said, sentenceOf(found));
  };
  const longestName = names.reduce((one, other) => (other.length > one.length ? other : one));
  const layout = (width) => {
    at = stands(width);
    keepRoom(said, `${longestName}, stage 0: each of 1024 processes holds 12.3 GB, which does not fit into 12.3 GB (fits with none of these ` +
      "N). Strong scaling: 1024 times as fast as one, 100 % of 1024.");
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 820, style: STYLE, name: "cost" });
  const memoryGrip = handle(view, "Memory of a card, on the plot", {
    shape: "diamond cost-memory", colour: PALETTE.error, range: limits.memory.map((bytes) => bytes / 1e9), end: () => {
      send();
      view.redraw();
    },
    start: ([, y]) => {
      const off = bars.y - y;
      return ([, toY]) => set("memory", Math.max(bars.valueAt(toY + off), 1));
    }
  });
  memoryGrip.node.setAttribute("aria-orientation", "vertical");
  const countGrip = handle(view, "Number of processes", {
    shape: "round cost-count", colour: PALETTE.model, range: limits.processes, end: send,
    start: ([x]) => {
      const off = speed.point[0] - x;
      return ([toX]) => setCount(speed.countAt(toX + off));
    }
  });
  // A click on a bar chooses its stage.
  const over = ([x, y]) => x >= at.bars.x && x <= at.bars.x + at.bars.width && y >= at.bars.y && y <= at.bars.y + at.bars.height + 22;
  drag(view.canvas, {
    focus: view.root, end: send,
    start: (place) => {
      if (!over(place)) return null;
      const move = ([x]) => change({ stage: bars.stageAt(x) });
      move(place);
      return move;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "pointer" : "")
  });

  const slide = (name, label, title, text, options = {}) => slider(view, name, label, {
    min: limits[name][0], max: limits[name][1], log: true, text, change, title, ...options
  });
  const all = (options) => options.map((name) => [name, name]);
  const scalings = [["weak", "weak", "The batch is that of each process"], ["strong", "strong", "The batch is shared by all processes"]];
  view.controls.before(said);
  view.controls.append(
    row(
      choice(view, "model", "model", all(names)),
      choice(view, "stage", "ZeRO stage", STAGES.map((stage) => [stage, String(stage)]))),
    row(
      slide("processes", "processes N", "How many processes there are", String, { step: Math.log10(2), round: Math.round }),
      slide("batch", "batch", "Tokens in a step", tokensText)),
    row(
      slide("memory", "memory", "Memory of a card", bytesText),
      slide("bandwidth", "bandwidth", "Bandwidth of each link", (value) => `${bytesText(value)}/s`)),
    row(
      choice(view, "scaling", "scaling", scalings),
      choice(view, "precision", "precision", all(model.get("precisions")))));
  view.controls.after(
    legend(KEY), hint(
      "Drag the diamond, a card\u2019s memory, or the dot along the speed-up; click a bar to choose its stage. Activations come on top of the " +
      "bars. Keys: \u2190 \u2192 processes, \u2191 \u2193 stage."));

  const countBy = (factor) => () => setCount(run().processes * factor);
  const stageBy = (by) => () => change({ stage: clamp(run().stage + by, 0, 3) });
  onKeys(view, { ArrowLeft: countBy(0.5), ArrowRight: countBy(2), ArrowUp: stageBy(1), ArrowDown: stageBy(-1) });
  const memoryBy = (power) => (event) => set("memory", run().memory * 10 ** ((event.shiftKey ? 0.01 : 0.05) * power));
  onKeys(view, { ArrowUp: memoryBy(1), ArrowRight: memoryBy(1), ArrowDown: memoryBy(-1), ArrowLeft: memoryBy(-1) }, memoryGrip.node);
  view.follow(CHOSEN, view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

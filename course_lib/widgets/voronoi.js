// Voronoi: a codebook while it trains, and one encoder output that is pulled through its cells.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { button, row, slider } from "./parts/controls.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { arrow, backdrop, clamp, dot, groundedWords, panel, segment, trace } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./voronoi.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// voronoi.py has the same. Points and codes are flat lists x, y, x, y, ...

// The index of the code nearest to a place; of equally near ones the first.
function nearestCode(x, y, codes) {
  let [best, least] = [0, Infinity];
  for (let k = 0; 2 * k < codes.length; k++) {
    const distance = (codes[2 * k] - x) ** 2 + (codes[2 * k + 1] - y) ** 2;
    if (distance < least) [best, least] = [k, distance];
  }
  return best;
}

// How many points each code has.
function countsOf(points, codes) {
  const counts = new Array(codes.length / 2).fill(0);
  for (let i = 0; i < points.length; i += 2) counts[nearestCode(points[i], points[i + 1], codes)]++;
  return counts;
}

// How many codes are in use, in effect: exp of the entropy of the counts.
function perplexityOf(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  const entropy = counts.reduce((sum, n) => (n ? sum - (n / total) * Math.log(n / total) : sum), 0);
  return Math.exp(entropy);
}

// The part of a convex polygon where a x + b y <= bound.
function clipped(cell, a, b, bound) {
  const over = cell.map(([x, y]) => a * x + b * y - bound);
  const kept = [];
  cell.forEach(([x, y], i) => {
    const j = (i + 1) % cell.length;
    if (over[i] <= 0) kept.push([x, y]);
    if (over[i] * over[j] < 0) {
      const share = over[i] / (over[i] - over[j]);
      kept.push([x + (cell[j][0] - x) * share, y + (cell[j][1] - y) * share]);
    }
  });
  return kept;
}

// The region of each code, cut out of the box: a polygon each, empty where nothing is nearest to it.
function cellsOf(codes, [x0, x1, y0, y1]) {
  const cells = [];
  for (let k = 0; 2 * k < codes.length; k++) {
    const [x, y] = [codes[2 * k], codes[2 * k + 1]];
    let cell = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
    for (let j = 0; 2 * j < codes.length && cell.length; j++) {
      const [u, v] = [codes[2 * j], codes[2 * j + 1]];
      if (j === k) continue;
      if (u === x && v === y) cell = j < k ? [] : cell; // of two at one place the first has it
      else cell = clipped(cell, u - x, v - y, (u * u + v * v - x * x - y * y) / 2);
    }
    cells.push(cell);
  }
  return cells;
}

// What pulls at z_e, both as steps downhill: the decoder's gradient, which belongs to the code but
// is handed on as it is, and the commitment loss β ‖z_e - e_k‖².
function pullsOn([x, y], code, target, beta) {
  return {
    copied: [target[0] - code[0], target[1] - code[1]],
    commitment: [2 * beta * (code[0] - x), 2 * beta * (code[1] - y)]
  };
}

const STEP_SIZE = 0.1;

function stepped(z, code, target, beta) {
  const { copied, commitment } = pullsOn(z, code, target, beta);
  return z.map((value, i) => value + STEP_SIZE * (copied[i] + commitment[i]));
}

// --------------------------------------------------------------------------------------- the look

// The key: a small picture and its meaning.
const ARROW = "M1 7h14M15 3l6 4-6 4z";
const KEY = [
  [`<circle cx="11" cy="7" r="3" fill="${PALETTE.latent}"/>`, "encoder output"],
  [`<circle cx="11" cy="7" r="5" fill="${PALETTE.model}"/>`, "code"],
  [`<path d="M6 2l10 10M16 2L6 12" stroke="${PALETTE.error}" stroke-width="3"/>`, "dead code"],
  [`<path d="${ARROW}" stroke="${PALETTE.data}" fill="${PALETTE.data}" stroke-width="2.5"/>`,
    "decoder\u2019s gradient (downhill), and its copy"],
  [`<path d="${ARROW}" stroke="${PALETTE.latent}" fill="${PALETTE.latent}" stroke-width="2.5"/>`, "commitment"]
];

const SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089";
const nameOf = (k) => `e${String(k).replace(/\d/g, (digit) => SUBSCRIPTS[digit])}`;

// A sheet of what the points look like, side by side: a dot, or the marks. Copying is cheaper than
// drawing a circle or a letter.
function pointSheet(marks, count, ratio, theme) {
  const kinds = marks.length ? [...new Set(marks)] : [""];
  const radius = clamp(Math.sqrt(2500 / count), 1.8, 3.5);
  const cell = Math.ceil((marks.length ? 18 : 2 * radius + 2) * ratio);
  const sheet = document.createElement("canvas");
  sheet.width = cell * kinds.length;
  sheet.height = cell;
  const ctx = sheet.getContext("2d");
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.font = `600 ${(count > 250 ? 9 : 11) * ratio}px ${theme.font}`;
  kinds.forEach((kind, i) => {
    const [x, y] = [(i + 0.5) * cell, cell / 2];
    ctx.fillStyle = marks.length ? theme.words.latent : PALETTE.latent;
    if (marks.length) {
      ctx.fillText(kind, x, y, cell);
      return;
    }
    dot(ctx, x, y, radius * ratio, ctx.fillStyle, theme.rim, 0.6 * ratio);
  });
  const columns = marks.map((mark) => kinds.indexOf(mark) * cell);
  return { sheet, cell, columnOf: (i) => columns[i] || 0 };
}

function drawCross(ctx, x, y, arm, theme) {
  ctx.beginPath();
  segment(ctx, x - arm, y - arm, x + arm, y + arm);
  segment(ctx, x + arm, y - arm, x - arm, y + arm);
  for (const [colour, width] of [[theme.plot, 6], [PALETTE.error, 3]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  }
}

// What is written below the picture.
function sentence(k, distance, loss, more) {
  return `z\u2091 is nearest to ${nameOf(k)}: \u2016z\u2091 \u2212 ${nameOf(k)}\u2016\u00b2 = ${distance.toFixed(2)}. ` +
    `The decoder gets z_q = ${nameOf(k)}; its loss is \u00bd\u2016target \u2212 z_q\u2016\u00b2 = ${loss.toFixed(2)}. ${more}`;
}

function crossing(from, to, before, after) {
  return `z\u2091 crossed a border: the output jumps from ${nameOf(from)} to ${nameOf(to)}, ` +
    `the loss from ${before.toFixed(2)} to ${after.toFixed(2)}.`;
}

const bounded = ([x, y], [x0, x1, y0, y1]) => [clamp(x, x0, x1), clamp(y, y0, y1)];
const squared = ([a, b], [c, d]) => (a - c) ** 2 + (b - d) ** 2;
const same = (a, b) => a[0] === b[0] && a[1] === b[1];

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const { codebooks, points } = unpack(model);
  const extent = model.get("extent");
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const codes = new Float32Array(2 * codebooks.shape[1]);
  const outputs = new Float32Array(2 * points.shape[1]);
  // `trail`: where "Step" has led, from the last drag on. `event`: what the last step has changed.
  const state = { extent, clock, codes, outputs, change, send, trail: [], event: null };

  // Codes, points, use and cells follow from the step alone: dragging a handle computes none of them.
  let scene = null;
  state.current = () => {
    const step = clock.shown();
    if (scene?.step === step) return scene;
    atStep(codebooks, step, codes);
    atStep(points, step, outputs);
    const counts = countsOf(outputs, codes);
    scene = { step, counts, cells: cellsOf(codes, extent), perplexity: perplexityOf(counts) };
    return scene;
  };
  // What the handles make of it.
  state.chosen = () => {
    state.current();
    const [z, target, beta] = ["z", "target", "beta"].map((name) => model.get(name));
    const k = nearestCode(z[0], z[1], codes);
    const code = [codes[2 * k], codes[2 * k + 1]];
    return { z, target, beta, k, code, loss: squared(target, code) / 2 };
  };
  state.move = (name, place) => change({ [name]: bounded(place, extent) });
  state.takeStep = () => {
    const before = state.chosen();
    const z = bounded(stepped(before.z, before.code, before.target, before.beta), extent);
    const { trail } = state;
    state.trail = trail.length && same(trail.at(-1), before.z) ? [...trail, z] : [before.z, z];
    change({ z });
    const after = state.chosen();
    const moved = Math.sqrt(squared(z, before.z)).toFixed(2);
    state.event = { z, step: clock.shown(), target: before.target, text: after.k === before.k
      ? `z\u2091 moved by ${moved} and stays in its cell: the output and the loss are what they were.`
      : crossing(before.k, after.k, before.loss, after.loss) };
  };
  // The sentence below the picture.
  state.sentence = ({ z, target, k, code, loss }) => {
    const { event } = state;
    const fresh = event && same(event.z, z) && same(event.target, target) && event.step === clock.shown();
    return sentence(k, squared(z, code), loss, fresh ? event.text : "Its gradient is handed to z\u2091 as it is.");
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

function outlineOf(ctx, map, cell) {
  trace(ctx, cell.map(([x, y]) => [map.x(x), map.y(y)]));
  ctx.closePath();
}

function drawCells(ctx, map, { cells, counts }, theme) {
  const most = Math.max(...counts);
  ctx.lineWidth = 1;
  ctx.lineJoin = "round";
  cells.forEach((cell, k) => {
    outlineOf(ctx, map, cell);
    ctx.globalAlpha = 0.5 * Math.sqrt(counts[k] / most);
    ctx.fillStyle = PALETTE.model;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = theme.dark ? "#6d747d" : "#9aa1aa";
    ctx.stroke();
  });
}

function drawCode(ctx, map, codes, k, used, radius, rim, theme) {
  const [x, y] = [map.x(codes[2 * k]), map.y(codes[2 * k + 1])];
  if (used) dot(ctx, x, y, radius, PALETTE.model, rim, radius / 3);
  else drawCross(ctx, x, y, radius, theme);
}

// Cells, points and codes as a picture, which a drag leaves as it is.
function backdropOf({ codes, outputs }, marks) {
  const drawOnce = backdrop();
  const count = outputs.length / 2;
  let sheetFor = "";
  let dots = null;
  const drawPoints = (ctx, map, ratio, theme) => {
    if (sheetFor !== `${ratio} ${theme.dark}`) dots = pointSheet(marks, count, ratio, theme);
    sheetFor = `${ratio} ${theme.dark}`;
    const { sheet, cell, columnOf } = dots;
    const side = cell / ratio;
    for (let i = 0; i < count; i++) {
      const [x, y] = [map.x(outputs[2 * i]) - side / 2, map.y(outputs[2 * i + 1]) - side / 2];
      ctx.drawImage(sheet, columnOf(i), 0, cell, cell, x, y, side, side);
    }
  };
  return (ctx, map, seen, ratio, theme) => drawOnce(ctx, ratio, [seen.step, theme.dark], (own) => {
    drawCells(own, map, seen, theme);
    drawPoints(own, map, ratio, theme);
    const radius = codes.length > 64 ? 4 : 5;
    seen.counts.forEach((used, k) => drawCode(own, map, codes, k, used, radius, theme.plot, theme));
  });
}

function drawTrail(ctx, map, trail, z) {
  if (!trail.length || !same(trail.at(-1), z)) return;
  const places = trail.map(([x, y]) => [map.x(x), map.y(y)]);
  ctx.strokeStyle = PALETTE.latent;
  ctx.lineWidth = 1.5;
  trace(ctx, places);
  ctx.stroke();
  for (const [x, y] of places.slice(0, -1)) dot(ctx, x, y, 3, PALETTE.latent, PALETTE.latent, 0.1);
}

function drawPulls(ctx, map, { z, target, beta, k, code }, box, theme) {
  const at = ([x, y]) => [map.x(x), map.y(y)];
  const plus = (a, b) => at([a[0] + b[0], a[1] + b[1]]);
  const name = (text, x, y) => groundedWords(ctx, text, x + 4, y, theme.ink, `600 12px ${theme.font}`, theme, { box });
  const { copied, commitment } = pullsOn(z, code, target, beta);
  const [here, there] = [at(z), at(code)];
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1.5;
  ctx.setLineDash([4, 4]);
  trace(ctx, [here, there]);
  ctx.stroke();
  ctx.setLineDash([]);
  arrow(ctx, here, plus(z, commitment), PALETTE.latent, theme);
  arrow(ctx, there, at(target), PALETTE.data, theme);
  arrow(ctx, here, plus(z, copied), PALETTE.data, theme);
  const apart = Math.hypot(here[0] - there[0], here[1] - there[1]);
  if (apart > 60) {
    // Beside the line, on the side that the gradient does not go to.
    const [nx, ny] = [(there[1] - here[1]) / apart, (here[0] - there[0]) / apart];
    const off = Math.sign(copied[0] * nx - copied[1] * ny) > 0 ? -20 : 20;
    const [x, y] = [(here[0] + there[0]) / 2 + off * nx, (here[1] + there[1]) / 2 + off * ny];
    name(squared(z, code).toFixed(2), x - 16, y);
  }
  // Each name on the side that no line goes to.
  const left = here[0] < there[0];
  name("z\u2091", here[0] + (left ? -36 : 14), here[1] - 14);
  name(nameOf(k), there[0] + (left ? 10 : -38), there[1] - 14);
  name("target", at(target)[0] + 14, at(target)[1] + 16);
}

// How many codes are in use, written where that changes.
function usageLine(size) {
  const node = element("div", { class: "vq-usage" });
  let written = "";
  const write = ({ counts, perplexity }) => {
    const dead = counts.filter((n) => !n).length;
    const key = `${size - dead} ${perplexity.toFixed(1)}`;
    if (key === written) return;
    written = key;
    node.replaceChildren(
      element("b", {}, `${size - dead} of ${size}`), " codes in use",
      ...(dead ? [", ", element("span", { class: "vq-dead" }, `${dead} dead`)] : []),
      "; perplexity ", element("b", { class: "vq-perplexity" }, perplexity.toFixed(1))
    );
  };
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { extent, codes, change, send } = state;
  const drawBackdrop = backdropOf(state, model.get("marks"));
  const usage = usageLine(codes.length / 2);
  const said = element("p", { class: "vq-said" });

  const boxFor = (width) => {
    const inner = width - 36 - 10;
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    return { x: 36, y: 4, width: inner, height: Math.round(inner * clamp(shape, 0.3, 1.4)) };
  };
  let map = null; // as last drawn
  const draw = (ctx, { width, ratio }, theme) => {
    const [seen, picked, box] = [state.current(), state.chosen(), boxFor(width)];
    map = panel(ctx, extent, box, theme, (to) => {
      drawBackdrop(ctx, to, seen, ratio, theme);
      // The cell and the code that z_e has.
      outlineOf(ctx, to, seen.cells[picked.k]);
      ctx.strokeStyle = theme.ink;
      ctx.lineWidth = 2.5;
      ctx.stroke();
      drawCode(ctx, to, codes, picked.k, seen.counts[picked.k], 7.5, theme.ink, theme);
      drawTrail(ctx, to, state.trail, picked.z);
      drawPulls(ctx, to, picked, box, theme);
    });
    for (const [name, { stand }] of Object.entries(handles)) {
      const [x, y] = picked[name];
      const more = name === "z" ? `, nearest code ${picked.k}` : "";
      stand(map.x(x), map.y(y), x, `x ${x.toFixed(2)}, y ${y.toFixed(2)}${more}`);
    }
    usage.write(seen);
    say(said, state.sentence(picked));
  };
  const layout = (width) => {
    keepRoom(said, sentence(10, 99.99, 99.99, crossing(10, 10, 99.99, 99.99)));
    const box = boxFor(width);
    return box.y + box.height + 24;
  };
  const view = outline({ model, el, layout, draw, style: STYLE });

  const handleOf = (name, label, options) => handle(view, label, {
    ...options, range: extent, end: send,
    start: ([x, y]) => {
      const [fromX, fromY] = model.get(name);
      return ([toX, toY]) => {
        const [[ax, ay], [bx, by]] = [map.toPlane(x, y), map.toPlane(toX, toY)];
        state.move(name, [fromX + bx - ax, fromY + by - ay]);
      };
    }
  });
  const handles = {
    target: handleOf("target", "Target of the decoder", { shape: "diamond vq-target", colour: PALETTE.data }),
    z: handleOf("z", "Encoder output z", { shape: "vq-z", colour: PALETTE.latent })
  };
  const takeStep = () => {
    state.takeStep();
    view.redraw();
  };
  for (const [name, { node }] of Object.entries(handles)) {
    const nudge = (right, up) => (pressed) => {
      const unit = (extent[1] - extent[0]) / (pressed.shiftKey ? 800 : 100);
      const [x, y] = model.get(name);
      state.move(name, [x + unit * right, y + unit * up]);
    };
    onKeys(view, {
      ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1), ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0),
      ...(name === "z" ? { Enter: takeStep } : {})
    }, node);
  }

  const reset = () => {
    const [z, target, beta] = model.get("start");
    change({ z, target, beta });
  };
  view.controls.before(usage.node);
  view.root.append(
    said,
    row(
      button("Step z\u2091", takeStep, { title: "Move z along the copied gradient and the pull of the commitment loss" }),
      slider(view, "beta", "commitment \u03b2", {
        step: 0.05, title: "Weight \u03b2 of the commitment loss", text: (beta) => beta.toFixed(2), change
      }),
      button("Reset", reset, { title: "Bring back z, the target and \u03b2", class: "cw-quiet" })
    ),
    legend(KEY),
    hint("Drag z\u2091 and the target, or go there with Tab and use the arrow keys (with Shift: finer); " +
      "Enter on z\u2091 is a step. Space plays; \u2190 \u2192 on the bar go through the training."));
  playerBar(view, model);
  if (state.clock.last() === 0) view.controls.style.display = "none"; // one codebook plays no film
  view.follow(["z", "target", "beta"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

// CrossingLines: pairs of noise and data on straight lines, and the average arrow where they cross.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { choice, row } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { averageOf, pairsBetween, sharesAt, wayThrough } from "./parts/pairs.js";
import { arrow, axisNames, clamp, panel, segment, trace } from "./parts/panel.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./crossing_lines.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics

// The pairs of a coupling.
function pairsOf(noise, data, order) {
  const dims = noise.shape[1];
  const at = ({ values }, i) => Array.from(values.subarray(i * dims, (i + 1) * dims));
  return pairsBetween(order.map((k) => at(data, k)), order.map((_, i) => at(noise, i)));
}

const lengthOf = (vector) => Math.hypot(...vector);
const totalLength = ({ by }) => by.reduce((sum, vector) => sum + lengthOf(vector), 0);

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const { noise, data } = unpack(model);
  const [names, orders, width, extent] = ["names", "orders", "width", "extent"].map((name) => model.get(name));
  const { change, send } = throttledChanges(model);
  const couplings = orders.map((order) => pairsOf(noise, data, order));
  const lengths = couplings.map(totalLength);
  const inTime = noise.shape[1] === 1; // numbers: time runs to the right
  const pairs = () => couplings[names.indexOf(model.get("coupling"))];
  let known = {};
  // What there is at the place and a time: who passes, their average, and its way.
  const at = (t) => {
    const [place, coupling] = [model.get("place"), model.get("coupling")];
    if (known.place === place && known.coupling === coupling && known.t === t) return known;
    const shares = sharesAt(pairs(), place, t, width);
    known = { place, coupling, t, shares, velocity: averageOf(pairs(), shares), way: wayThrough(pairs(), place, t, width) };
    return known;
  };
  // To where it is on the plot, and how an arrow along the velocity v goes there: towards the data.
  const onPlot = (t, x) => (inTime ? [t, x[0]] : x);
  const forward = (v) => (inTime ? [-0.2, -0.2 * v[0]] : v.map((value) => -0.35 * value));
  const moveTo = (x) => {
    const [low, high] = [extent[2], extent[3]];
    change({ place: inTime ? [clamp(x[0], low, high)] : [clamp(x[0], extent[0], extent[1]), clamp(x[1], low, high)] });
  };
  return { names, lengths, inTime, extent, pairs, at, onPlot, forward, moveTo, change, send };
}

// ------------------------------------------------------------------------------------ the picture

function boxFor({ inTime }, width) {
  const inner = width - 46;
  const height = Math.round(inTime ? clamp(0.62 * inner, 200, 340) : inner);
  return { x: 36, y: 6, width: inner, height };
}

const total = (box, inTime) => box.height + (inTime ? 48 : 30);

// All lines, those that pass here stronger.
function drawLines(ctx, { pairs, onPlot }, shares, spot, theme) {
  const { data, by } = pairs();
  const most = Math.max(...shares);
  const ends = data.map((x, i) => [spot(...onPlot(0, x)), spot(...onPlot(1, x.map((value, d) => value + by[i][d])))]);
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.globalAlpha = 0.28;
  ctx.beginPath();
  for (const [start, end] of ends) segment(ctx, ...start, ...end);
  ctx.stroke();
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1.5;
  ends.forEach(([start, end], i) => {
    if (shares[i] < 0.04 * most) return;
    ctx.globalAlpha = shares[i] / most;
    ctx.beginPath();
    segment(ctx, ...start, ...end);
    ctx.stroke();
  });
  ctx.globalAlpha = 1;
  const radius = clamp(Math.sqrt(700 / data.length), 1.8, 4);
  for (const [which, colour] of [[0, PALETTE.data], [1, PALETTE.noise]]) dots(ctx, ends.map((pair) => pair[which]), radius, colour);
}

function dots(ctx, places, radius, colour) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  for (const [x, y] of places) {
    ctx.moveTo(x + radius, y);
    ctx.arc(x, y, radius, 0, 2 * Math.PI);
  }
  ctx.fill();
}

// The pairs where they are now: on their lines.
function drawNow(ctx, { pairs, onPlot }, t, spot, theme) {
  const { data, by } = pairs();
  const places = data.map((x, i) => spot(...onPlot(t, x.map((value, d) => value + t * by[i][d]))));
  const radius = clamp(Math.sqrt(350 / data.length), 1.5, 3);
  dots(ctx, places, radius + 1, theme.plot);
  dots(ctx, places, radius, theme.ink);
}

function drawArrows(ctx, { pairs, onPlot, forward }, { place, t, shares, velocity, way }, spot, theme) {
  trace(ctx, way.map(([time, ...x]) => spot(...onPlot(time, x))));
  ctx.lineJoin = ctx.lineCap = "round";
  for (const [colour, line] of [[theme.plot, 5], [PALETTE.model, 2.2]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.stroke();
  }
  const here = onPlot(t, place);
  const tip = (v) => spot(...forward(v).map((value, d) => here[d] + value));
  const most = Math.max(...shares);
  pairs().by.forEach((v, i) => {
    if (shares[i] < 0.04 * most) return;
    ctx.globalAlpha = Math.sqrt(shares[i] / most);
    arrow(ctx, spot(...here), tip(v), theme.words.latent, theme, { line: 1.4, most: 8 });
  });
  ctx.globalAlpha = 1;
  arrow(ctx, spot(...here), tip(velocity), PALETTE.model, theme, { line: 4, most: 14 });
}

function drawPicture(ctx, box, state, now, theme) {
  const { inTime, extent } = state;
  const map = panel(ctx, extent, box, theme, (own) => {
    const spot = (x, y) => [own.x(x), own.y(y)];
    if (inTime) {
      ctx.strokeStyle = theme.accent;
      ctx.lineWidth = 1.2;
      ctx.beginPath();
      segment(ctx, own.x(now.t), box.y, own.x(now.t), box.y + box.height);
      ctx.stroke();
    }
    drawLines(ctx, state, now.shares, spot, theme);
    drawNow(ctx, state, now.t, spot, theme);
    drawArrows(ctx, state, now, spot, theme);
  });
  if (inTime) axisNames(ctx, box, "t", "", 12, theme);
  return map;
}

const LINE = "M1 7h14M15 3l6 4-6 4z";
const arrowSign = (colour, width) => `<path d="${LINE}" stroke="${colour}" fill="${colour}" stroke-width="${width}"/>`;
const KEY = [
  [`<circle cx="11" cy="7" r="4" fill="${PALETTE.noise}"/>`, "noise"],
  [`<circle cx="11" cy="7" r="4" fill="${PALETTE.data}"/>`, "data"],
  ['<circle cx="11" cy="7" r="3" fill="var(--cw-ink)"/>', "pairs at t"],
  [arrowSign("var(--cw-latent-words)", 1.4), "pairs that pass here"],
  [arrowSign(PALETTE.model, 3), "their average, and its way"]
];

// What is counted, above the picture.
function saidLine({ names, lengths }) {
  const [passing, alone, average] = [0, 1, 2].map(() => element("b"));
  const totals = names.map((name, i) => element("span", {}, `${name} ${tidy(Number(lengths[i].toPrecision(3)))}`));
  const node = element("p", { class: "crossing-said" },
    element("span", { class: "crossing-total" }, "total length: ", ...totals),
    element("span", {}, "passing here ", passing),
    element("span", {}, "length of their arrows ", alone),
    element("span", {}, "of the average ", average));
  const write = ({ coupling, shares, velocity }, { by }) => {
    totals.forEach((one, i) => one.classList.toggle("chosen", names[i] === coupling));
    say(passing, (1 / shares.reduce((sum, share) => sum + share * share, 0)).toFixed(1));
    say(alone, shares.reduce((sum, share, i) => sum + share * lengthOf(by[i]), 0).toFixed(2));
    say(average, lengthOf(velocity).toFixed(2));
  };
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

const inWords = (x) => `(${x.map((value) => value.toFixed(2).replace("-", "\u2212")).join(", ")})`;

function render({ model, el }) {
  const state = stateOf(model);
  const { inTime, extent, names, pairs, onPlot, moveTo, change, send } = state;
  const said = saidLine(state);
  let map = null; // as last drawn
  const last = model.get("n_steps") - 1;
  const time = () => 1 - clock.shown() / last;

  const draw = (ctx, { width }, theme) => {
    const now = state.at(time());
    map = drawPicture(ctx, boxFor(state, width), state, now, theme);
    const [x, y] = onPlot(now.t, now.place);
    grip.stand(map.x(x), map.y(y), now.place[0], inWords(now.place));
    said.write(now, pairs());
  };
  const layout = (width) => total(boxFor(state, width), inTime);
  const view = outline({ model, el, layout, draw, style: STYLE, name: "crossing" });
  const clock = playerBar(view, model);
  view.header.after(said.node);

  // Over time the place is dragged through time, too.
  const goTo = ([x, y]) => {
    if (!inTime) return moveTo([x, y]);
    clock.seek(last * (1 - clamp(x, 0, 1)));
    return moveTo([y]);
  };
  const grip = handle(view, "Place of the arrows", {
    shape: "round crossing-place", colour: PALETTE.model, range: extent.slice(inTime ? 2 : 0, inTime ? 4 : 2), end: send,
    start: ([x, y]) => {
      const spot = onPlot(time(), model.get("place"));
      const [left, top] = [map.x(spot[0]) - x, map.y(spot[1]) - y];
      return ([toX, toY]) => goTo(map.toPlane(toX + left, toY + top));
    }
  });
  const within = ([x, y]) => x >= extent[0] && x <= extent[1] && y >= extent[2] && y <= extent[3];
  drag(view.canvas, {
    focus: () => grip.node, end: send,
    start: (at) => {
      if (!within(map.toPlane(...at))) return null;
      const move = (to) => goTo(map.toPlane(...to));
      move(at);
      return move;
    }
  });
  const nudge = (right, up) => (event) => {
    const by = ((extent[3] - extent[2]) * (event.shiftKey ? 1 : 5)) / 250;
    const place = model.get("place");
    if (!inTime) moveTo([place[0] + by * right, place[1] + by * up]);
    else if (up) moveTo([place[0] + by * up]);
    else clock.seek(clock.shown() - right);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  }, grip.node);

  view.controls.after(
    row(choice(view, "coupling", "coupling", names.map((name) => [name, name, `The ${name} coupling`]), { change })),
    legend(KEY),
    hint(
      `Drag the orange place to where lines cross${inTime ? "" : " at the same time t"}: there the average arrow is shorter than ` +
      "theirs, and its way bends. Arrows point from noise to data. Keys: arrows move the place (Shift: finer); space plays."));
  view.follow(["place", "coupling"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

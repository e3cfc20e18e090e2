// Uncross: pairs of points to move, and the flow of their mean velocity that makes new pairs of them.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, row, slider } from "./parts/controls.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say, spoken } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { pairsBetween, wayThrough } from "./parts/pairs.js";
import { clamp, dot, panel, segment, trace } from "./parts/panel.js";
import { playerBar } from "./parts/player.js";
import { perModel } from "./parts/shared.js";
import STYLE from "./uncross.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// uncross.py has the same, and says what is counted.

// The places where two pairs meet: at one time nearer than `width`, and farther apart at both ends.
function meetingPlaces({ data, by }, width) {
  const found = [];
  for (let i = 0; i < data.length; i++) {
    for (let j = i + 1; j < data.length; j++) {
      const start = data[i].map((value, d) => value - data[j][d]);
      const apart = by[i].map((value, d) => value - by[j][d]);
      const speed = apart[0] ** 2 + apart[1] ** 2;
      const t = speed > 0 ? -(start[0] * apart[0] + start[1] * apart[1]) / speed : 0;
      const distance = (time) => Math.hypot(start[0] + time * apart[0], start[1] + time * apart[1]);
      if (!(t > 0 && t < 1 && distance(t) < width && Math.min(distance(0), distance(1)) >= width)) continue;
      found.push([0, 1].map((d) => (data[i][d] + data[j][d] + t * (by[i][d] + by[j][d])) / 2));
    }
  }
  return found;
}

// How many of the lines cross in the picture, at whatever times.
function countCrossings({ data, by }) {
  const side = (i, [x, y]) => by[i][0] * (y - data[i][1]) - by[i][1] * (x - data[i][0]);
  const end = (i) => data[i].map((value, d) => value + by[i][d]);
  const cuts = (i, j) => side(i, data[j]) * side(i, end(j)) < 0;
  let count = 0;
  for (let i = 0; i < data.length; i++) {
    for (let j = i + 1; j < data.length; j++) count += cuts(i, j) && cuts(j, i);
  }
  return count;
}

const costOf = ({ by }) => by.reduce((sum, [u, v]) => sum + u * u + v * v, 0) / by.length;

// How far ways [t, x, y] are from straight ones, on average: 0 for straight ones at one speed.
function straightnessOf(ways) {
  let sum = 0;
  for (const way of ways) {
    const last = way.length - 1;
    for (let k = 0; k < last; k++) {
      for (const d of [1, 2]) sum += ((way[k + 1][d] - way[k][d]) * last - (way[last][d] - way[0][d])) ** 2 / last;
    }
  }
  return sum / ways.length;
}

// Pairs, what is counted of them, and the ways of their flow. `straightness` is that of the flow that
// made them.
function levelOf(x0, x1, width, steps, straightness = null) {
  const pairs = pairsBetween(x0, x1);
  const ways = x1.map((x) => wayThrough(pairs, x, 1, width, steps));
  const places = meetingPlaces(pairs, width);
  const counts = { meetings: places.length, crossings: countCrossings(pairs), cost: costOf(pairs), straightness };
  return { pairs, ways, places, counts };
}

// The pairs that the flow of a level makes, as a level.
const nextLevel = ({ ways }, x1, width, steps) =>
  levelOf(ways.map(([[, x, y]]) => [x, y]), x1, width, steps, straightnessOf(ways));

// -------------------------------------------------------------------------------------- the state

// What the views of a model share: what can be taken back.
const memoryOf = perModel(() => ({ past: [], last: "" }));

function stateOf(model) {
  const [extent, mostK, steps] = ["extent", "most_k", "n_steps"].map((name) => model.get(name));
  const memory = memoryOf(model);
  const { change, send } = throttledChanges(model);
  const now = () => Object.fromEntries(["x0", "x1", "k", "width"].map((name) => [name, model.get(name)]));
  // Before something changes; `what` goes on where it is the same as before.
  const remember = (what) => {
    if (!what || what !== memory.last) memory.past.push(now());
    memory.last = what;
  };
  const become = (values) => {
    memory.last = "";
    change(values);
    send();
  };
  const state = { extent, mostK, steps: steps - 1, change, send, remember, memory };
  state.rectify = () => {
    if (model.get("k") >= mostK) return;
    remember("");
    become({ k: model.get("k") + 1 });
  };
  const differs = (values) => JSON.stringify({ ...now(), ...values }) !== JSON.stringify(now());
  state.undo = () => {
    let before = memory.past.pop();
    while (before && !differs(before)) before = memory.past.pop(); // a point that was put back
    if (before) become(before);
  };
  state.reset = () => {
    const first = { ...model.get("first"), k: 0 };
    if (!differs(first)) return;
    remember("");
    become(first);
  };
  state.move = (which, i, [x, y]) => {
    const to = [clamp(x, extent[0], extent[1]), clamp(y, extent[2], extent[3])].map((value) => Number(value.toFixed(4)));
    change({ [which]: model.get(which).map((place, k) => (k === i ? to : place)) });
  };
  // From the pairs as given to those that are shown.
  let known = {};
  state.levels = () => {
    const { x0, x1, k, width } = now();
    if (known.x0 !== x0 || known.x1 !== x1 || known.width !== width) {
      known = { x0, x1, width, levels: [levelOf(x0, x1, width, state.steps)] };
    }
    while (known.levels.length <= k) known.levels.push(nextLevel(known.levels.at(-1), x1, width, state.steps));
    return known.levels.slice(0, k + 1);
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

const boxIn = (width) => ({ x: 36, y: 6, width: width - 46, height: width - 46 });

function strokeAll(ctx, paths, colour, width, alpha) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.globalAlpha = alpha;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.beginPath();
  for (const path of paths) trace(ctx, path, true);
  ctx.stroke();
  ctx.globalAlpha = 1;
}

// `at` is how far the ways are gone, from their ends at t = 0.
function drawPicture(ctx, box, { extent }, { pairs, ways, places }, at, given, theme) {
  const { data, by } = pairs;
  const model = theme.words.model;
  return panel(ctx, extent, box, theme, (map) => {
    const spot = ([x, y]) => [map.x(x), map.y(y)];
    const last = ways[0].length - 1;
    const onLine = (i, t) => spot(data[i].map((value, d) => value + t * by[i][d]));
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1.2;
    ctx.globalAlpha = 0.75;
    ctx.beginPath();
    data.forEach((_, i) => segment(ctx, ...onLine(i, 0), ...onLine(i, 1)));
    ctx.stroke();
    ctx.globalAlpha = 1;
    const paths = ways.map((way) => way.map(([, x, y]) => spot([x, y])));
    strokeAll(ctx, paths, PALETTE.model, 1.2, 0.6);
    const from = Math.ceil(at);
    const heads = paths.map((path) => {
      const [low, high] = [path[Math.floor(at)], path[Math.min(Math.floor(at) + 1, last)]];
      return low.map((value, d) => value + (high[d] - value) * (at - Math.floor(at)));
    });
    strokeAll(ctx, paths.map((path, i) => [heads[i], ...path.slice(from)]), PALETTE.model, 2.2, 1);
    if (!given) data.forEach((_, i) => dot(ctx, ...onLine(i, 0), 4, PALETTE.data, theme.plot));
    ctx.strokeStyle = PALETTE.error;
    ctx.lineWidth = 2;
    for (const place of places) {
      ctx.beginPath();
      ctx.arc(...spot(place), 7, 0, 2 * Math.PI);
      ctx.stroke();
    }
    data.forEach((_, i) => dot(ctx, ...onLine(i, at / last), 2.6, theme.ink, theme.plot));
    heads.forEach((place) => dot(ctx, ...place, 4, model, theme.plot));
  });
}

const KEY = [
  [`<path d="M11 2l5 5-5 5-5-5z" fill="${PALETTE.noise}"/>`, "sources x\u2081"],
  [`<circle cx="11" cy="7" r="4.5" fill="${PALETTE.data}"/>`, "targets x\u2080"],
  [`<circle cx="11" cy="7" r="5" fill="none" stroke="${PALETTE.data}" stroke-width="1.2"/>`, "as given"],
  ['<path d="M0 7h22" stroke="var(--cw-muted)" stroke-width="1.5"/><circle cx="11" cy="7" r="3" fill="var(--cw-ink)"/>', "pairs"],
  [`<path d="M0 7h22" stroke="${PALETTE.model}" stroke-width="2"/><circle cx="11" cy="7" r="4" fill="${PALETTE.model}"/>`,
    "their flow"],
  [`<circle cx="11" cy="7" r="5" fill="none" stroke="${PALETTE.error}" stroke-width="2"/>`, "two pairs meet"]
];

// -------------------------------------------------------------------------------------- the table

const COLUMNS = [
  ["k", "how often the pairs are rectified", (counts, k) => String(k)],
  ["meet", "pairs that come to one place at one time", ({ meetings }) => String(meetings)],
  ["cross", "lines that cross in the picture, at whatever times", ({ crossings }) => String(crossings)],
  ["cost", "transport cost: the mean of \u2016x\u2081 \u2212 x\u2080\u2016\u00b2", ({ cost }) => cost.toFixed(2)],
  ["S", "straightness of the flow that made the pairs: 0 where its ways are straight",
    ({ straightness: s }) => (s === null ? "\u2013" : s < 0.1 ? s.toFixed(4) : s.toFixed(2))]
];

// A row for each k: those up to the one that is shown are filled in.
function tableOf(mostK) {
  const line = (role, words) => element("div", { role: "row" },
    ...words.map(([text, title]) => element("span", { role, ...(title ? { title } : {}) }, text)));
  const rows = Array.from({ length: mostK + 1 }, () => line("cell", COLUMNS.map(() => [""])));
  const node = element("div", { class: "uncross-table", role: "table", "aria-label": "What is counted for each k" },
    line("columnheader", COLUMNS), ...rows);
  const write = (levels) => rows.forEach((one, k) => {
    const counts = levels[k]?.counts;
    COLUMNS.forEach(([, , text], i) => say(one.children[i], counts ? text(counts, k) : "\u00a0"));
    one.classList.toggle("chosen", k === levels.length - 1);
    one.classList.toggle("empty", !counts);
  });
  return { node, write };
}

const inWords = ({ meetings, crossings, cost, straightness }, k) =>
  `k = ${k}: ${meetings} meet, ${crossings} cross, cost ${cost.toFixed(2)}` +
  (straightness === null ? "" : `, straightness ${straightness.toPrecision(2)}`);

// ------------------------------------------------------------------------------------- the points

const written = (place) => `(${place.map((value) => value.toFixed(2).replace("-", "\u2212")).join(", ")})`;

// A handle for each point; by Tab one comes to the one that was moved last.
function pointsOf(view, state, mapNow) {
  const { model } = view;
  const { extent, remember, move, send } = state;
  const grips = ["x1", "x0"].flatMap((which) => model.get(which).map((_, i) => {
    const [label, shape, colour] = which === "x1" ? ["Source", "diamond", PALETTE.noise] : ["Target", "round uncross-target", PALETTE.data];
    const grip = handle(view, `${label} ${i + 1}`, {
      shape: `${shape} uncross-point`, colour, range: extent.slice(0, 2), end: send,
      start: ([x, y]) => {
        const map = mapNow();
        const [atX, atY] = model.get(which)[i];
        const [left, top] = [map.x(atX) - x, map.y(atY) - y]; // to the middle of the handle
        state.memory.last = "";
        return ([toX, toY]) => {
          remember(`drag ${which} ${i}`);
          move(which, i, mapNow().toPlane(toX + left, toY + top));
        };
      }
    });
    return { ...grip, which, i };
  }));
  const nodes = grips.map(({ node }) => node);
  const choose = (chosen) => nodes.forEach((node) => (node.tabIndex = node === chosen ? 0 : -1));
  choose(nodes[0]);
  nodes.forEach((node) => node.addEventListener("focus", () => choose(node)));
  const other = (by) => ({ target }) => nodes[(nodes.indexOf(target) + by + nodes.length) % nodes.length].focus();
  const nudge = (right, up) => ({ target, shiftKey }) => {
    const { which, i } = grips[nodes.indexOf(target)];
    const by = ((extent[1] - extent[0]) * (shiftKey ? 1 : 5)) / 250;
    const [x, y] = model.get(which)[i];
    remember(`keys ${which} ${i}`);
    move(which, i, [x + by * right, y + by * up]);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1),
    PageDown: other(1), PageUp: other(-1)
  }, nodes);
  return () => {
    const map = mapNow();
    grips.forEach(({ stand, which, i }) => {
      const [x, y] = model.get(which)[i];
      stand(map.x(x), map.y(y), x, written([x, y]));
    });
  };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { memory, remember, change, send } = state;
  const table = tableOf(state.mostK);
  let map = null; // as last drawn

  const draw = (ctx, { width }, theme) => {
    const level = state.levels().at(-1);
    map = drawPicture(ctx, boxIn(width), state, level, state.steps - clock.shown(), model.get("k") === 0, theme);
    standPoints();
  };
  const view = outline({
    model, el, draw, layout: (width) => width - 10, maxWidth: 760, style: STYLE, name: "uncross"
  });
  const standPoints = pointsOf(view, state, () => map);
  const clock = playerBar(view, model);

  const go = button("Rectify", state.rectify);
  const back = button("Undo", state.undo, { title: "Take back the last change" });
  const width = slider(view, "width", "width", {
    min: model.get("widths")[0], max: model.get("widths")[1], step: 0.01, title: "Width of the blur around each line",
    text: (value) => value.toFixed(2),
    change: (values) => {
      remember("width");
      change(values);
    }
  });
  width.addEventListener("change", () => {
    memory.last = "";
    send();
  });
  const side = element("div", { class: "uncross-side" },
    row(go, back, button("Reset", state.reset, { class: "cw-quiet", title: "Bring back the first pairs" })),
    table.node, row(width), legend(KEY));
  view.header.after(element("div", { class: "uncross-body" }, view.stage, side));
  view.root.append(hint(
    "Move the points. Rectify carries each source along the mean velocity of the pairs that pass; where it ends is its new target. " +
    "A flow has one velocity at a place and a time, so what meets must part; lines that cross at different times may stay. " +
    "Keys: arrows move a point (Shift: finer), Page Down and Up go to others, R rectifies, Z takes back, space plays."));

  const speak = spoken(view);
  let before = model.get("k");
  const show = () => {
    const k = model.get("k");
    const levels = state.levels();
    table.write(levels);
    view.root.classList.toggle("rectified", k > 0);
    say(go, k === 0 ? "Rectify" : "Reflow");
    for (const [node, off] of [[go, k >= state.mostK], [back, !memory.past.length]]) {
      if (off && node.matches(":focus")) view.root.focus(); // what is off hears no keys
      node.disabled = off;
    }
    go.title = k === 0 ? "New pairs: where the flow takes each source" : "Once more, with the new pairs";
    if (k !== before) speak(inWords(levels[k].counts, k));
    before = k;
    view.redraw();
  };
  onKeys(view, { r: state.rectify, z: state.undo });
  view.follow(["x0", "x1", "k", "width"], show, { now: true });
  view.onStop(send);
  return view.stop;
}

export default { render };

// Tiles: the matrix of logits that is never stored, tile by tile, and what is moved for it.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { choice, row, toggle } from "./parts/controls.js";
import { drag } from "./parts/drag.js";
import { logSlider } from "./parts/log_slider.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, hatch, segment, words } from "./parts/panel.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./tiles.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// tiles.py has the same, and the formulas.

// Rows and columns of a tile that fits into the fast memory.
function sizesOf({ d, sram, algorithm }) {
  const larger = Math.floor(sram / (5 * d + 4));
  const smaller = Math.min(larger, d);
  return algorithm === "flash" ? [smaller, larger] : [larger, smaller];
}

// How many tiles each block of the outer loop meets.
function tilesOfEach({ n, algorithm, causal, ...sizes }) {
  const [rows, columns] = sizesOf({ algorithm, ...sizes });
  const [down, across] = [Math.ceil(n / rows), Math.ceil(n / columns)];
  if (algorithm === "flash") {
    return Array.from({ length: across }, (_, j) => down - (causal ? Math.floor((j * columns) / rows) : 0));
  }
  return Array.from({ length: down }, (_, i) => (causal ? Math.ceil(Math.min((i + 1) * rows, n) / columns) : across));
}

// What a block of the outer loop moves with the first tiles that it meets: [loads, stores].
function movedBy({ n, d, algorithm, rows, columns }, block, met, count) {
  if (algorithm === "flash") {
    const first = Math.ceil(n / rows) - count; // tiles above are skipped
    const passed = Math.min((first + met) * rows, n) - first * rows;
    const held = Math.min((block + 1) * columns, n) - block * columns;
    return [2 * d * held + (2 * d + 2) * passed, (d + 2) * passed];
  }
  const held = Math.min((block + 1) * rows, n) - block * rows;
  return [d * held + 2 * d * Math.min(met * columns, n), met === count ? (d + 1) * held : 0];
}

// The order of the loops, and what is moved: `tileAt(k)` is the k-th tile, from 1 on, `movedAfter(k)`
// what was moved by then.
function planOf(given) {
  const { n, d, algorithm } = given;
  const [rows, columns] = sizesOf(given);
  const counts = tilesOfEach(given);
  const facts = { n, d, algorithm, rows, columns };
  // Before each block: tiles, loads, stores; the first of "flash" writes where o, m and l start.
  const before = [[0, 0, algorithm === "flash" ? n * (d + 2) : 0]];
  counts.forEach((count, block) => {
    const [tiles, loads, stores] = before[block];
    const [more, also] = movedBy(facts, block, count, count);
    before.push([tiles + count, loads + more, stores + also]);
  });
  const total = before.at(-1)[0];
  const blockOf = (k) => {
    let [low, high] = [0, counts.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (before[middle + 1][0] >= k) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  const movedAfter = (k) => {
    if (!k) return { loads: 0, stores: 0 };
    const block = blockOf(k);
    const [tiles, loads, stores] = before[block];
    const [more, also] = movedBy(facts, block, k - tiles, counts[block]);
    return { loads: loads + more, stores: stores + also };
  };
  const down = Math.ceil(n / rows);
  const tileAt = (k) => {
    const block = blockOf(k);
    const met = k - before[block][0];
    const flash = algorithm === "flash";
    const [i, j] = flash ? [down - counts[block] + met - 1, block] : [block, met - 1];
    return { i, j, block, first: met === 1, last: met === counts[block] };
  };
  // The number of a tile, or null where it is skipped.
  const numberOf = (i, j) => {
    const [block, met] = algorithm === "flash" ? [j, i + 1 - (down - counts[j])] : [i, j + 1];
    return met >= 1 && met <= counts[block] ? before[block][0] + met : null;
  };
  return { ...facts, causal: given.causal, counts, total, down, across: Math.ceil(n / columns), movedAfter, tileAt, numberOf };
}

// Three steps that store the matrix of logits and that of probabilities.
const naiveMoves = ({ n, d }) => ({ loads: 3 * n * d + 2 * n * n, stores: 2 * n * n + n * d });

// -------------------------------------------------------------------------------------- the state

const NAMES = ["n", "d", "sram", "algorithm", "causal"];

function stateOf(model) {
  const { change, send } = throttledChanges(model);
  const given = () => Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
  let known = { facts: "" };
  const plans = () => {
    const sizes = given();
    const facts = Object.values(sizes).join();
    if (known.facts !== facts) {
      const both = Object.fromEntries(["flash", "flash2"].map((algorithm) => [algorithm, planOf({ ...sizes, algorithm })]));
      known = { facts, ...both, naive: naiveMoves(sizes), own: both[sizes.algorithm] };
    }
    return known;
  };
  // What is chosen, with as many steps as there are tiles then; the same share of them is done.
  const choose = (values) => {
    const next = { ...given(), ...values };
    next.sram = Math.max(next.sram, 5 * next.d + 4);
    const { total } = planOf(next);
    const share = model.get("step") / (model.get("n_steps") - 1);
    change({
      ...values, sram: next.sram, n_steps: total + 1, step: Math.round(share * total), rate: Math.max(1, total / model.get("seconds"))
    });
  };
  return { plans, choose, send, sram: () => model.get("sram") };
}

// ------------------------------------------------------------------------------------ the picture

const WAYS = [["naive", "three steps, S and P stored"], ["flash", "FlashAttention: keys outside"], ["flash2", "FlashAttention-2: queries outside"]];

// The matrix with its strips, and the bars beside it or, where there is no room, below.
function stands(width) {
  const beside = width >= 560;
  const room = beside ? Math.round(0.56 * width) : width;
  const thick = Math.round(clamp(0.09 * room, 22, 40));
  const side = Math.min(room - 2 * thick - 50, 360);
  const matrix = { x: 18 + thick + 6, y: 20 + thick + 6, width: side, height: side };
  const floor = matrix.y + side + thick + 24;
  const bars = beside ? { x: room + 14, y: 20, width: width - room - 16 } : { x: 2, y: floor + 12, width: width - 4 };
  return { matrix, thick, bars, total: beside ? Math.max(floor, bars.y + 246) : bars.y + 246 };
}

// Where a block of rows or columns stands along the side.
const spanOf = (block, size, n, from, length) => {
  const [start, stop] = [block * size, Math.min((block + 1) * size, n)].map((at) => (at / n) * length);
  return [from + start, Math.max(stop - start, 1)];
};

function fillTiles(ctx, colour, alpha, ...boxes) {
  ctx.fillStyle = colour;
  ctx.globalAlpha = alpha;
  for (const box of boxes) ctx.fillRect(...box);
  ctx.globalAlpha = 1;
}

// The tiles that are done, those that are skipped, the lines between, and the one at work.
function drawMatrix(ctx, plan, k, { x, y, width: side }, theme) {
  const { n, rows, columns, down, across, algorithm, causal } = plan;
  const [rowAt, columnAt] = [(i) => spanOf(i, rows, n, y, side), (j) => spanOf(j, columns, n, x, side)];
  fillTiles(ctx, theme.plot, 1, [x, y, side, side]);
  const tile = k ? plan.tileAt(k) : null;
  if (tile) {
    const { i, j } = tile;
    const [[top, high], [left, wide]] = [rowAt(i), columnAt(j)];
    const done = algorithm === "flash" ? [[x, y, left - x, side], [left, y, wide, top - y]] : [[x, y, side, top - y], [x, top, left - x, high]];
    fillTiles(ctx, PALETTE.noise, 0.3, ...done);
  }
  ctx.strokeStyle = theme.line;
  ctx.beginPath();
  if (side / down >= 4) for (let i = 1; i < down; i++) segment(ctx, x, rowAt(i)[0], x + side, rowAt(i)[0]);
  if (side / across >= 4) for (let j = 1; j < across; j++) segment(ctx, columnAt(j)[0], y, columnAt(j)[0], y + side);
  ctx.stroke();
  if (causal) drawSkipped(ctx, plan, { x, y, side, rowAt, columnAt }, theme);
  if (tile) {
    const [[top, high], [left, wide]] = [rowAt(tile.i), columnAt(tile.j)];
    fillTiles(ctx, PALETTE.latent, 1, [left, top, Math.max(wide, 2), Math.max(high, 2)]);
    ctx.strokeStyle = theme.ink;
    ctx.strokeRect(left, top, Math.max(wide, 2), Math.max(high, 2));
  }
  ctx.strokeStyle = theme.muted;
  ctx.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
}

// What no query may see, hatched, and the line up to which they see.
function drawSkipped(ctx, { n, rows, columns, down }, { x, y, side, rowAt, columnAt }, theme) {
  ctx.save();
  ctx.beginPath();
  // Blocks lower than a pixel are drawn by the pixel.
  const every = Math.max(1, Math.floor(down / side));
  for (let i = 0; i < down; i += every) {
    const first = Math.ceil(Math.min((i + 1) * rows, n) / columns); // of the columns that are skipped
    if (first * columns >= n) continue;
    const [[top, high], [left]] = [rowAt(i), columnAt(first)];
    ctx.rect(left, top, x + side - left, high * every);
  }
  ctx.clip();
  fillTiles(ctx, theme.plot, 1, [x, y, side, side]);
  ctx.strokeStyle = theme.muted;
  ctx.globalAlpha = 0.6;
  hatch(ctx, { x, y, width: side, height: side }, 7);
  ctx.restore();
  ctx.strokeStyle = theme.muted;
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  segment(ctx, x, y, x + side, y + side);
  ctx.stroke();
  ctx.setLineDash([]);
}

// What is moved and held for a tile: {q, k, v, o}, each "load", "held", "store", "both" or "".
function lightsOf({ algorithm }, { first, last }) {
  if (algorithm === "flash") return { q: "load", k: first ? "load" : "held", v: first ? "load" : "held", o: "both" };
  return { q: first ? "load" : "held", k: "load", v: "load", o: last ? "store" : "held" };
}

// q and o stand beside the matrix, k and v above and below; their block at work is lit.
function drawStrips(ctx, plan, k, { matrix, thick }, theme) {
  const { x, y, width: side } = matrix;
  const strips = {
    q: [x - 6 - thick, y, thick, side], k: [x, y - 6 - thick, side, thick],
    v: [x, y + side + 6, side, thick], o: [x + side + 6, y, thick, side]
  };
  const tile = k ? plan.tileAt(k) : null;
  const lights = tile ? lightsOf(plan, tile) : {};
  for (const [name, [left, top, wide, high]] of Object.entries(strips)) {
    const upright = name === "q" || name === "o";
    fillTiles(ctx, theme.plot, 1, [left, top, wide, high]);
    if (tile) {
      const [from, length] = upright ? spanOf(tile.i, plan.rows, plan.n, y, side) : spanOf(tile.j, plan.columns, plan.n, x, side);
      const long = Math.max(length, 2);
      const box = upright ? [left, from, wide, long] : [from, top, long, high];
      const light = lights[name];
      const colour = { load: PALETTE.data, both: PALETTE.data, store: PALETTE.model, held: PALETTE.latent }[light];
      fillTiles(ctx, colour, light === "held" ? 0.45 : 1, box);
      if (light === "both") fillTiles(ctx, PALETTE.model, 1, [left + wide / 2, from, wide / 2, long]);
    }
    ctx.strokeStyle = theme.muted;
    ctx.strokeRect(left + 0.5, top + 0.5, wide - 1, high - 1);
  }
  const middle = thick / 2;
  const names = [["q", strips.q[0] - 9, y + side / 2], ["o", strips.o[0] + thick + 9, y + side / 2], ["k", x - 9, strips.k[1] + middle], ["v", x - 9, strips.v[1] + middle]];
  for (const [text, right, down] of names) words(ctx, text, right, down, theme.ink, `600 12px ${theme.font}`, "center");
  words(ctx, `${grouped(plan.n)} \u00d7 ${grouped(plan.n)} logits, never stored`, x + side / 2, 10, theme.muted, `12px ${theme.font}`, "center", "middle", side + 2 * thick);
}

// How much each way moves: a bar each, loads and stores, of the one that is played as far as it is.
function drawBars(ctx, { naive, flash, flash2, own }, k, box, theme) {
  const all = { naive, flash: flash.movedAfter(flash.total), flash2: flash2.movedAfter(flash2.total) };
  const most = Math.max(...Object.values(all).map(({ loads, stores }) => loads + stores));
  words(ctx, "numbers moved", box.x, box.y - 10, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
  WAYS.forEach(([which, name], row) => {
    const top = box.y + 6 + row * 54;
    const played = which === own.algorithm;
    const { loads, stores } = all[which];
    const sofar = played ? own.movedAfter(k) : all[which];
    words(ctx, name, box.x, top + 7, played ? theme.ink : theme.muted, `${played ? "600 " : ""}12px ${theme.font}`, "left", "middle", box.width);
    const long = (count) => (count / most) * box.width;
    fillTiles(ctx, PALETTE.data, played ? 1 : 0.55, [box.x, top + 16, long(sofar.loads), 12]);
    fillTiles(ctx, PALETTE.model, played ? 1 : 0.55, [box.x + long(sofar.loads), top + 16, long(sofar.stores), 12]);
    ctx.strokeStyle = theme.muted;
    ctx.strokeRect(box.x + 0.5, top + 16.5, Math.max(long(loads + stores) - 1, 1), 11);
    const moved = sofar.loads + sofar.stores;
    const text = played && k < own.total ? `${grouped(moved)} of ${grouped(loads + stores)}` : grouped(moved);
    words(ctx, text, box.x, top + 38, theme.ink, `11px ${theme.font}`, "left", "middle", box.width);
  });
}

// What a tile needs of the fast memory.
function drawMemory(ctx, { rows, columns, d }, sram, box, theme) {
  const parts = [["q", rows * d, PALETTE.data], ["k", columns * d, PALETTE.data], ["v", columns * d, PALETTE.data],
    ["o", rows * d, PALETTE.model], ["S", rows * columns, PALETTE.latent], ["m \u2113", 4 * rows, PALETTE.noise]];
  const top = box.y + 190;
  const held = parts.reduce((sum, [, size]) => sum + size, 0);
  words(ctx, "fast memory", box.x, top - 10, theme.ink, `600 12px ${theme.font}`);
  let left = box.x;
  parts.forEach(([name, size, colour], i) => {
    const wide = (size / sram) * box.width;
    fillTiles(ctx, colour, 0.75 - 0.12 * (i % 2), [left, top, wide, 18]);
    if (wide > 14) words(ctx, name, left + wide / 2, top + 9, theme.dark ? "#ffffff" : "#000000", `600 11px ${theme.font}`, "center");
    left += wide;
  });
  ctx.strokeStyle = theme.muted;
  ctx.strokeRect(box.x + 0.5, top + 0.5, box.width - 1, 17);
  const text = `tiles of ${grouped(rows)} \u00d7 ${grouped(columns)}: ${grouped(held)} of ${grouped(sram)} numbers`;
  words(ctx, text, box.x, top + 29, theme.muted, `11px ${theme.font}`, "left", "middle", box.width);
}

// ------------------------------------------------------------------------------------ in writing

const grouped = (count) => Math.round(count).toLocaleString("en-US");
const blockName = (block, size, n) => `${grouped(block * size + 1)}\u2013${grouped(Math.min((block + 1) * size, n))}`;

function sentenceOf(plan, k) {
  if (!k) return `${grouped(plan.total)} tiles. Nothing is loaded yet: press play, or step.`;
  const { i, j, first, last } = plan.tileAt(k);
  const lights = lightsOf(plan, { first, last });
  const those = (...kinds) => Object.keys(lights).filter((name) => kinds.includes(lights[name])).join(", ");
  const held = those("held");
  const stored = plan.algorithm === "flash" ? "o, m, \u2113 are stored" : last ? "o is done and stored" : "nothing is stored";
  return `Tile ${grouped(k)} of ${grouped(plan.total)}: queries ${blockName(i, plan.rows, plan.n)}, keys ${blockName(j, plan.columns, plan.n)}. ` +
    `Loaded: ${those("load", "both")}${plan.algorithm === "flash" ? ", m, \u2113" : ""}${held ? `; held: ${held}` : ""}; ${stored}.`;
}

function comparison({ naive, flash, flash2 }) {
  const totals = [naive, ...[flash, flash2].map((plan) => plan.movedAfter(plan.total))].map(({ loads, stores }) => loads + stores);
  const [one, two] = totals.slice(1).map((total) => (totals[0] / total).toPrecision(2));
  return `In all, three steps move ${Number(one)} times as much as FlashAttention and ${Number(two)} times as much as FlashAttention-2.`;
}

// -------------------------------------------------------------------------------------- the widget

const square = (colour, opacity) => `<rect x="4" y="2" width="14" height="11" fill="${colour}" opacity="${opacity}"/>`;
const KEY = [
  [square(PALETTE.data, 1), "loaded"], [square(PALETTE.model, 1), "stored"], [square(PALETTE.latent, 0.5), "held"],
  [square(PALETTE.latent, 1), "tile at work"], [square(PALETTE.noise, 0.4), "done, and forgotten"],
  [`<path d="M3 13L14 2M9 13L20 2M1 9L8 2" stroke="currentColor" opacity="0.7"/>`, "skipped"]
];

function render({ model, el }) {
  const state = stateOf(model);
  const said = element("p", { class: "tiles-said", role: "status" });
  let at = null; // as last laid out
  const here = () => Math.ceil(clock.shown() - 1e-6);

  const draw = (ctx, _, theme) => {
    const plans = state.plans();
    const k = Math.min(here(), plans.own.total);
    drawStrips(ctx, plans.own, k, at, theme);
    drawMatrix(ctx, plans.own, k, at.matrix, theme);
    drawBars(ctx, plans, k, at.bars, theme);
    drawMemory(ctx, plans.own, state.sram(), at.bars, theme);
    said.setAttribute("aria-live", clock.playing ? "off" : "polite"); // too fast to be read aloud
    say(said, `${sentenceOf(plans.own, k)} ${comparison(plans)}`);
  };
  const longest = "Tile 9,999 of 9,999: queries 8,000\u20138,192, keys 8,000\u20138,192. Loaded: q, o, m, \u2113; held: k, v; o, m, \u2113 are stored. " +
    "In all, three steps move 9.9 times as much as FlashAttention and 9.9 times as much as FlashAttention-2.";
  const layout = (width) => {
    at = stands(width);
    keepRoom(said, longest);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 760, style: STYLE, name: "tiles" });
  const clock = playerBar(view, model);
  const { change, most } = { change: state.choose, most: model.get("most") };
  view.controls.before(said);
  view.controls.after(
    row(
      choice(view, "algorithm", "outer loop", [["flash", "keys (1)", "FlashAttention"], ["flash2", "queries (2)", "FlashAttention-2"]], { change }),
      toggle(view, "causal", "Causal", { title: "Query i sees the keys up to i alone", change })),
    row(
      logSlider(view, "n", "tokens N", { min: Math.min(32, model.get("n")), max: most.n, step: 0.25, whole: true, text: grouped, change }),
      logSlider(view, "d", "head size d", { min: Math.min(8, model.get("d")), max: most.d, step: 0.25, whole: true, text: grouped, change }),
      logSlider(view, "sram", "fast memory M", { min: Math.min(1024, model.get("sram")), max: most.sram, step: 0.125, whole: true, text: grouped, change })),
    legend(KEY), hint("Click a tile, or drag over the matrix. Keys: space plays, \u2190 \u2192 one tile back or on."));

  const over = ([x, y]) => {
    const { matrix } = at;
    const [right, down] = [(x - matrix.x) / matrix.width, (y - matrix.y) / matrix.height];
    return right >= 0 && right < 1 && down >= 0 && down < 1 ? [right, down] : null;
  };
  drag(view.canvas, {
    focus: view.root, end: state.send,
    start: (place) => {
      if (!over(place)) return null;
      const move = (to) => {
        const { own } = state.plans();
        const [right, down] = over(to) ?? [];
        const number = right === undefined ? null : own.numberOf(Math.floor((down * own.n) / own.rows), Math.floor((right * own.n) / own.columns));
        if (number) clock.seek(number);
      };
      move(place);
      return move;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "pointer" : "")
  });
  view.follow(NAMES, view.redraw);
  view.onStop(state.send);
  return view.stop;
}

export default { render };

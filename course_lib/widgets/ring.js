// Ring: processes on a circle sum their vectors by passing chunks to their neighbours.

import { drawPlane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, anchorsOf, colourTable, inkOn } from "./parts/colours.js";
import { row, slider } from "./parts/controls.js";
import { tidy } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, legend, mapStrip, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, groundedWords, segment, trace, words } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./ring.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// ring.py has the same, and the formula.

const around = (k, n) => ((k % n) + n) % n;

// What is sent in the k-th step, from 1: {source, target, chunk}, one a process.
function messagesOf(n, k) {
  return Array.from({ length: n }, (_, p) => ({ source: p, target: (p + 1) % n, chunk: around(p - k + 1, n) }));
}

// What all hold after each step, the start first: [{chunks, counts}], both [process][chunk].
function statesOf(values, n) {
  const states = [{ chunks: values.slice(0, n).map((held) => held.slice(0, n)), counts: values.slice(0, n).map(() => Array(n).fill(1)) }];
  for (let k = 1; k < 2 * n - 1; k++) {
    const before = states[k - 1];
    const [chunks, counts] = [before.chunks, before.counts].map((table) => table.map((held) => [...held]));
    for (const { source, target, chunk } of messagesOf(n, k)) {
      const adds = k < n ? 1 : 0;
      chunks[target][chunk] = before.chunks[source][chunk] + adds * before.chunks[target][chunk];
      counts[target][chunk] = before.counts[source][chunk] + adds * before.counts[target][chunk];
    }
    states.push({ chunks, counts });
  }
  return states;
}

// What is sent, in vectors: by each process of the ring in all, and by the middle of a star.
const sentInRing = (n) => (2 * (n - 1)) / n;
const sentInStar = (n) => n - 1;

const PHASES = ["reduce-scatter", "all-gather"];

function namesOf(n) {
  const rounds = PHASES.flatMap((phase) => Array.from({ length: n - 1 }, (_, k) => `${phase} ${k + 1} of ${n - 1}`));
  return ["each has its own", ...rounds];
}

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const [values, most] = ["values", "most"].map((name) => model.get(name));
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const known = new Map();
  const count = () => model.get("processes");
  const states = () => {
    const n = count();
    if (!known.has(n)) known.set(n, statesOf(values, n));
    return known.get(n);
  };
  // Another number of processes begins anew.
  const setCount = (wanted) => {
    const n = clamp(wanted, 1, most);
    if (n === count()) return;
    clock.seek(0);
    change({ processes: n, n_steps: 2 * n - 1, labels: namesOf(n) });
  };
  // The last whole step, and how much of the next one is done.
  const place = () => {
    const step = clamp(clock.shown(), 0, 2 * count() - 2);
    const k = Math.floor(step + 1e-6);
    return { k, share: Math.max(step - k, 0), step };
  };
  return { most, clock, count, states, setCount, place, change, send };
}

// ------------------------------------------------------------------------------------ the picture

const HALF_GAP = 9; // pixels from a sector to the middle of the gap beside it

// The ring, and beside it or, where there is no room, below it the bars of what is sent.
function stands(width, n, most) {
  const beside = width >= 540;
  const side = Math.round(beside ? clamp(0.56 * width, 300, 420) : Math.min(width, 420));
  const ring = { x: side / 2, y: side / 2, outer: side / 2 - 22, inner: 0.29 * (side / 2 - 22) };
  if (!beside) ring.x = width / 2;
  const left = beside ? side + 14 : 0;
  const room = beside ? side - 70 : 20 * (most + 1);
  const pitch = clamp(room / (n + 1), 18, 34);
  const bars = { x: left + 66, y: beside ? 46 : side + 40, width: width - left - 66 - 44, pitch, height: pitch * (n + 1) };
  // As high as with the most processes, so that nothing below it moves while N is changed.
  return { width, ring, bars, total: beside ? side : bars.y + room + 6 };
}

// Where a process stands, as an angle: the first at the top, the others clockwise.
const angleOf = (p, n) => (2 * Math.PI * p) / n - Math.PI / 2;

// How far a sector reaches to each side at a radius.
const halfAt = (radius, n) => (n === 1 ? Math.PI : Math.PI / n - HALF_GAP / radius);

const pointAt = ({ x, y }, radius, angle) => [x + radius * Math.cos(angle), y + radius * Math.sin(angle)];

// The radii of a chunk: {low, high, middle}.
function bandOf({ outer, inner }, chunk, n) {
  const height = (outer - inner) / n;
  const high = outer - chunk * height;
  return { low: high - height + 1.5, high, middle: high - height / 2 + 0.75, height: height - 1.5 };
}

function cellPath(ctx, ring, { low, high }, angle, n) {
  const [far, near] = [halfAt(high, n), halfAt(low, n)];
  ctx.beginPath();
  ctx.arc(ring.x, ring.y, high, angle - far, angle + far);
  ctx.arc(ring.x, ring.y, low, angle + near, angle - near, true);
  ctx.closePath();
}

// The colours of 1 ... n contributions, each with the ink that is read on it.
function shadesOf(n, theme) {
  const table = colourTable("viridis", 256, theme);
  return Array.from({ length: n }, (_, i) => {
    const at = 3 * Math.round((255 * i) / Math.max(n - 1, 1));
    const colour = table.slice(at, at + 3);
    return { fill: `rgb(${colour.join()})`, ink: inkOn(colour) };
  });
}

const fontOf = (height, theme, weight = 400) => `${weight} ${clamp(0.68 * height, 9.5, 15).toFixed(1)}px ${theme.font}`;

// The number of a cell: upright, or along the cell where that is too flat for two digits side by side.
function writeNumber(ctx, text, ring, { middle, height }, angle, ink, font) {
  const [x, y] = pointAt(ring, middle, angle);
  const along = height < 17 ? angle + Math.PI / 2 : 0;
  ctx.save();
  ctx.translate(x, y);
  ctx.rotate(Math.cos(along) < -1e-6 ? along + Math.PI : along); // never on its head
  words(ctx, text, 0, 0, ink, font, "center");
  ctx.restore();
}

// A line inside the edge of the path.
function drawRim(ctx, colour) {
  ctx.save();
  ctx.clip();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 4;
  ctx.stroke();
  ctx.restore();
}

function drawCells(ctx, ring, n, { chunks, counts }, fresh, theme) {
  const shades = shadesOf(n, theme);
  for (let p = 0; p < n; p++) {
    for (let c = 0; c < n; c++) {
      const band = bandOf(ring, c, n);
      const { fill, ink } = shades[counts[p][c] - 1];
      cellPath(ctx, ring, band, angleOf(p, n), n);
      ctx.fillStyle = fill;
      ctx.fill();
      const isFresh = fresh.some(({ target, chunk }) => target === p && chunk === c);
      if (isFresh) drawRim(ctx, ink);
      writeNumber(ctx, String(chunks[p][c]), ring, band, angleOf(p, n), ink, fontOf(band.height, theme, isFresh ? 700 : 400));
    }
  }
}

function drawNames(ctx, ring, n, theme) {
  for (let p = 0; p < n; p++) {
    words(ctx, p ? String(p) : "process 0", ...pointAt(ring, ring.outer + 12, angleOf(p, n)), theme.ink, `600 12px ${theme.font}`, "center");
  }
}

// An arrow along the ring: an arc at a radius from one angle to another, clockwise.
function arcArrow(ctx, ring, radius, from, to, colour, line) {
  const head = Math.min(7, 0.6 * radius * (to - from));
  const neck = to - head / radius;
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = line;
  ctx.beginPath();
  ctx.arc(ring.x, ring.y, radius, from, Math.max(neck, from));
  ctx.stroke();
  trace(ctx, [pointAt(ring, radius, to), pointAt(ring, radius + 0.6 * head, neck), pointAt(ring, radius - 0.6 * head, neck)]);
  ctx.closePath();
  ctx.fill();
}

// What is on its way: over the gaps at rest, and a cell that travels from process to process between.
function drawMessages(ctx, ring, n, { chunks, counts }, { k, share }, theme) {
  if (n === 1 || k >= 2 * n - 2) return;
  const shades = shadesOf(n, theme);
  for (const { source, chunk } of messagesOf(n, k + 1)) {
    const band = bandOf(ring, chunk, n);
    const [from, to] = [angleOf(source, n), angleOf(source + 1, n)];
    const edge = halfAt(band.middle, n);
    if (share < 0.005) {
      arcArrow(ctx, ring, band.middle, from + edge - 3 / band.middle, to - edge + 3 / band.middle, theme.words.model, 2);
      continue;
    }
    const angle = from + share * (to - from);
    const [x, y] = pointAt(ring, band.middle, angle);
    const text = String(chunks[source][chunk]);
    ctx.font = fontOf(band.height, theme, 700);
    const [half, high] = [ctx.measureText(text).width / 2 + 4, Math.max(band.height, 13) / 2];
    ctx.strokeStyle = theme.words.model;
    ctx.lineWidth = 2.5;
    ctx.beginPath();
    ctx.arc(ring.x, ring.y, band.middle, from, angle);
    ctx.stroke();
    ctx.beginPath();
    ctx.roundRect(x - half, y - high, 2 * half, 2 * high, 4);
    const { fill, ink } = shades[counts[source][chunk] - 1];
    ctx.fillStyle = fill;
    ctx.fill();
    ctx.stroke();
    words(ctx, text, x, y, ink, fontOf(band.height, theme, 700), "center");
  }
}

// The step, in the middle.
function drawStep(ctx, ring, n, { k, share }, theme) {
  const now = k + (share > 0.005 ? 1 : 0); // the step that is done, or under way
  const rounds = n - 1;
  let lines = ["start"];
  if (n === 1) lines = ["alone"];
  else if (now > 0) lines = [...(now <= rounds ? ["reduce-", "scatter"] : ["all-", "gather"]), `${((now - 1) % rounds) + 1} of ${rounds}`];
  lines.forEach((line, i) => words(
    ctx, line, ring.x, ring.y + 15 * (i - (lines.length - 1) / 2), i === 2 ? theme.muted : theme.ink, `${i === 2 ? 400 : 600} 12px ${theme.font}`,
    "center", "middle", 2 * ring.inner - 10));
}

// A bar of what each process has sent, in vectors, and one of the process in the middle of a star.
function drawBars(ctx, box, n, step, theme) {
  const most = Math.max(sentInStar(n), 2);
  const x = (vectors) => box.x + (vectors / most) * box.width;
  const thick = Math.min(box.pitch - 5, 16);
  const at = (i) => box.y + (i + 0.5) * box.pitch;
  words(ctx, "sent so far, in vectors", box.x - 62, box.y - 30, theme.ink, `600 12px ${theme.font}`);
  const font = `12px ${theme.font}`;
  const bar = (i, name, vectors, colour) => {
    words(ctx, name, box.x - 8, at(i), theme.ink, font, "right");
    ctx.fillStyle = colour;
    ctx.fillRect(box.x, at(i) - thick / 2, x(vectors) - box.x, thick);
    groundedWords(ctx, tidy(Number(vectors.toFixed(2))), x(vectors) + 6, at(i), theme.ink, font, theme);
  };
  drawPlane(ctx, { ...box, width: box.width + 40 }, theme);
  const limit = sentInRing(n);
  ctx.strokeStyle = theme.words.error;
  ctx.lineWidth = 1.5;
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  segment(ctx, x(limit), box.y - 4, x(limit), at(n - 1) + box.pitch / 2);
  ctx.stroke();
  ctx.setLineDash([]);
  for (let p = 0; p < n; p++) bar(p, p ? String(p) : "process 0", step / n, PALETTE.model);
  bar(n, "star: 0", sentInStar(n), PALETTE.noise);
  const text = `2 (N \u2212 1) / N = ${tidy(limit)}`;
  ctx.font = font;
  const half = ctx.measureText(text).width / 2;
  words(ctx, text, clamp(x(limit), box.x - 62 + half, box.x + box.width + 40 - half), box.y - 12, theme.words.error, font, "center");
}

// ------------------------------------------------------------------------------------ in writing

function sentenceOf(n, k) {
  if (n === 1) return "One process alone has nothing to send.";
  const costs = `In all each sends 2 (N \u2212 1) / N = ${tidy(sentInRing(n))} vectors; process 0 of a star would send ${sentInStar(n)}.`;
  if (k === 2 * n - 2) return `Every process holds the sum of all ${n}. ${costs}`;
  const { chunk } = messagesOf(n, k + 1)[0];
  const what = k < n - 1 ? "adds it to its own" : "keeps it in place of its own";
  const half = k === n - 1 ? "Each chunk is whole at one process. " : "";
  return `${half}Next, step ${k + 1} of ${2 * n - 2} (${PHASES[k < n - 1 ? 0 : 1]}): process 0 sends chunk ${chunk} to process 1, ` +
    `which ${what}; the others do likewise. ${costs}`;
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { most, clock, count, states, setCount, place, send } = state;
  const said = element("p", { class: "cw-status ring-said", role: "status" });
  let at = null; // as last laid out

  const draw = (ctx, _, theme) => {
    const [n, now] = [count(), place()];
    const held = states()[now.k];
    const fresh = now.share < 0.005 && now.k > 0 ? messagesOf(n, now.k) : [];
    drawCells(ctx, at.ring, n, held, fresh, theme);
    drawNames(ctx, at.ring, n, theme);
    drawMessages(ctx, at.ring, n, held, now, theme);
    drawStep(ctx, at.ring, n, now, theme);
    drawBars(ctx, at.bars, n, now.step, theme);
    paintKey(theme);
    say(said, sentenceOf(n, now.k));
  };
  const longest = sentenceOf(most, most - 1);
  const layout = (width) => {
    at = stands(width, count(), most);
    keepRoom(said, longest);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 760, style: STYLE, name: "ring" });
  view.stage.after(said);
  playerBar(view, model);
  view.controls.before(row(slider(view, "processes", "processes N", {
    min: 1, max: most, step: 1, change: ({ processes }) => setCount(processes), title: "How many processes there are"
  })));

  let painted = ""; // the key, which follows the theme and N
  const key = element("div", { class: "cw-key" });
  const paintKey = (theme) => {
    if (painted === `${count()} ${theme.dark}`) return;
    painted = `${count()} ${theme.dark}`;
    const marks = legend([
      [mapStrip(anchorsOf("viridis", theme), "1", String(count())), "contributions"],
      [`<rect x="4" y="2" width="14" height="10" fill="none" stroke="currentColor" stroke-width="2"/>`, "just received"],
      [`<path d="M1 7h14M15 3l6 4-6 4z" stroke="var(--cw-model-words)" fill="var(--cw-model-words)" stroke-width="2"/>`, "sent next"]
    ]);
    key.replaceChildren(...marks.childNodes);
  };
  view.controls.after(key, hint(
    "A process is a sector, a chunk a ring of it, chunk 0 the outermost. Keys: space plays, \u2190 \u2192 one step, \u2191 \u2193 one " +
    "process more or less."));
  onKeys(view, { ArrowUp: () => setCount(count() + 1), ArrowDown: () => setCount(count() - 1) });
  view.follow(["processes"], () => {
    if (clock.step > clock.last()) clock.seek(0); // Python did not know yet how far it was
    at = stands(at.width, count(), most);
    view.redraw();
  });
  view.onStop(send);
  return view.stop;
}

export default { render };

// RunningMaximum: numbers come one by one; a new maximum shrinks all that was summed by one factor.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE } from "./parts/colours.js";
import { row, slider } from "./parts/controls.js";
import { curveEditor } from "./parts/curve_editor.js";
import { tidy } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { arrow, clamp, dot, segment, trace, words } from "./parts/panel.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./running_maximum.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// running_maximum.py has the same, and the formulas.

// What is kept after each number, the first of none: {m, l, o, factor}.
function runOf(logits, values) {
  let at = { m: -Infinity, l: 0, o: 0, factor: 1 };
  return [at, ...logits.map((s, j) => {
    const m = Math.max(at.m, s);
    const [factor, term] = [Math.exp(at.m - m), Math.exp(s - m)];
    at = { m, factor, l: factor * at.l + term, o: factor * at.o + term * (values[j] ?? 0) };
    return at;
  })];
}

// What new maxima have cost after k numbers: factors, and terms that would be computed again.
function redoneOf(run, k) {
  const moved = run.map((_, j) => j).filter((j) => j > 1 && j <= k && run[j].m > run[j - 1].m);
  return [moved.length, moved.reduce((sum, j) => sum + j - 1, 0)];
}

// To the nearest number of float16, the even one of two: 11 bits, 2^-24 at least, 65,504 at most.
function half(x) {
  if (x >= 65520) return Infinity;
  const unit = 2 ** Math.max(Math.floor(Math.log2(x || 1)) - 10, -24);
  const [whole, rest] = [Math.floor(x / unit), (x / unit) % 1];
  return unit * (rest > 0.5 || (rest === 0.5 && whole % 2) ? whole + 1 : whole);
}

const naiveSum = (numbers, round) => numbers.reduce((sum, s) => round(sum + round(Math.exp(s))), 0);

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const { change, send: sendNow } = throttledChanges(model);
  const own = { moved: null }; // the number that is dragged: {j, k, before, live}
  let known = { facts: "" };
  const run = () => {
    const [logits, values] = [model.get("logits"), model.get("values")];
    const facts = `${logits}/${values}`;
    if (known.facts !== facts) known = { facts, logits, values, run: runOf(logits, values) };
    return known;
  };
  const write = (k) => (j, _, y) => {
    const logits = [...model.get("logits")];
    if (own.moved?.j !== j || own.moved.k !== k() || !own.moved.live) own.moved = { j, k: k(), before: logits, live: true };
    change({ logits: logits.with(j, Math.round(100 * y) / 100) });
  };
  const send = () => {
    if (own.moved) own.moved.live = false;
    sendNow();
  };
  const reach = () => {
    const [low, high] = model.get("limits");
    return [Math.min(low, ...model.get("logits")), Math.max(high, ...model.get("logits"))];
  };
  return { run, write, reach, change, send, own, shift: () => model.get("shift") };
}

// What is seen at a step between two: first the maximum moves, then the new number's term grows.
function momentOf({ run, logits }, step) {
  const k = Math.ceil(step - 1e-6);
  const share = k ? step - (k - 1) : 1;
  const [before, after] = [run[Math.max(k - 1, 0)], run[k]];
  const moving = k > 1 ? clamp(2 * share, 0, 1) : 1;
  const m = moving < 1 ? before.m + moving * (after.m - before.m) : after.m;
  const grown = clamp(2 * share - 1, 0, 1);
  const terms = logits.slice(0, k).map((s, j) => (j === k - 1 ? grown : 1) * Math.exp(Math.min(s - m, 0)));
  return { k, m, terms, before, after, risen: k > 1 && after.m > before.m, done: share >= 1 };
}

// ------------------------------------------------------------------------------------ the picture

// Below each other: the numbers, their terms, the sum as these laid end to end, the line of values.
function stands(width, withValues) {
  const [left, inner] = [52, width - 52 - 14];
  const high = (share, least, most) => Math.round(clamp(share * inner, least, most));
  const numbers = { x: left, y: 22, width: inner, height: high(0.25, 96, 150) };
  const terms = { x: left, y: numbers.y + numbers.height + 44, width: inner, height: high(0.16, 64, 100) };
  const sum = { x: left, y: terms.y + terms.height + 26, width: inner, height: 14 };
  const line = { x: left, y: sum.y + sum.height + 46, width: inner, height: 0 };
  return { numbers, terms, sum, line, total: (withValues ? line.y + 28 : sum.y + sum.height + 6) };
}

const written = (value) => (Number.isFinite(value) ? value.toFixed(2).replace("-", "\u2212") : value < 0 ? "\u2212\u221e" : "\u221e");
const headOf = (ctx, text, { x, y, width }, theme, above = 12) =>
  words(ctx, text, x, y - above, theme.ink, `600 12px ${theme.font}`, "left", "middle", width);

// A bar of slot j, from the floor of its plot; `inset` leaves room between two.
function barOf({ x, width }, count, j, y, floor) {
  const slot = width / count;
  const room = Math.min(0.18 * slot, 8);
  return [x + j * slot + room, y, slot - 2 * room, floor - y];
}

// The numbers: those that have come are filled, and the maximum so far stands as stairs. Returns the map.
function drawNumbers(ctx, state, { k, m }, box, theme) {
  const { logits, run } = state.run();
  const [low, high] = state.reach();
  const [count, floor, shift] = [logits.length, box.y + box.height, state.shift()];
  const shown = chart(ctx, [axisOf(0, count), axisOf(low + shift, high + shift)], box, theme, (own) => {
    const y = (value) => own.y(value + shift);
    logits.forEach((s, j) => {
      const bar = barOf(box, count, j, y(s), floor);
      ctx.globalAlpha = j < k ? 0.6 : 0.12;
      ctx.fillStyle = j < k ? PALETTE.data : theme.muted;
      ctx.fillRect(...bar);
      ctx.globalAlpha = 1;
      ctx.strokeStyle = j < k ? theme.words.data : theme.muted;
      ctx.setLineDash(j < k ? [] : [3, 3]);
      ctx.strokeRect(...bar);
      ctx.setLineDash([]);
    });
    if (!k) return;
    const stairs = run.slice(1, k).flatMap((at, j) => [[own.x(j), y(at.m)], [own.x(j + 1), y(at.m)]]);
    ctx.strokeStyle = theme.words.model;
    ctx.lineWidth = 2.5;
    trace(ctx, [...stairs, [own.x(k - 1), y(m)], [own.x(k), y(m)]]);
    ctx.stroke();
    ctx.lineWidth = 1.2;
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    segment(ctx, own.x(k), y(m), box.x + box.width, y(m));
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.lineWidth = 1;
  }, { foot: false });
  const head = box.width < 380 ? "numbers s" : "the numbers s, and the maximum so far";
  headOf(ctx, k ? `${head}, m = ${written(m + shift)}` : "the numbers s: none has come yet", box, theme);
  const toPlane = (x, y) => [x, low + (1 - (y - box.y) / box.height) * (high - low)];
  return { x: shown.x, y: (value) => shown.y(value + shift), toPlane };
}

// Under the numbers: which is which.
function drawNames(ctx, logits, k, shift, { x, y, width, height }, theme) {
  const slot = width / logits.length;
  const size = slot < 34 ? 10 : 11;
  logits.forEach((s, j) => {
    const text = slot < 30 ? String(j + 1) : written(s + shift);
    words(ctx, text, x + (j + 0.5) * slot, y + height + 11, j < k ? theme.ink : theme.muted, `${size}px ${theme.font}`, "center", "middle", slot - 2);
  });
}

// The terms; where the maximum has moved, or a number was dragged, how high they were before.
function drawTerms(ctx, state, moment, former, box, theme) {
  const count = state.run().logits.length;
  const floor = box.y + box.height;
  chart(ctx, [axisOf(0, count), axisOf(0, 1.25)], box, theme, (map) => {
    moment.terms.forEach((term, j) => {
      const bar = barOf(box, count, j, map.y(term), floor);
      ctx.fillStyle = PALETTE.data;
      ctx.fillRect(...bar);
      const still = moment.done || j < moment.k - 1;
      if (bar[2] > 24 && still && !(former?.[j] > term + 0.03)) words(ctx, term >= 0.995 ? "1" : term.toFixed(2), bar[0] + bar[2] / 2, Math.max(map.y(term) - 7, box.y + 7), theme.ink, `10px ${theme.font}`, "center");
    });
    ctx.strokeStyle = theme.words.model;
    ctx.setLineDash([3, 3]);
    former?.forEach((term, j) => {
      if (Math.abs(term - moment.terms[j]) > 0.005) ctx.strokeRect(...barOf(box, count, j, map.y(Math.min(term, 1.2)), floor));
    });
    ctx.setLineDash([]);
    if (!moment.risen) return;
    moment.terms.slice(0, -1).forEach((term, j) => {
      const [x, , width] = barOf(box, count, j, 0, 0);
      const from = map.y(Math.exp(state.run().logits[j] - moment.before.m));
      if (map.y(term) - from > 9) arrow(ctx, [x + width / 2, from], [x + width / 2, map.y(term)], theme.words.model, theme, { line: 1.5, most: 7 });
    });
  }, { foot: false });
  const narrow = box.width < 380;
  headOf(ctx, narrow ? "terms exp(s \u2212 m)" : "their terms exp(s \u2212 m)", box, theme, 10);
  if (!moment.risen) return;
  const [from, to] = [moment.before.m, moment.after.m].map((m) => written(m + state.shift()));
  const factor = `\u00d7 ${narrow ? "" : `exp(${from} \u2212 ${to}) = `}${sig(moment.after.factor)}`;
  words(ctx, factor, box.x + box.width, box.y - 10, theme.words.model, `600 12px ${theme.font}`, "right");
}

// The sum, a term as long as a slot where it is 1.
function drawSum(ctx, { terms, k }, count, box, theme) {
  ctx.strokeStyle = theme.line;
  ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
  let at = box.x;
  terms.forEach((term, j) => {
    const wide = (term * box.width) / count;
    ctx.fillStyle = PALETTE.data;
    ctx.globalAlpha = j % 2 ? 0.6 : 1;
    ctx.fillRect(at, box.y, wide, box.height);
    ctx.globalAlpha = 1;
    at += wide;
  });
  const total = terms.reduce((sum, term) => sum + term, 0);
  headOf(ctx, `laid end to end: \u2113 = ${k ? total.toFixed(3) : "0"}`, box, theme, 10);
}

// The values on their line, each as large as its share; the output is where their mean stands.
function drawLine(ctx, { values, run }, { terms, k }, box, theme) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = 0.06 * (high - low) || 1;
  const axis = axisOf(low - room, high + room);
  const x = (value) => box.x + axis.share(value) * box.width;
  const total = terms.reduce((sum, term) => sum + term, 0);
  ctx.strokeStyle = theme.muted;
  ctx.beginPath();
  segment(ctx, box.x, box.y + 0.5, box.x + box.width, box.y + 0.5);
  ctx.stroke();
  let right = -Infinity;
  values.map((v, j) => [x(v), j]).sort(([one], [other]) => one - other).forEach(([place, j]) => {
    const share = j < k && total ? terms[j] / total : 0;
    dot(ctx, place, box.y, j < k ? 2.5 + 8 * Math.sqrt(share) : 2.5, j < k ? PALETTE.data : theme.plot, j < k ? theme.plot : theme.muted);
    if (place - right < 22) return; // no room for another
    words(ctx, written(values[j]), place, box.y + 18, j < k ? theme.ink : theme.muted, `10px ${theme.font}`, "center");
    right = place + 6;
  });
  const sum = terms.reduce((all, term, j) => all + term * values[j], 0);
  const end = x(run.at(-1).o / run.at(-1).l);
  ctx.strokeStyle = theme.words.latent;
  ctx.setLineDash([2, 2]);
  ctx.beginPath();
  segment(ctx, end, box.y - 15, end, box.y + 9);
  ctx.stroke();
  ctx.setLineDash([]);
  headOf(ctx, `the mean of the values: o / \u2113 = ${total ? written(sum / total) : "0 / 0"}`, box, theme, 30);
  if (!total) return;
  const at = x(sum / total);
  trace(ctx, [[at, box.y - 2], [at - 8, box.y - 16], [at + 8, box.y - 16]]);
  ctx.closePath();
  ctx.fillStyle = PALETTE.latent;
  ctx.fill();
  ctx.strokeStyle = theme.plot;
  ctx.stroke();
}

// ------------------------------------------------------------------------------------ in writing

const sig = (value) => tidy(Number(value.toPrecision(3)));
const terms = (count) => (count === 1 ? "1 term" : `${count} terms`);

// What came last, and what it changed.
function stepSentence({ run, logits }, k, shift) {
  if (k === 0) return "Nothing has come: m = \u2212\u221e and \u2113 = 0. Press play, or step.";
  const [before, after, s] = [run[k - 1], run[k], written(logits[k - 1] + shift)];
  const now = `\u2113 = ${after.l.toFixed(3)}`;
  if (k === 1) return `The first number, ${s}, is the maximum: ${now}.`;
  if (after.m <= before.m) return `Number ${k}, ${s}, is not above m = ${written(after.m + shift)}: one term is added, nothing is redone. ${now}.`;
  return `Number ${k}, ${s}, is a new maximum. Whoever keeps the terms computes ${k - 1} anew; the online sum is multiplied ` +
    `by one factor, ${sig(after.factor)}, and 1 is added: ${now}.`;
}

// What a number that was dragged changes.
function movedSentence({ run, logits }, k, { j, before }, shift) {
  const name = `You move number ${j + 1} from ${written(before[j] + shift)} to ${written(logits[j] + shift)}`;
  if (j >= k) return `${name}: it has not come yet, nothing is redone.`;
  const [old, now] = [runOf(before, [])[k].m, run[k].m];
  if (old === now) return `${name}: the maximum stays, only its own term changes.`;
  const others = k === 1 ? "it is alone" :
    `the other ${terms(k - 1)} of the safe softmax must be computed anew; online, one factor does, exp(${written(old + shift)} \u2212 ${written(now + shift)}) = ${sig(Math.exp(old - now))}`;
  return `${name}, and with it the maximum: ${others}.`;
}

function countSentence(run, k) {
  const [factors, again] = redoneOf(run, k);
  return `So far, redone: online ${factors} ${factors === 1 ? "factor" : "factors"}, with the terms kept ${terms(again)}.`;
}

const SUPERSCRIPT = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
const inTens = (value) => {
  const [mantissa, power] = value.toExponential(2).split("e");
  const raised = [...power.replace("+", "")].map((sign) => (sign === "-" ? "\u207b" : SUPERSCRIPT[sign])).join("");
  return `${mantissa} \u00b7 10${raised}`;
};

// The sums without a maximum, in words: [words or an element, ...].
function sumsOf(numbers) {
  const sumIn = (round, largest) => {
    const value = naiveSum(numbers, round);
    if (value === Infinity) return element("strong", {}, `\u221e, above ${largest}`);
    if (value === 0 && numbers.length) return element("strong", {}, "0, all too small");
    return value && (value < 0.01 || value > 99999) ? inTens(value) : sig(value);
  };
  return ["Without a maximum, \u03a3 exp(s) in float16: ", sumIn(half, "65,504"), "; in float32: ",
    sumIn(Math.fround, "3.4 \u00b7 10\u00b3\u2078"), "."];
}

// -------------------------------------------------------------------------------------- the widget

const KEY = [
  [`<rect x="4" y="2" width="14" height="11" fill="${PALETTE.data}" opacity="0.7"/>`, "has come"],
  [`<path d="M1 10h7V4h13" fill="none" stroke="var(--cw-model-words)" stroke-width="2.5"/>`, "maximum so far"],
  [`<rect x="4.5" y="2.5" width="13" height="10" fill="none" stroke="var(--cw-model-words)" stroke-dasharray="3 2"/>`, "before"]
];
const OUTPUT = [`<path d="M11 13L4 2h14z" fill="${PALETTE.latent}"/>`, "output so far (dashed: in the end)"];

function render({ model, el }) {
  const state = stateOf(model);
  const withValues = model.get("values").length > 0;
  const said = element("p", { class: "running-said", role: "status" });
  const naive = element("p", { class: "running-naive" });
  let at = null; // as last laid out
  const worst = { run: runOf([-9.99, -9, 9.99], []), logits: [-9.99, -9, 9.99] };
  const longest = movedSentence(worst, 3, { j: 2, before: [-9.99, -9, -9.99] }, -100) + countSentence(worst.run, 3);

  // The terms as they were, where they are others now: before the drag, or before the maximum moved.
  const formerOf = (facts, moment) => {
    const { moved } = state.own;
    if (moved?.k === moment.k && moved.j < moment.k) {
      const { m } = runOf(moved.before, [])[moment.k];
      return moved.before.slice(0, moment.k).map((s) => Math.exp(s - m));
    }
    return moment.risen ? facts.logits.slice(0, moment.k - 1).map((s) => Math.exp(s - moment.before.m)) : null;
  };
  const draw = (ctx, _, theme) => {
    const facts = state.run();
    const moment = momentOf(facts, clock.shown());
    const { k } = moment;
    if (state.own.moved && state.own.moved.k !== k) state.own.moved = null;
    editor.stand(drawNumbers(ctx, state, moment, at.numbers, theme));
    drawNames(ctx, facts.logits, k, state.shift(), at.numbers, theme);
    drawTerms(ctx, state, moment, formerOf(facts, moment), at.terms, theme);
    drawSum(ctx, moment, facts.logits.length, at.sum, theme);
    if (withValues) drawLine(ctx, facts, moment, at.line, theme);
    say(said, `${state.own.moved ? movedSentence(facts, k, state.own.moved, state.shift()) : stepSentence(facts, k, state.shift())} ${countSentence(facts.run, k)}`);
    say(naive, ...sumsOf(facts.logits.slice(0, k).map((s) => s + state.shift())));
  };
  const layout = (width) => {
    at = stands(width, withValues);
    keepRoom(said, longest);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 640, style: STYLE, name: "running" });
  const clock = playerBar(view, model);
  const editor = curveEditor(view, {
    read: () => [model.get("logits").map((_, j) => j + 0.5), model.get("logits")],
    write: state.write(() => momentOf(state.run(), clock.shown()).k), end: state.send, kind: "running-knot", grip: "var(--cw-data)",
    limits: () => ({ y: state.reach() }), free: true, name: (j) => `Number ${j + 1}`, said: (_, y) => written(y)
  });
  view.controls.before(said);
  view.controls.after(
    row(slider(view, "shift", "add to all", {
      min: -model.get("most_shift"), max: model.get("most_shift"), step: 1, change: state.change, text: (c) => written(c).replace(".00", ""),
      title: "A number added to all of them: the terms stay, the sum without a maximum does not"
    })),
    naive, legend(withValues ? [...KEY, OUTPUT] : KEY),
    hint("Drag a number. Keys: space plays, \u2190 \u2192 one number less or more, \u2191 \u2193 move the number that has the focus (Shift: finer)."));
  const nudge = (sign) => (event) => {
    const j = editor.indexOf(event.target);
    if (j >= 0) editor.move(j, 0, model.get("logits")[j] + sign * (event.shiftKey ? 0.01 : 0.1));
  };
  onKeys(view, { ArrowUp: nudge(1), ArrowDown: nudge(-1) });
  view.follow(["logits", "values", "shift"], view.redraw);
  view.onStop(state.send);
  return view.stop;
}

export default { render };

// Reparameterization: drag N(μ, σ²) over a curve f and watch two estimates of the same gradient.

import { drawPlane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { tidy, unpack } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";

// -------------------------------------------------------------------------------- the mathematics
// reparameterization.py has the same formulas and their sources.

// Uniform numbers between 0 and 1 from a seed (Mulberry32).
function uniformsFrom(seed) {
  let word = seed >>> 0;
  return () => {
    word = (word + 0x6d2b79f5) >>> 0;
    let t = Math.imul(word ^ (word >>> 15), word | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

// The noise ε of a seed, by Box and Muller's rule.
function standardNoise(seed, n) {
  const uniform = uniformsFrom(seed);
  const noise = [];
  while (noise.length < n) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    noise.push(radius * Math.cos(angle), radius * Math.sin(angle));
  }
  return noise.slice(0, n);
}

// A cubic through values on an even grid, as a function of z that returns [f(z), f'(z)].
function smoothCurve(low, high, values) {
  const last = values.length - 1;
  const step = (high - low) / last;
  const slopes = Array.from(values, (_, i) => {
    const [a, b] = [Math.max(i - 1, 0), Math.min(i + 1, last)];
    return (values[b] - values[a]) / (step * (b - a));
  });
  return (z) => {
    const inside = Math.max(low, Math.min(z, high));
    const i = Math.min(Math.floor((inside - low) / step), last - 1);
    const t = (inside - low) / step - i;
    const chord = (values[i + 1] - values[i]) / step;
    const [left, right] = [slopes[i], slopes[i + 1]];
    const bend = 3 * chord - 2 * left - right;
    const twist = left + right - 2 * chord;
    const slope = left + t * (2 * bend + 3 * t * twist);
    return [values[i] + step * t * (left + t * (bend + t * twist)) + slope * (z - inside), slope];
  };
}

// What a sample says about the gradient of E[f(z)]: [for μ, for σ] from each estimator.
function termsOf(noise, f, slope, sigma) {
  return {
    path: [slope, slope * noise],
    score: [(f * noise) / sigma, (f * (noise * noise - 1)) / sigma]
  };
}

// The estimates from these samples: {path: {mu: {value, error}, sigma}, score}, each with its
// standard error.
function estimatesOf(curve, noise, mu, sigma) {
  const terms = noise.map((e) => termsOf(e, ...curve(mu + sigma * e), sigma));
  const summary = (way, k) => {
    const value = terms.reduce((sum, term) => sum + term[way][k], 0) / noise.length;
    const squares = terms.reduce((sum, term) => sum + (term[way][k] - value) ** 2, 0);
    return { value, error: Math.sqrt(squares / (noise.length - 1) / noise.length) };
  };
  const both = (way) => ({ mu: summary(way, 0), sigma: summary(way, 1) });
  return { path: both("path"), score: both("score") };
}

// The truth, by integration over ε: the gradient, and how far single samples lie around it.
// {mu: {value, path, score}, sigma}, the latter two standard deviations.
function exactly(curve, mu, sigma) {
  const step = 0.01;
  const sums = { mu: [0, 0, 0, 0], sigma: [0, 0, 0, 0] };
  for (let k = -800; k <= 800; k++) {
    const e = k * step;
    const weight = (step * Math.exp((-e * e) / 2)) / Math.sqrt(2 * Math.PI);
    const { path, score } = termsOf(e, ...curve(mu + sigma * e), sigma);
    ["mu", "sigma"].forEach((name, i) => {
      [path[i], path[i] ** 2, score[i], score[i] ** 2].forEach((v, j) => (sums[name][j] += weight * v));
    });
  }
  const summary = ([path, paths, score, scores]) => ({
    value: path,
    path: Math.sqrt(Math.max(0, paths - path * path)),
    score: Math.sqrt(Math.max(0, scores - score * score))
  });
  return { mu: summary(sums.mu), sigma: summary(sums.sigma) };
}

// How many times as many samples the score function needs for the same certainty, in words. Where
// one sample is enough for the reparameterization, because f is straight, no number is.
function comparison({ path, score }) {
  const ratio = (score / path) ** 2;
  if (!(ratio < 1e6)) return "more than a million times";
  return `${ratio < 10 ? ratio.toFixed(1) : Number(ratio.toPrecision(2))} times`;
}

function sentence({ mu, sigma }) {
  return "To be as sure as with the reparameterization, the score function needs " +
    `${comparison(mu)} as many samples for \u2202/\u2202\u03bc, ${comparison(sigma)} for \u2202/\u2202\u03c3.`;
}

// --------------------------------------------------------------------------------------- the look

const STYLE = `
.rp-handle {
  position: absolute; width: 30px; height: 30px; margin: -15px 0 0 -15px; border-radius: 50%;
  touch-action: none; cursor: ew-resize;
}
.rp-handle:focus { outline: none; }
.rp-handle::after {
  content: ""; position: absolute; inset: 8px; border-radius: 50%;
  background: ${PALETTE.latent}; border: 2px solid var(--cw-plot); box-shadow: 0 0 0 1px ${PALETTE.latent};
}
.rp-sigma::after { border-radius: 3px; inset: 9px; transform: rotate(45deg); }
.rp-handle:hover::after { inset: 7px; }
.rp-handle:focus-visible::after { outline: 2px solid var(--cw-accent); outline-offset: 3px; }
.rp-text {
  position: absolute; display: flex; justify-content: space-between; gap: 8px; height: 18px;
  line-height: 18px; font-size: 12px; white-space: nowrap; font-variant-numeric: tabular-nums;
  pointer-events: none;
}
.rp-head { font-size: 13px; }
.rp-head b { font-weight: 600; }
.rp-path { color: ${PALETTE.latent}; font-weight: 600; }
.rp-score { color: ${PALETTE.data}; font-weight: 600; }
.course-widget .rp-controls { flex-wrap: wrap; gap: 6px 12px; }
.rp-controls button { padding: 0 8px; border: 1px solid var(--cw-line); white-space: nowrap; }
.rp-controls .rp-reset { border-color: transparent; color: var(--cw-muted); }
.rp-group { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 4px; }
.rp-group > span { color: var(--cw-muted); white-space: nowrap; }
.rp-said { margin: 10px 2px 0; }
.rp-hint { margin: 8px 2px 0; color: var(--cw-muted); font-size: 12px; }
`;

const WAYS = ["path", "score"];
const NAMES = { path: "reparameterization", score: "score function" };
const COLOURS_OF = { path: PALETTE.latent, score: PALETTE.data };
const SYMBOLS = { mu: "\u03bc", sigma: "\u03c3" };
const MOST_GHOSTS = 60;

// Where everything stands: three lines over one axis, and below it the two gradients.
function arrangement(width) {
  const [left, right] = [10, 10];
  const across = width - left - right;
  const noise = 62; // the line of the noise
  const latent = noise + 132; // the line of the samples
  const curve = { x: left, y: latent + 32, width: across, height: 144 };
  const below = curve.y + curve.height + 36;
  const beside = width >= 560;
  const gap = 28;
  const each = beside ? (across - gap) / 2 : across;
  const gradient = (k) => ({
    x: left + (beside ? k * (each + gap) : 0), y: below + (beside ? 0 : k * 138), width: each
  });
  const gradients = { mu: gradient(0), sigma: gradient(1) };
  return { left, across, noise, latent, curve, gradients, bell: 40, hump: 76, total: gradients.sigma.y + 128 };
}

const limited = (value, low, high) => Math.max(low, Math.min(value, high));

// The next of 1, 2, 5, 10, 20, ... from a number on: an axis that changes seldom.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9));
}

// A number with as many decimals as an axis of this half-width deserves.
function rounded(value, scale) {
  const decimals = limited(2 - Math.floor(Math.log10(scale)), 0, 8);
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
}

function dot(ctx, x, y, radius, colour, rim) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.strokeStyle = rim;
  ctx.lineWidth = 1;
  ctx.stroke();
}

// Words on a ground of their own, so that lines behind them do not cross them out.
function label(ctx, text, x, y, colour, font, align, theme) {
  ctx.font = font;
  const width = ctx.measureText(text).width + 8;
  ctx.globalAlpha = 0.8;
  ctx.fillStyle = theme.plot;
  ctx.fillRect(align === "right" ? x - width + 4 : x - 4, y - 8, width, 16);
  ctx.globalAlpha = 1;
  words(ctx, text, x, y, colour, font, align);
}

function segment(ctx, x0, y0, x1, y1) {
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
}

// A bell of this height over the line y, as a path from left to right.
function bellPath(ctx, { left, across }, toX, mean, spread, y, height) {
  ctx.beginPath();
  for (let px = left; px <= left + across; px++) {
    const e = (toX.back(px) - mean) / spread;
    ctx.lineTo(px, y - height * Math.exp((-e * e) / 2));
  }
}

function filled(ctx, { left, across }, y, colour, alpha) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 2;
  ctx.stroke();
  ctx.lineTo(left + across, y);
  ctx.lineTo(left, y);
  ctx.closePath();
  ctx.globalAlpha = alpha;
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.globalAlpha = 1;
}

function words(ctx, text, x, y, colour, font, align = "left") {
  ctx.font = font;
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.fillText(text, x, y);
}

// One estimate: an arrow from zero, a whisker of one standard error, and ghosts of earlier noise.
function drawEstimate(ctx, toX, box, y, { value, error }, ghosts, colour, ink) {
  const [start, end] = [box.x, box.x + box.width];
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.globalAlpha = 0.4;
  ctx.beginPath();
  for (const ghost of ghosts) segment(ctx, toX(ghost), y - 7, toX(ghost), y + 7);
  ctx.stroke();
  ctx.globalAlpha = 1;
  const tip = toX(value);
  const zero = toX(0);
  const head = Math.min(7, Math.abs(tip - zero)) * Math.sign(tip - zero);
  ctx.lineWidth = 4;
  ctx.beginPath();
  segment(ctx, zero, y, tip - head, y);
  ctx.stroke();
  ctx.beginPath();
  ctx.moveTo(tip, y);
  ctx.lineTo(tip - head, y - 5);
  ctx.lineTo(tip - head, y + 5);
  ctx.fillStyle = colour;
  ctx.fill();
  // In ink, since one half of it lies on the arrow.
  ctx.strokeStyle = ink;
  ctx.lineWidth = 1.25;
  ctx.beginPath();
  const whisker = [toX(value - error), toX(value + error)];
  segment(ctx, whisker[0], y, whisker[1], y);
  for (const x of whisker) segment(ctx, x, y - 5, x, y + 5);
  ctx.stroke();
  // An arrow that leaves the axis says so at its edge.
  for (const [beyond, x, way] of [[tip > end, end, -1], [tip < start, start, 1]]) {
    if (!beyond) continue;
    ctx.beginPath();
    ctx.moveTo(x, y);
    ctx.lineTo(x + 8 * way, y - 7);
    ctx.lineTo(x + 8 * way, y + 7);
    ctx.fill();
  }
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const values = unpack(model).f.values;
  const [low, high] = model.get("extent");
  const curve = smoothCurve(low, high, values);
  // ε has the axis of z where that axis reaches far enough, and one of its own elsewhere.
  const own = low > -3 || high < 3;
  const reach = own ? [-4, 4] : [low, high];

  const { change, send } = throttledChanges(model);
  const moveTo = (mu, sigma) =>
    change({ mu: limited(mu, low, high), sigma: limited(sigma, ...model.get("sigma_range")) });

  // What is drawn follows from these four numbers alone, and so does all that is computed from them.
  let found = null;
  const current = () => {
    const [mu, sigma, seed, n] = ["mu", "sigma", "seed", "n_samples"].map((name) => model.get(name));
    const place = `${mu} ${sigma} ${n}`;
    if (found?.place === place && found.seed === seed) return found;
    const noise = standardNoise(seed, n);
    const estimates = estimatesOf(curve, noise, mu, sigma);
    // Earlier estimates stay in sight as long as nothing but the noise has changed.
    const stays = found?.place === place;
    const ghosts = stays ? [...found.ghosts, found.estimates].slice(-MOST_GHOSTS) : [];
    const exact = stays ? found.exact : exactly(curve, mu, sigma);
    found = { place, seed, mu, sigma, noise, estimates, exact, ghosts };
    return found;
  };

  // ------------------------------------------------------------------------------------- drawing

  const draw = (ctx, { width }, theme) => {
    const seen = current();
    const boxes = arrangement(width);
    const toX = (z) => boxes.left + ((z - low) / (high - low)) * boxes.across;
    toX.back = (px) => low + ((px - boxes.left) / boxes.across) * (high - low);
    drawPath(ctx, boxes, toX, seen, theme);
    drawCurve(ctx, boxes, toX, seen, theme);
    for (const name of ["mu", "sigma"]) drawGradient(ctx, boxes.gradients[name], name, seen, theme);
    place(boxes, toX, seen);
    write(boxes, seen);
  };

  function drawPath(ctx, boxes, toX, { noise, mu, sigma }, theme) {
    const { left, across, noise: top, latent, bell, hump } = boxes;
    const noiseX = (e) => left + ((e - reach[0]) / (reach[1] - reach[0])) * across;
    noiseX.back = (px) => reach[0] + ((px - left) / across) * (reach[1] - reach[0]);
    const font = `600 12px ${theme.font}`;
    const fine = `11px ${theme.font}`;
    const many = noise.length > 40;
    drawPlane(ctx, { x: left, y: 0, width: across, height: latent + 8 }, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, 0, across, latent + 8);
    ctx.clip();
    bellPath(ctx, boxes, noiseX, 0, 1, top, bell);
    filled(ctx, boxes, top, PALETTE.noise, 0.18);
    bellPath(ctx, boxes, toX, mu, sigma, latent, hump);
    filled(ctx, boxes, latent, PALETTE.latent, 0.18);
    ctx.strokeStyle = PALETTE.noise;
    ctx.lineWidth = 1;
    ctx.globalAlpha = many ? 0.4 : 0.75;
    ctx.beginPath();
    for (const e of noise) segment(ctx, noiseX(e), top, toX(mu + sigma * e), latent);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = theme.line;
    ctx.beginPath();
    segment(ctx, left, top + 0.5, left + across, top + 0.5);
    segment(ctx, left, latent + 0.5, left + across, latent + 0.5);
    ctx.stroke();
    const right = left + across - 8;
    const away = toX(mu) > left + across / 2; // where the density is not
    const [x, align] = away ? [left + 8, "left"] : [right, "right"];
    label(ctx, "z = \u03bc + \u03c3 \u03b5", x, latent - 34, PALETTE.latent, font, align, theme);
    label(ctx, `\u03bc = ${mu.toFixed(2)}   \u03c3 = ${sigma.toFixed(2)}`.replace("-", "\u2212"),
      x, latent - 18, theme.ink, fine, align, theme);
    const radius = many ? 2.5 : 3.5;
    for (const e of noise) dot(ctx, noiseX(e), top, radius, PALETTE.noise, theme.plot);
    for (const e of noise) dot(ctx, toX(mu + sigma * e), latent, radius, PALETTE.latent, theme.plot);
    ctx.restore();
    words(ctx, "noise \u03b5 ~ N(0, 1)", left + 8, 13, theme.muted, font);
    words(ctx, "stays as it is", left + 8, 29, theme.muted, fine);
    if (own) {
      for (const e of [-2, 0, 2]) words(ctx, tidy(e), noiseX(e), top + 12, theme.muted, fine, "center");
    }
  }

  // The range of f, and the height its bars stand on: zero where zero is in sight.
  const lowest = values.reduce((a, b) => Math.min(a, b));
  const highest = values.reduce((a, b) => Math.max(a, b));
  const margin = 0.12 * (highest - lowest) || 1;
  const ground = lowest <= 0 && highest >= 0 ? 0 : lowest - margin;

  function drawCurve(ctx, boxes, toX, { noise, mu, sigma }, theme) {
    const box = boxes.curve;
    const toY = (f) => box.y + box.height * (1 - (f - lowest + margin) / (highest - lowest + 2 * margin));
    const many = noise.length > 40;
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    const samples = noise.map((e) => mu + sigma * e);
    const spots = samples.map((z) => {
      const [f, slope] = curve(z);
      // The slope on the screen: y runs downwards.
      const rise = (slope * (toY(1) - toY(0))) / (toX(1) - toX(0));
      return { x: toX(z), y: toY(f), dx: 13 / Math.hypot(1, rise), dy: (13 * rise) / Math.hypot(1, rise) };
    });
    ctx.lineWidth = 1;
    ctx.strokeStyle = theme.line;
    ctx.beginPath();
    segment(ctx, box.x, toY(ground), box.x + box.width, toY(ground));
    ctx.stroke();
    // The heights, which are all that the score function has.
    ctx.strokeStyle = PALETTE.data;
    ctx.globalAlpha = many ? 0.35 : 0.6;
    ctx.lineWidth = many ? 1 : 1.5;
    ctx.beginPath();
    for (const { x, y } of spots) segment(ctx, x, toY(ground), x, y);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = PALETTE.model;
    ctx.lineWidth = 2.5;
    ctx.lineJoin = "round";
    ctx.beginPath();
    for (let px = box.x; px <= box.x + box.width; px++) ctx.lineTo(px, toY(curve(toX.back(px))[0]));
    ctx.stroke();
    // The slopes, which the reparameterized gradient is made of.
    ctx.strokeStyle = PALETTE.latent;
    ctx.lineWidth = 2;
    ctx.globalAlpha = many ? 0.5 : 1;
    ctx.beginPath();
    for (const { x, y, dx, dy } of spots) segment(ctx, x - dx, y - dy, x + dx, y + dy);
    ctx.stroke();
    ctx.globalAlpha = 1;
    for (const { x, y } of spots) dot(ctx, x, y, many ? 2.5 : 3.5, PALETTE.latent, theme.plot);
    ctx.restore();
    const floor = box.y + box.height;
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    segment(ctx, box.x, floor + 0.5, box.x + box.width, floor + 0.5);
    for (const value of ticks(low, high, 8)) {
      const x = Math.round(toX(value)) + 0.5;
      segment(ctx, x, floor, x, floor + 4);
      words(ctx, tidy(value), limited(x, box.x + 6, box.x + box.width - 6), floor + 13, theme.muted,
        `11px ${theme.font}`, "center");
    }
    ctx.stroke();
    legend(ctx, box, theme);
  }

  // Above the curve: what the colours on it mean.
  function legend(ctx, box, theme) {
    const font = `600 12px ${theme.font}`;
    let x = box.x + 8;
    for (const [text, colour] of [
      ["f(z), to be made small", PALETTE.model], ["slopes", PALETTE.latent], ["heights", PALETTE.data]
    ]) {
      words(ctx, text, x, box.y - 12, colour, font);
      x += ctx.measureText(text).width + 16;
    }
  }

  // Half the width of a gradient's axis. It does not follow the number of samples: that more of them
  // are surer must be seen.
  const scaleOf = ({ value, score }) => roundUp(Math.max(0.5 * score, 1.3 * Math.abs(value), 1e-6));

  function drawGradient(ctx, { x, y, width }, name, { estimates, exact, ghosts }, theme) {
    const scale = scaleOf(exact[name]);
    const box = { x, y: y + 20, width, height: 84 };
    const at = (value) => x + (width * (value + scale)) / (2 * scale);
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    segment(ctx, Math.round(at(0)) + 0.5, box.y, Math.round(at(0)) + 0.5, box.y + box.height);
    ctx.stroke();
    WAYS.forEach((way, k) => {
      const earlier = ghosts.map((ghost) => ghost[way][name].value);
      drawEstimate(ctx, at, box, box.y + 30 + 41 * k, estimates[way][name], earlier, COLOURS_OF[way], theme.ink);
    });
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([4, 3]);
    ctx.beginPath();
    for (const y of [30, 71]) {
      segment(ctx, at(exact[name].value), box.y + y - 11, at(exact[name].value), box.y + y + 13);
    }
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.restore();
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    const floor = box.y + box.height;
    for (const value of [-scale, -scale / 2, 0, scale / 2, scale]) {
      const px = Math.round(at(value)) + 0.5;
      segment(ctx, px, floor, px, floor + 4);
      const align = value === -scale ? "left" : value === scale ? "right" : "center";
      words(ctx, tidy(value), px, floor + 13, theme.muted, `11px ${theme.font}`, align);
    }
    segment(ctx, box.x, floor + 0.5, box.x + box.width, floor + 0.5);
    ctx.stroke();
  }

  const layout = (width) => {
    // Room for the longest of all sentences, so that nothing below moves while one drags.
    const text = said.textContent;
    said.style.minHeight = "";
    said.textContent = sentence({ mu: { path: 1, score: 30 }, sigma: { path: 0, score: 1 } });
    said.style.minHeight = `${said.offsetHeight}px`;
    said.textContent = text;
    return arrangement(width).total;
  };
  const view = outline({ model, el, draw, maxWidth: 720, layout });
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------------- what is dragged

  let drawn = null; // the axis as last drawn
  let side = 1; // the shoulder that is held: right of the peak, or left where there is no room

  const handle = (name, label, hold) => {
    const node = element("div", {
      class: `rp-handle rp-${name}`, role: "slider", tabindex: "0", "aria-label": label
    });
    let grip = null;
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // no text selection, no scrolling
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      grip = { x: event.clientX, move: hold() };
      node.held = true;
    });
    node.addEventListener("pointermove", (event) => {
      if (grip && drawn) grip.move(drawn.back(event.clientX - grip.x) - drawn.back(0));
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      node.addEventListener(end, () => {
        if (grip) send();
        grip = null;
        node.held = false;
        view.redraw();
      });
    }
    view.stage.append(node);
    return node;
  };
  const handles = {
    mu: handle("mu", "Mean \u03bc", () => {
      const mu = model.get("mu");
      return (by) => moveTo(mu + by, model.get("sigma"));
    }),
    sigma: handle("sigma", "Standard deviation \u03c3", () => {
      const sigma = model.get("sigma");
      return (by) => moveTo(model.get("mu"), sigma + side * by);
    })
  };

  function place(boxes, toX, { mu, sigma }) {
    drawn = toX;
    if (!handles.sigma.held) side = mu + sigma <= high ? 1 : -1;
    const spots = {
      mu: [toX(mu), boxes.latent - boxes.hump],
      sigma: [toX(mu + side * sigma), boxes.latent - boxes.hump * Math.exp(-0.5)]
    };
    const ranges = { mu: [low, high], sigma: model.get("sigma_range") };
    for (const [name, value] of [["mu", mu], ["sigma", sigma]]) {
      const node = handles[name];
      node.style.left = `${limited(spots[name][0], 2, boxes.left + boxes.across + 8)}px`;
      node.style.top = `${spots[name][1]}px`;
      node.setAttribute("aria-valuemin", ranges[name][0].toFixed(2));
      node.setAttribute("aria-valuemax", ranges[name][1].toFixed(2));
      node.setAttribute("aria-valuenow", value.toFixed(2));
      node.setAttribute("aria-valuetext", `${SYMBOLS[name]} ${value.toFixed(2)}`);
    }
  }

  // ----------------------------------------------------------------------- what is written beside it

  const line = (kind, ...parts) => {
    const node = element("div", { class: `rp-text rp-${kind}` }, ...parts);
    view.stage.append(node);
    return node;
  };
  const written = {};
  for (const name of ["mu", "sigma"]) {
    const exact = element("span", { class: "rp-exact" });
    const lines = { exact, head: line("head", element("b", {}, `\u2202E[f(z)] / \u2202${SYMBOLS[name]}`), exact) };
    for (const way of WAYS) {
      lines[`${way}Value`] = element("span", { class: "rp-value" });
      lines[way] = line(way, element("span", {}, NAMES[way]), lines[`${way}Value`]);
    }
    written[name] = lines;
  }
  const said = element("p", { class: "rp-said" });
  view.root.insertBefore(said, view.controls);

  const settled = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  function write(boxes, { estimates, exact }) {
    for (const name of ["mu", "sigma"]) {
      const { x, y, width } = boxes.gradients[name];
      const scale = scaleOf(exact[name]);
      settled(written[name].exact, `exact: ${rounded(exact[name].value, scale)}`);
      const stand = (node, top, inset) =>
        Object.assign(node.style, { left: `${x + inset}px`, top: `${top}px`, width: `${width - 2 * inset}px` });
      stand(written[name].head, y, 0);
      WAYS.forEach((way, k) => {
        const { value, error } = estimates[way][name];
        settled(written[name][`${way}Value`], `${rounded(value, scale)} \u00b1 ${rounded(error, scale)}`);
        stand(written[name][way], y + 22 + 41 * k, 6);
      });
    }
    settled(said, sentence(exact));
  }

  // ------------------------------------------------------------------------------ buttons and keys

  const press = (label, title, act) => {
    const node = element("button", { type: "button", title }, label);
    node.addEventListener("click", act);
    return node;
  };
  const newNoise = (more = {}) => change({ ...more, seed: (model.get("seed") + 1) % 2 ** 32 });
  const counts = [8, 24, 96].map((n) => [n, press(String(n), `${n} samples`, () => change({ n_samples: n }))]);
  // As in training: a step along the estimate, and fresh noise for the next one.
  const descend = (way) => {
    const { estimates, mu, sigma } = current();
    const size = model.get("step_size");
    moveTo(mu - size * estimates[way].mu.value, sigma - size * estimates[way].sigma.value);
    newNoise();
  };
  const reset = press("Reset", "Bring back the first \u03bc and \u03c3", () => moveTo(...model.get("start")));
  reset.classList.add("rp-reset");
  view.controls.classList.add("rp-controls");
  view.controls.append(
    press("New noise", "Other samples from the same density", () => newNoise()),
    element("div", { class: "rp-group" }, element("span", {}, "samples"), ...counts.map(([, node]) => node)),
    element(
      "div", { class: "rp-group" }, element("span", {}, "downhill by"),
      ...WAYS.map((way) =>
        press(NAMES[way], `Move \u03bc and \u03c3 a little against this gradient, then draw new noise`, () => descend(way)))
    ),
    reset
  );
  const showCounts = () => {
    for (const [n, node] of counts) node.setAttribute("aria-pressed", String(model.get("n_samples") === n));
  };
  view.root.append(element("p", { class: "rp-hint" },
    "Drag the peak to move \u03bc, the shoulder to change \u03c3; or use the arrow keys (with Shift: finer). " +
    "Press New noise again and again: earlier estimates stay as faint marks."));

  const nudge = (forMu, forSigma) => (event) => {
    const unit = (high - low) / (event.shiftKey ? 800 : 100);
    moveTo(model.get("mu") + forMu * unit, model.get("sigma") + (forSigma * unit) / 2);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  });

  const refresh = () => {
    showCounts();
    current(); // an estimate that no frame has shown counts among the earlier ones, too
    view.redraw();
  };
  for (const name of ["mu", "sigma", "seed", "n_samples"]) {
    model.on(`change:${name}`, refresh);
    view.onStop(() => model.off(`change:${name}`, refresh));
  }
  view.onStop(send);
  showCounts();
  return view.stop;
}

export default { render };

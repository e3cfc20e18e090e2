// Reparameterization: drag N(μ, σ²) over a curve f and watch two estimates of the same gradient.

import { drawPlane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, choice, group } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { standardNoise } from "./parts/noise.js";
import { hint, keepRoom, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, groundedWords, inside, segment, words } from "./parts/panel.js";
import STYLE from "./reparameterization.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// reparameterization.py has the same formulas and their sources.

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

// The next of 1, 2, 5, 10, 20, ... from a number on: an axis that changes seldom.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9));
}

// A number with as many decimals as an axis of this half-width deserves.
function rounded(value, scale) {
  const decimals = clamp(2 - Math.floor(Math.log10(scale)), 0, 8);
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
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

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const values = unpack(model).f.values;
  const [low, high] = model.get("extent");
  const curve = smoothCurve(low, high, values);
  const { change, send } = throttledChanges(model);
  const moveTo = (mu, sigma) =>
    change({ mu: clamp(mu, low, high), sigma: clamp(sigma, ...model.get("sigma_range")) });

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
  const newNoise = () => change({ seed: (model.get("seed") + 1) % 2 ** 32 });
  // As in training: a step along the estimate, and fresh noise for the next one.
  const descend = (way) => {
    const { estimates, mu, sigma } = current();
    const size = model.get("step_size");
    moveTo(mu - size * estimates[way].mu.value, sigma - size * estimates[way].sigma.value);
    newNoise();
  };
  // The range of f, and the height its bars stand on: zero where zero is in sight.
  const [lowest, highest] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const margin = 0.12 * (highest - lowest) || 1;
  const ground = lowest <= 0 && highest >= 0 ? 0 : lowest - margin;
  return {
    low, high, curve, change, send, moveTo, current, newNoise, descend, ground,
    bottom: lowest - margin, top: highest + margin
  };
}

// ------------------------------------------------------------------------------------ the picture

// From z, or ε, to the place on the screen, and back.
function axisOf({ left, across }, low, high) {
  const toX = (value) => left + ((value - low) / (high - low)) * across;
  toX.back = (px) => low + ((px - left) / across) * (high - low);
  return toX;
}

function drawPath(ctx, state, boxes, toX, { noise, mu, sigma }, theme) {
  const { low, high } = state;
  const { left, across, noise: top, latent, bell, hump } = boxes;
  // ε has the axis of z where that axis reaches far enough, and one of its own elsewhere.
  const own = low > -3 || high < 3;
  const noiseX = own ? axisOf(boxes, -4, 4) : axisOf(boxes, low, high);
  const font = `600 12px ${theme.font}`;
  const fine = `11px ${theme.font}`;
  const many = noise.length > 40;
  const box = { x: left, y: 0, width: across, height: latent + 8 };
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
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
    for (const y of [top, latent]) segment(ctx, left, y + 0.5, left + across, y + 0.5);
    ctx.stroke();
    const away = toX(mu) > left + across / 2; // where the density is not
    const x = away ? left + 8 : left + across - 8;
    const align = away ? "left" : "right";
    groundedWords(ctx, "z = \u03bc + \u03c3 \u03b5", x, latent - 34, theme.words.latent, font, theme, { align });
    groundedWords(ctx, `\u03bc = ${mu.toFixed(2)}   \u03c3 = ${sigma.toFixed(2)}`.replace("-", "\u2212"),
      x, latent - 18, theme.ink, fine, theme, { align });
    const radius = many ? 2.5 : 3.5;
    for (const e of noise) dot(ctx, noiseX(e), top, radius, PALETTE.noise, theme.plot);
    for (const e of noise) dot(ctx, toX(mu + sigma * e), latent, radius, PALETTE.latent, theme.plot);
  });
  words(ctx, "noise \u03b5 ~ N(0, 1)", left + 8, 13, theme.muted, font);
  words(ctx, "stays as it is", left + 8, 29, theme.muted, fine);
  if (own) for (const e of [-2, 0, 2]) words(ctx, tidy(e), noiseX(e), top + 12, theme.muted, fine, "center");
}

function drawCurve(ctx, state, box, toX, { noise, mu, sigma }, theme) {
  const { curve, ground, bottom, top, low, high } = state;
  const toY = (f) => box.y + box.height * (1 - (f - bottom) / (top - bottom));
  const many = noise.length > 40;
  const spots = noise.map((e) => {
    const z = mu + sigma * e;
    const [f, slope] = curve(z);
    // The slope on the screen: y runs downwards.
    const rise = (slope * (toY(1) - toY(0))) / (toX(1) - toX(0));
    const length = 13 / Math.hypot(1, rise);
    return { x: toX(z), y: toY(f), dx: length, dy: length * rise };
  });
  const lines = (colour, width, alpha, each) => {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.globalAlpha = alpha;
    ctx.beginPath();
    each();
    ctx.stroke();
    ctx.globalAlpha = 1;
  };
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
    ctx.lineJoin = "round";
    lines(theme.line, 1, 1, () => segment(ctx, box.x, toY(ground), box.x + box.width, toY(ground)));
    // The heights, which are all that the score function has.
    lines(PALETTE.data, many ? 1 : 1.5, many ? 0.35 : 0.6, () => {
      for (const { x, y } of spots) segment(ctx, x, toY(ground), x, y);
    });
    lines(PALETTE.model, 2.5, 1, () => {
      for (let px = box.x; px <= box.x + box.width; px++) ctx.lineTo(px, toY(curve(toX.back(px))[0]));
    });
    // The slopes, which the reparameterized gradient is made of.
    lines(PALETTE.latent, 2, many ? 0.5 : 1, () => {
      for (const { x, y, dx, dy } of spots) segment(ctx, x - dx, y - dy, x + dx, y + dy);
    });
    for (const { x, y } of spots) dot(ctx, x, y, many ? 2.5 : 3.5, PALETTE.latent, theme.plot);
  });
  const floor = box.y + box.height;
  lines(theme.line, 1, 1, () => {
    segment(ctx, box.x, floor + 0.5, box.x + box.width, floor + 0.5);
    for (const value of ticks(low, high, 8)) {
      const x = Math.round(toX(value)) + 0.5;
      segment(ctx, x, floor, x, floor + 4);
      words(ctx, tidy(value), clamp(x, box.x + 6, box.x + box.width - 6), floor + 13, theme.muted,
        `11px ${theme.font}`, "center");
    }
  });
  // Above the curve: what the colours on it mean.
  const font = `600 12px ${theme.font}`;
  let x = box.x + 8;
  for (const [text, role] of [["f(z), to be made small", "model"], ["slopes", "latent"], ["heights", "data"]]) {
    words(ctx, text, x, box.y - 12, theme.words[role], font);
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
  const truth = at(exact[name].value);
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
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
    for (const middle of [30, 71]) segment(ctx, truth, box.y + middle - 11, truth, box.y + middle + 13);
    ctx.stroke();
    ctx.setLineDash([]);
  });
  const floor = box.y + box.height;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const value of [-scale, -scale / 2, 0, scale / 2, scale]) {
    const px = Math.round(at(value)) + 0.5;
    segment(ctx, px, floor, px, floor + 4);
    const align = value === -scale ? "left" : value === scale ? "right" : "center";
    words(ctx, tidy(value), px, floor + 13, theme.muted, `11px ${theme.font}`, align);
  }
  segment(ctx, box.x, floor + 0.5, box.x + box.width, floor + 0.5);
  ctx.stroke();
}

// The numbers of both gradients, on the stage beside their arrows.
function gradientTexts(stage) {
  const line = (kind, ...parts) => {
    const node = element("div", { class: `rp-text rp-${kind}` }, ...parts);
    stage.append(node);
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
  return (boxes, { estimates, exact }) => {
    for (const [name, lines] of Object.entries(written)) {
      const { x, y, width } = boxes.gradients[name];
      const scale = scaleOf(exact[name]);
      say(lines.exact, `exact: ${rounded(exact[name].value, scale)}`);
      const stand = (node, top, inset) =>
        Object.assign(node.style, { left: `${x + inset}px`, top: `${top}px`, width: `${width - 2 * inset}px` });
      stand(lines.head, y, 0);
      WAYS.forEach((way, k) => {
        const { value, error } = estimates[way][name];
        say(lines[`${way}Value`], `${rounded(value, scale)} \u00b1 ${rounded(error, scale)}`);
        stand(lines[way], y + 22 + 41 * k, 6);
      });
    }
  };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { low, high, current, moveTo, change, send } = state;
  const said = element("p", { class: "rp-said" });
  let toX = null; // the axis as last drawn
  let side = 1; // the shoulder that is held: right of the peak, or left where there is no room

  const draw = (ctx, { width }, theme) => {
    const seen = current();
    const boxes = arrangement(width);
    toX = axisOf(boxes, low, high);
    drawPath(ctx, state, boxes, toX, seen, theme);
    drawCurve(ctx, state, boxes.curve, toX, seen, theme);
    for (const name of ["mu", "sigma"]) drawGradient(ctx, boxes.gradients[name], name, seen, theme);
    place(boxes, seen);
    write(boxes, seen);
    say(said, sentence(seen.exact));
  };
  const layout = (width) => {
    keepRoom(said, sentence({ mu: { path: 1, score: 30 }, sigma: { path: 0, score: 1 } }));
    return arrangement(width).total;
  };
  const view = outline({ model, el, draw, maxWidth: 720, layout, style: STYLE });
  const write = gradientTexts(view.stage);

  const letGo = () => {
    send();
    view.redraw();
  };
  const handleOf = (shape, label, hold) => handle(view, label, {
    shape, colour: PALETTE.latent, end: letGo,
    start: ([x]) => {
      const move = hold();
      return ([to]) => move(toX.back(to) - toX.back(x));
    }
  });
  const handles = {
    mu: handleOf("round rp-mu", "Mean \u03bc", () => {
      const mu = model.get("mu");
      return (by) => moveTo(mu + by, model.get("sigma"));
    }),
    sigma: handleOf("diamond rp-sigma", "Standard deviation \u03c3", () => {
      const sigma = model.get("sigma");
      return (by) => moveTo(model.get("mu"), sigma + side * by);
    })
  };
  function place({ left, across, latent, hump }, { mu, sigma }) {
    if (!handles.sigma.held) side = mu + sigma <= high ? 1 : -1;
    const spots = {
      mu: [toX(mu), latent - hump, mu, [low, high]],
      sigma: [toX(mu + side * sigma), latent - hump * Math.exp(-0.5), sigma, model.get("sigma_range")]
    };
    for (const [name, [x, y, value, range]] of Object.entries(spots)) {
      handles[name].range(range.map((end) => end.toFixed(2)));
      handles[name].stand(clamp(x, 2, left + across + 8), y, value, `${SYMBOLS[name]} ${value.toFixed(2)}`);
    }
  }

  view.controls.before(said);
  view.controls.classList.add("cw-row", "rp-controls");
  view.controls.append(
    button("New noise", state.newNoise, { title: "Other samples from the same density" }),
    choice(view, "n_samples", "samples", [8, 24, 96].map((n) => [n, String(n), `${n} samples`]), { change }),
    group("downhill by", ...WAYS.map((way) => button(NAMES[way], () => state.descend(way),
      { title: "Move \u03bc and \u03c3 a little against this gradient, then draw new noise" }))),
    button("Reset", () => moveTo(...model.get("start")), { title: "Bring back the first \u03bc and \u03c3", class: "cw-quiet" })
  );
  view.root.append(hint(
    "Drag the peak to move \u03bc, the shoulder to change \u03c3; or use the arrow keys (with Shift: finer). " +
    "Press New noise again and again: earlier estimates stay as faint marks."));

  const nudge = (forMu, forSigma) => (event) => {
    const unit = (high - low) / (event.shiftKey ? 800 : 100);
    moveTo(model.get("mu") + forMu * unit, model.get("sigma") + (forSigma * unit) / 2);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  });
  view.follow(["mu", "sigma", "seed", "n_samples"], () => {
    current(); // an estimate that no frame has shown counts among the earlier ones, too
    view.redraw();
  });
  view.onStop(send);
  return view.stop;
}

export default { render };

// DensityWarp: drag the knots of z = f(x) and watch p(z) become p(x) = p(f(x)) f'(x).

import { drawPlane, plane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button } from "./parts/controls.js";
import { curveEditor } from "./parts/curve_editor.js";
import { monotoneCurve } from "./parts/curves.js";
import { tidy } from "./parts/data.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { clamp, inside, segment, trace, words } from "./parts/panel.js";
import STYLE from "./density_warp.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics

const DENSITIES = {
  gaussian: (z) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI),
  logistic: (z) => 1 / (4 * Math.cosh(Math.min(Math.abs(z), 700) / 2) ** 2)
};

// Simpson's rule, piece by piece between the breaks: the slope of f has a kink at every knot.
function integrate(f, breaks, parts = 80) {
  let sum = 0;
  for (let i = 0; i + 1 < breaks.length; i++) {
    const step = (breaks[i + 1] - breaks[i]) / parts;
    for (let k = 0; k <= parts; k++) {
      const weight = k === 0 || k === parts ? 1 : k % 2 ? 4 : 2;
      sum += (weight * step * f(breaks[i] + k * step)) / 3;
    }
  }
  return sum;
}

// The areas of the strip under p(x) and of its image under p(z), and the whole area under p(x).
// Each is a sum over its own density: that they agree is a result, not an assumption.
function areas(xs, ys, base, [x0, x1]) {
  const f = monotoneCurve(xs, ys);
  const prior = DENSITIES[base];
  const density = (x) => {
    const [z, slope] = f(x);
    return prior(z) * slope;
  };
  const between = (low, high, inner) => [low, ...inner.filter((v) => v > low && v < high), high];
  const [z0, z1] = [f(x0)[0], f(x1)[0]];
  // Out to where the base has no mass left that three digits could show.
  const [first, last] = [f(-Infinity)[1], f(Infinity)[1]];
  const low = Math.min(xs[0], xs[0] - (ys[0] + 16) / first);
  const high = Math.max(xs.at(-1), xs.at(-1) + (16 - ys.at(-1)) / last);
  return {
    data: integrate(density, between(x0, x1, xs)),
    latent: integrate(prior, between(z0, z1, ys)),
    total: integrate(density, between(low, high, xs), 160)
  };
}

// --------------------------------------------------------------------------------------- the look

// Three panels that share their axes: p(z) on the left, the curve, p(x) below it.
function panels(width) {
  const [edge, gap] = [34, 6];
  const side = Math.round(clamp(0.2 * width, 92, 116));
  const inner = width - edge - side - gap - 10;
  const height = Math.round(0.76 * inner);
  const low = Math.round(Math.max(76, 0.3 * inner));
  return {
    left: { x: edge, y: 8, width: side, height },
    curve: { x: edge + side + gap, y: 8, width: inner, height },
    below: { x: edge + side + gap, y: 8 + height + gap, width: inner, height: low },
    total: 8 + height + gap + low + 24
  };
}

function border(ctx, box, theme) {
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(box.x) + 0.5, Math.round(box.y) + 0.5, box.width - 1, box.height - 1);
}

function numbers(ctx, limit, { left, below }, map, theme) {
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  const font = `11px ${theme.font}`;
  ctx.beginPath();
  for (const value of ticks(-limit, limit, 4)) {
    const [x, y] = [Math.round(map.x(value)) + 0.5, Math.round(map.y(value)) + 0.5];
    const floor = below.y + below.height;
    segment(ctx, x, floor, x, floor + 4);
    words(ctx, tidy(value), x, floor + 8, theme.muted, font, "center", "top");
    segment(ctx, left.x - 4, y, left.x, y);
    words(ctx, tidy(value), left.x - 7, y, theme.muted, font, "right");
  }
  ctx.stroke();
}

// The area between a line through points and a straight floor.
function area(ctx, points, from, to, colour, alpha) {
  trace(ctx, [...points, to, from]);
  ctx.closePath();
  ctx.globalAlpha = alpha;
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.globalAlpha = 1;
}

function stroke(ctx, points, colour, width) {
  trace(ctx, points);
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.stroke();
}

function spread(low, high, count) {
  return Array.from({ length: count + 1 }, (_, i) => low + ((high - low) * i) / count);
}

// -------------------------------------------------------------------------------------- the state

// The model holds the truth: what a drag changes is set there, and every view draws from it.
function stateOf(model) {
  const { change, send } = throttledChanges(model);
  const limit = () => model.get("limit");
  let whole = null; // while one of two new lists is still missing, the last pair that fits
  const knots = () => {
    const pair = [model.get("knots_x"), model.get("knots_y")];
    if (pair[0].length === pair[1].length) whole = pair;
    return whole;
  };
  const moveKnot = (k, x, y) => {
    const [xs, ys] = knots();
    change({ knots_x: xs.with(k, x), knots_y: ys.with(k, y) });
  };
  const moveStrip = (part, by, [x0, x1]) => {
    const [bound, least] = [limit(), limit() / 50];
    if (part === "strip") {
      const shift = clamp(by, Math.min(0, -bound - x0), Math.max(0, bound - x1));
      change({ interval: [x0 + shift, x1 + shift] });
    } else if (part === "start") {
      change({ interval: [clamp(x0 + by, -bound, x1 - least), x1] });
    } else {
      change({ interval: [x0, clamp(x1 + by, x0 + least, bound)] });
    }
  };
  // From the present curve to another in a quarter of a second, so that the eye can follow.
  let morph = 0;
  const stay = () => cancelAnimationFrame(morph);
  const goTo = ([toX, toY]) => {
    stay();
    const [fromX, fromY] = knots();
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (still || fromX.length !== toX.length) {
      change({ knots_x: [...toX], knots_y: [...toY] });
      send();
      return;
    }
    const start = performance.now();
    const tick = (now) => {
      const t = clamp((now - start) / 250, 0, 1);
      const share = t * t * (3 - 2 * t);
      // A mixture of two increasing lists is increasing.
      const mix = (from, to) => to.map((v, i) => (t === 1 ? v : from[i] + (v - from[i]) * share));
      change({ knots_x: mix(fromX, toX), knots_y: mix(fromY, toY) });
      if (t < 1) morph = requestAnimationFrame(tick);
      else send();
    };
    morph = requestAnimationFrame(tick);
  };
  return { limit, knots, moveKnot, moveStrip, goTo, stay, send };
}

// ------------------------------------------------------------------------------------ the picture

// The three panels; returns what the handles and the numbers need of it.
function drawPanels(ctx, boxes, { bound, knots: [xs, ys], interval: [x0, x1], base }, theme) {
  const { left, curve, below } = boxes;
  const map = plane([-bound, bound, -bound, bound], curve);
  const f = monotoneCurve(xs, ys);
  const prior = DENSITIES[base];
  const [z0, z1] = [f(x0)[0], f(x1)[0]];
  const onCurve = (x) => [map.x(x), map.y(f(x)[0])];
  const density = (x) => {
    const [z, slope] = f(x);
    return prior(z) * slope;
  };
  const across = spread(-bound, bound, Math.round(curve.width));
  const strip = spread(x0, x1, 120);

  // One scale for both densities, such that equal areas are equal areas on the screen. It gives
  // way where p(x) grows a tall peak.
  const peak = 1.06 * Math.max(...across.map(density));
  const up = (0.94 * below.height) / clamp(peak, 2 * prior(0), 20 * prior(0));
  const out = (up * curve.width) / curve.height;
  const [floor, wall, ground] = [below.y + below.height, left.x, curve.y + curve.height];
  const inX = (x) => [map.x(x), floor - up * density(x)];
  const inZ = (z) => [wall + out * prior(z), map.y(z)];

  for (const box of [left, curve, below]) drawPlane(ctx, box, theme);
  inside(ctx, curve, () => {
    stroke(ctx, [[map.x(-bound), map.y(-bound)], [map.x(bound), map.y(bound)]], theme.line, 1);
    const path = strip.map(onCurve);
    area(ctx, path, [map.x(x0), ground], [map.x(x1), ground], PALETTE.data, 0.16);
    area(ctx, path, [curve.x, map.y(z0)], [curve.x, map.y(z1)], PALETTE.latent, 0.16);
    ctx.lineJoin = "round";
    stroke(ctx, across.map(onCurve), PALETTE.model, 2.5);
  });
  inside(ctx, below, () => {
    area(ctx, across.map(inX), [map.x(-bound), floor], [map.x(bound), floor], PALETTE.data, 0.14);
    area(ctx, strip.map(inX), [map.x(x0), floor], [map.x(x1), floor], PALETTE.data, 0.6);
    stroke(ctx, across.map(inX), PALETTE.data, 2);
  });
  inside(ctx, left, () => {
    const shape = spread(-bound, bound, Math.round(left.height)).map(inZ);
    area(ctx, shape, [wall, map.y(-bound)], [wall, map.y(bound)], PALETTE.latent, 0.14);
    area(ctx, spread(z0, z1, 120).map(inZ), [wall, map.y(z0)], [wall, map.y(z1)], PALETTE.latent, 0.6);
    stroke(ctx, shape, PALETTE.latent, 2);
  });
  for (const box of [left, curve, below]) border(ctx, box, theme);
  numbers(ctx, bound, boxes, map, theme);
  const caption = (text, x, { y }, colour, align) =>
    words(ctx, text, x, y + 7, colour, `600 12px ${theme.font}`, align, "top");
  caption("p(z)", left.x + left.width - 7, left, theme.words.latent, "right");
  caption("z = f(x)", curve.x + 8, curve, theme.words.model);
  caption("p(x) = p(f(x)) f\u2032(x)", below.x + 8, below, theme.words.data);
  return { map, image: [z0, z1] };
}

// The widths and areas of the strip and its image, in the corner.
function areasTable() {
  const value = (name) => element("span", { class: `warp-${name}` });
  const written = {
    dx: value("data"), dz: value("latent"), data: value("data"), latent: value("latent"), total: value("total")
  };
  const line = (name, ...parts) => [element("span", {}, name), element("span", { class: "warp-sum" }, ...parts)];
  const node = element(
    "div", { class: "warp-areas" },
    ...line("width ", written.dx, " \u2192 ", written.dz),
    ...line("area ", written.data, " = ", written.latent),
    ...line("total ", written.total)
  );
  const write = ({ left, below }, [xs, ys], base, [x0, x1], [z0, z1]) => {
    const found = areas(xs, ys, base, [x0, x1]);
    written.dx.textContent = (x1 - x0).toFixed(2);
    written.dz.textContent = (z1 - z0).toFixed(2);
    for (const name of ["data", "latent", "total"]) written[name].textContent = found[name].toFixed(3);
    Object.assign(node.style, {
      left: "4px", width: `${left.x + left.width - 6}px`, top: `${below.y}px`, height: `${below.height}px`,
      // A narrow page leaves the corner less room than its numbers like.
      fontSize: left.width < 100 ? "10.5px" : "", columnGap: left.width < 100 ? "5px" : ""
    });
  };
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { limit, knots, send, stay, goTo } = state;
  const readout = areasTable();
  let map = null; // as last drawn
  let selected = null; // what the arrows move

  const draw = (ctx, { width }, theme) => {
    const boxes = panels(width);
    const interval = model.get("interval");
    const drawn = drawPanels(ctx, boxes, { bound: limit(), knots: knots(), interval, base: model.get("base") }, theme);
    map = drawn.map;
    place(boxes.below, interval);
    readout.write(boxes, knots(), model.get("base"), interval, drawn.image);
  };
  const view = outline({ model, el, layout: (width) => panels(width).total, draw, style: STYLE });
  view.stage.append(readout.node);

  const editor = curveEditor(view, {
    read: knots, write: state.moveKnot, end: send, kind: "warp-knot",
    limits: () => ({ x: [-limit(), limit()], y: [-limit(), limit()], gap: limit() / 50 }),
    name: (k) => `Knot ${k + 1} of the curve`,
    said: (x, y) => `x ${x.toFixed(2)}, z ${y.toFixed(2)}`
  });
  const stripHandle = (kind, part, label) => handle(view, label, {
    shape: `warp-${kind}`, end: send,
    start: ([x]) => {
      stay();
      const before = model.get("interval");
      return ([to]) => state.moveStrip(part, map.toPlane(to, 0)[0] - map.toPlane(x, 0)[0], before);
    }
  });
  const strip = {
    strip: stripHandle("strip", "strip", "Strip of x"),
    start: stripHandle("edge", "start", "Left end of the strip"),
    end: stripHandle("edge", "end", "Right end of the strip")
  };

  // Put the handles where the drawing is. Tab reaches the knots first, from left to right.
  function place({ y, height }, [x0, x1]) {
    const before = editor.knots;
    editor.stand(map);
    if (editor.knots !== before) {
      strip.strip.node.before(...editor.knots.map(({ node }) => node));
      selected = editor.knots[Math.floor(editor.knots.length / 2)].node;
    }
    for (const [part, value] of [["strip", x0], ["start", x0], ["end", x1]]) {
      strip[part].range([-limit(), limit()]);
      strip[part].stand(map.x(value), y, value, `x from ${x0.toFixed(2)} to ${x1.toFixed(2)}`);
      strip[part].node.style.height = `${height}px`;
    }
    strip.strip.node.style.width = `${map.x(x1) - map.x(x0)}px`;
  }
  view.stage.addEventListener("focusin", ({ target }) => (selected = target));
  view.stage.addEventListener("pointerdown", stay);

  view.controls.classList.add("cw-row", "warp-controls");
  view.controls.append(
    ...model.get("presets").map(([name, ...target]) =>
      button(name[0].toUpperCase() + name.slice(1), () => goTo(target))),
    button("Reset", () => goTo(model.get("start")), { class: "cw-quiet" }));

  const nudge = (right, up) => (event) => {
    const step = limit() / (event.shiftKey ? 400 : 40);
    const k = editor.indexOf(selected);
    const [xs, ys] = knots();
    if (k >= 0) {
      editor.move(k, xs[k] + step * right, ys[k] + step * up);
      return;
    }
    const part = Object.keys(strip).find((name) => strip[name].node === selected);
    state.moveStrip(part, step * (right + up), model.get("interval"));
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  });
  view.follow(["knots_x", "knots_y", "interval", "limit"], view.redraw);
  view.onStop(() => {
    stay();
    send();
  });
  return view.stop;
}

export default { render };

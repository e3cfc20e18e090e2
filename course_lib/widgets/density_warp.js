// DensityWarp: drag the knots of z = f(x) and watch p(z) become p(x) = p(f(x)) f'(x).

import { drawPlane, plane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { monotoneCurve } from "./parts/curves.js";
import { tidy } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";

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

const STYLE = `
.warp-handle { position: absolute; touch-action: none; line-height: 0; }
.warp-handle:focus { outline: none; }
.warp-knot { width: 28px; height: 28px; margin: -14px 0 0 -14px; border-radius: 50%; cursor: grab; }
.warp-knot:active { cursor: grabbing; }
.warp-knot::after {
  content: ""; position: absolute; inset: 7px; border-radius: 50%;
  background: ${PALETTE.model}; border: 2px solid var(--cw-plot);
  box-shadow: 0 0 0 1px ${PALETTE.model};
}
.warp-knot:hover::after { inset: 6px; }
.warp-knot:focus-visible::after, .warp-edge:focus-visible::after {
  outline: 2px solid var(--cw-accent); outline-offset: 3px;
}
.warp-strip { cursor: grab; border-radius: 3px; }
.warp-strip:active { cursor: grabbing; }
.warp-strip:focus-visible { outline: 2px solid var(--cw-accent); outline-offset: 1px; }
.warp-edge { width: 18px; margin-left: -9px; cursor: ew-resize; }
.warp-edge::after {
  content: ""; position: absolute; left: 6px; width: 6px; bottom: -3px; height: 18px;
  border-radius: 3px; background: ${PALETTE.data}; border: 1px solid var(--cw-plot);
}
.warp-areas {
  position: absolute; display: grid; grid-template-columns: auto auto; align-content: center;
  gap: 3px 8px; color: var(--cw-muted); font-size: 12px; line-height: 1.3;
  font-variant-numeric: tabular-nums; white-space: nowrap;
}
.warp-areas .warp-data { color: ${PALETTE.data}; font-weight: 600; }
.warp-areas .warp-latent { color: ${PALETTE.latent}; font-weight: 600; }
.course-widget .warp-controls { flex-wrap: wrap; }
.warp-controls button { padding: 0 10px; border: 1px solid var(--cw-line); }
.warp-controls .warp-reset { margin-left: auto; border-color: transparent; color: var(--cw-muted); }
`;

// Three panels that share their axes: p(z) on the left, the curve, p(x) below it.
function panels(width) {
  const [edge, gap] = [34, 6];
  const side = Math.round(Math.max(92, Math.min(116, 0.2 * width)));
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
  ctx.fillStyle = theme.muted;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.font = `11px ${theme.font}`;
  ctx.beginPath();
  for (const value of ticks(-limit, limit, 4)) {
    const [x, y] = [Math.round(map.x(value)) + 0.5, Math.round(map.y(value)) + 0.5];
    const floor = below.y + below.height;
    ctx.moveTo(x, floor);
    ctx.lineTo(x, floor + 4);
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    ctx.fillText(tidy(value), x, floor + 8);
    ctx.moveTo(left.x - 4, y);
    ctx.lineTo(left.x, y);
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillText(tidy(value), left.x - 7, y);
  }
  ctx.stroke();
}

function caption(ctx, text, x, y, colour, align = "left") {
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "top";
  ctx.fillText(text, x, y);
}

// A line through points, and the area between it and a straight floor.
function trace(ctx, points) {
  ctx.beginPath();
  points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
}

function area(ctx, points, [ax, ay], [bx, by], colour, alpha) {
  trace(ctx, points);
  ctx.lineTo(bx, by);
  ctx.lineTo(ax, ay);
  ctx.closePath();
  ctx.globalAlpha = alpha;
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.globalAlpha = 1;
}

function spread(low, high, count) {
  return Array.from({ length: count + 1 }, (_, i) => low + ((high - low) * i) / count);
}

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const inside = (ctx, box, paint) => {
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.x, box.y, box.width, box.height);
  ctx.clip();
  paint();
  ctx.restore();
};

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  // The model holds the truth: what a drag changes is set there, and every view draws from it.
  let whole = null; // while one of two new lists is still missing, the last pair that fits
  const knots = () => {
    const pair = [model.get("knots_x"), model.get("knots_y")];
    if (pair[0].length === pair[1].length) whole = pair;
    return whole;
  };
  const limit = () => model.get("limit");
  const { change, send } = throttledChanges(model);

  const moveKnot = (i, x, y) => {
    const [xs, ys] = knots();
    const gap = limit() / 50;
    const bounded = (values, value) => {
      const low = i > 0 ? values[i - 1] + gap : -limit();
      const high = i + 1 < values.length ? values[i + 1] - gap : limit();
      // Knots that Python set closer than the gap stay where they are.
      return clamp(value, Math.min(Math.max(low, -limit()), values[i]),
        Math.max(Math.min(high, limit()), values[i]));
    };
    change({ knots_x: xs.with(i, bounded(xs, x)), knots_y: ys.with(i, bounded(ys, y)) });
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
  const goTo = ([toX, toY]) => {
    cancelAnimationFrame(morph);
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

  // ------------------------------------------------------------------------------------- drawing

  const draw = (ctx, { width }, theme) => {
    const boxes = panels(width);
    const { left, curve, below } = boxes;
    const bound = limit();
    const map = plane([-bound, bound, -bound, bound], curve);
    const [xs, ys] = knots();
    const [x0, x1] = model.get("interval");
    const f = monotoneCurve(xs, ys);
    const prior = DENSITIES[model.get("base")];
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
    const top = clamp(peak, 2 * prior(0), 20 * prior(0));
    const up = (0.94 * below.height) / top;
    const out = (up * curve.width) / curve.height;
    const floor = below.y + below.height;
    const wall = left.x;
    const inX = (x) => [map.x(x), floor - up * density(x)];
    const inZ = (z) => [wall + out * prior(z), map.y(z)];

    for (const box of [left, curve, below]) drawPlane(ctx, box, theme);
    inside(ctx, curve, () => {
      ctx.lineWidth = 1;
      ctx.strokeStyle = theme.line;
      trace(ctx, [[map.x(-bound), map.y(-bound)], [map.x(bound), map.y(bound)]]);
      ctx.stroke();
      const ground = curve.y + curve.height;
      const path = strip.map(onCurve);
      area(ctx, path, [map.x(x0), ground], [map.x(x1), ground], PALETTE.data, 0.16);
      area(ctx, path, [curve.x, map.y(z0)], [curve.x, map.y(z1)], PALETTE.latent, 0.16);
      trace(ctx, across.map(onCurve));
      ctx.lineWidth = 2.5;
      ctx.lineJoin = "round";
      ctx.strokeStyle = PALETTE.model;
      ctx.stroke();
    });
    inside(ctx, below, () => {
      const ends = [[map.x(-bound), floor], [map.x(bound), floor]];
      area(ctx, across.map(inX), ...ends, PALETTE.data, 0.14);
      area(ctx, strip.map(inX), [map.x(x0), floor], [map.x(x1), floor], PALETTE.data, 0.6);
      trace(ctx, across.map(inX));
      ctx.lineWidth = 2;
      ctx.strokeStyle = PALETTE.data;
      ctx.stroke();
    });
    inside(ctx, left, () => {
      const shape = spread(-bound, bound, Math.round(left.height)).map(inZ);
      area(ctx, shape, [wall, map.y(-bound)], [wall, map.y(bound)], PALETTE.latent, 0.14);
      const ends = [[wall, map.y(z0)], [wall, map.y(z1)]];
      area(ctx, spread(z0, z1, 120).map(inZ), ...ends, PALETTE.latent, 0.6);
      trace(ctx, shape);
      ctx.lineWidth = 2;
      ctx.strokeStyle = PALETTE.latent;
      ctx.stroke();
    });
    for (const box of [left, curve, below]) border(ctx, box, theme);
    numbers(ctx, bound, boxes, map, theme);
    ctx.font = `600 12px ${theme.font}`;
    caption(ctx, "p(z)", left.x + left.width - 7, left.y + 7, PALETTE.latent, "right");
    caption(ctx, "z = f(x)", curve.x + 8, curve.y + 7, PALETTE.model);
    caption(ctx, "p(x) = p(f(x)) f\u2032(x)", below.x + 8, below.y + 7, PALETTE.data);
    place(boxes, map);
    write([x0, x1], [z0, z1]);
  };

  const view = outline({ model, el, layout: (width) => panels(width).total, draw });
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------------- what is dragged

  let map = null; // as last drawn
  let knotHandles = [];
  let selected = null;

  // A thing to drag: it takes the focus, follows the pointer and answers the arrow keys.
  const handle = (kind, label, hold, keys) => {
    const node = element("div", {
      class: `warp-handle warp-${kind}`, role: "slider", tabindex: "0", "aria-label": label
    });
    let grip = null;
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // no text selection, no scrolling
      cancelAnimationFrame(morph);
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      grip = { x: event.clientX, y: event.clientY, move: hold() };
    });
    node.addEventListener("pointermove", (event) => {
      if (!grip || !map) return;
      const [ox, oy] = map.toPlane(0, 0);
      const [x, y] = map.toPlane(event.clientX - grip.x, event.clientY - grip.y);
      grip.move(x - ox, y - oy);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      node.addEventListener(end, () => {
        if (grip) send();
        grip = null;
      });
    }
    node.addEventListener("focus", () => (selected = node));
    node.keys = keys;
    // Tab reaches the knots first, from left to right, then the strip.
    view.stage.insertBefore(node, kind === "knot" ? strip.strip : null);
    return node;
  };

  const knotHandle = (i) => {
    const hold = () => {
      const [xs, ys] = knots();
      const [x, y] = [xs[i], ys[i]];
      return (dx, dy) => moveKnot(i, x + dx, y + dy);
    };
    return handle("knot", `Knot ${i + 1} of the curve`, hold, (dx, dy) => hold()(dx, dy));
  };
  const stripHandle = (kind, part, label) => {
    const hold = () => {
      const before = model.get("interval");
      return (dx) => moveStrip(part, dx, before);
    };
    return handle(kind, label, hold, (dx, dy) => hold()(dx + dy));
  };
  const strip = {
    strip: stripHandle("strip", "strip", "Strip of x"),
    start: stripHandle("edge", "start", "Left end of the strip"),
    end: stripHandle("edge", "end", "Right end of the strip")
  };

  // Put the handles where the drawing is.
  function place({ below }, drawn) {
    map = drawn;
    const [xs, ys] = knots();
    if (knotHandles.length !== xs.length) {
      knotHandles.forEach((node) => node.remove());
      knotHandles = xs.map((_, i) => knotHandle(i));
      selected = knotHandles[Math.floor(xs.length / 2)];
    }
    knotHandles.forEach((node, i) => {
      node.style.left = `${map.x(xs[i])}px`;
      node.style.top = `${map.y(ys[i])}px`;
      node.setAttribute("aria-valuemin", -limit());
      node.setAttribute("aria-valuemax", limit());
      node.setAttribute("aria-valuenow", ys[i].toFixed(2));
      node.setAttribute("aria-valuetext", `x ${xs[i].toFixed(2)}, z ${ys[i].toFixed(2)}`);
    });
    const [x0, x1] = model.get("interval");
    const [left, right] = [map.x(x0), map.x(x1)];
    for (const [node, at, value] of [[strip.strip, left, x0], [strip.start, left, x0], [strip.end, right, x1]]) {
      node.style.left = `${at}px`;
      node.style.top = `${below.y}px`;
      node.style.height = `${below.height}px`;
      node.setAttribute("aria-valuemin", -limit());
      node.setAttribute("aria-valuemax", limit());
      node.setAttribute("aria-valuenow", value.toFixed(2));
      node.setAttribute("aria-valuetext", `x from ${x0.toFixed(2)} to ${x1.toFixed(2)}`);
    }
    strip.strip.style.width = `${right - left}px`;
    const { left: corner } = panels(view.stage.clientWidth);
    Object.assign(readout.style, {
      left: "4px", width: `${corner.x + corner.width - 6}px`,
      top: `${below.y}px`, height: `${below.height}px`,
      // A narrow page leaves the corner less room than its numbers like.
      fontSize: corner.width < 100 ? "10.5px" : "", columnGap: corner.width < 100 ? "5px" : ""
    });
  }

  // ----------------------------------------------------------------------- what is written beside it

  const value = (name) => element("span", { class: `warp-${name}` });
  const written = {
    dx: value("data"), dz: value("latent"), data: value("data"), latent: value("latent"), total: value("total")
  };
  const readout = element(
    "div", { class: "warp-areas" },
    element("span", {}, "width "), element("span", { class: "warp-sum" }, written.dx, " \u2192 ", written.dz),
    element("span", {}, "area "), element("span", { class: "warp-sum" }, written.data, " = ", written.latent),
    element("span", {}, "total "), element("span", { class: "warp-sum" }, written.total)
  );
  view.stage.append(readout);

  function write([x0, x1], [z0, z1]) {
    const [xs, ys] = knots();
    const found = areas(xs, ys, model.get("base"), [x0, x1]);
    written.dx.textContent = (x1 - x0).toFixed(2);
    written.dz.textContent = (z1 - z0).toFixed(2);
    for (const name of ["data", "latent", "total"]) written[name].textContent = found[name].toFixed(3);
  }

  // ------------------------------------------------------------------------------ buttons and keys

  view.controls.classList.add("warp-controls");
  for (const [name, ...target] of model.get("presets")) {
    const button = element("button", { type: "button" }, name[0].toUpperCase() + name.slice(1));
    button.addEventListener("click", () => goTo(target));
    view.controls.append(button);
  }
  const reset = element("button", { type: "button", class: "warp-reset" }, "Reset");
  reset.addEventListener("click", () => goTo(model.get("start")));
  view.controls.append(reset);

  const nudge = (dx, dy) => (event) => {
    const step = limit() / (event.shiftKey ? 400 : 40);
    selected.keys(step * dx, step * dy);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  });

  const redraw = () => view.redraw();
  for (const name of ["knots_x", "knots_y", "interval", "limit"]) {
    model.on(`change:${name}`, redraw);
    view.onStop(() => model.off(`change:${name}`, redraw));
  }
  view.onStop(() => {
    cancelAnimationFrame(morph);
    send();
  });
  return view.stop;
}

export default { render };

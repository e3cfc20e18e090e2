// Dissolve: add noise to points or images by hand, along a schedule that can be bent.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { monotoneCurve } from "./parts/curves.js";
import { unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { clockOf, playerBar } from "./parts/player.js";

// dissolve.py has the same three.
const YOURS = "yours"; // the schedule that the handles make
const LIMIT = 12; // of a handle's log-SNR, above and below zero
const GAP = 0.1; // between two handles at least

const SHADES = 64; // of the points, from data to noise

const STYLE = `
.dissolve-said { display: flex; flex-wrap: wrap; gap: 2px 22px; padding: 0 2px 6px; font-variant-numeric: tabular-nums; }
.dissolve-said > * { white-space: nowrap; }
.dissolve-formula { font-weight: 600; }
.dissolve-formula .data { color: ${PALETTE.data}; }
.dissolve-formula .noise { color: ${PALETTE.noise}; }
.dissolve-said .value { display: inline-block; min-width: 3.1em; }
.dissolve-shares { display: flex; flex: 1 1 230px; align-items: center; gap: 8px; color: var(--cw-muted); }
.dissolve-bar { flex: 1; min-width: 40px; height: 10px; border-radius: 3px; background: ${PALETTE.noise}; overflow: hidden; }
.dissolve-bar div { height: 100%; background: ${PALETTE.data}; border-right: 2px solid var(--cw-plot); }
.dissolve-shares .value { min-width: 2.5em; text-align: right; }
.dissolve-widget .cw-stage canvas { touch-action: pan-y; }
.dissolve-handle { position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; border-radius: 50%; cursor: ns-resize; touch-action: none; line-height: 0; }
.dissolve-handle:focus { outline: none; }
.dissolve-handle::after {
  content: ""; position: absolute; inset: 7px; border-radius: 50%; background: var(--cw-plot); border: 2.5px solid var(--cw-ink);
}
.dissolve-handle:hover::after { inset: 6px; }
.dissolve-handle:focus-visible::after { outline: 2px solid var(--cw-accent); outline-offset: 3px; }
.course-widget .dissolve-tools { flex-wrap: wrap; justify-content: space-between; gap: 6px 20px; padding-top: 6px; }
.dissolve-tools div { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; color: var(--cw-muted); }
.dissolve-tools button { border: 1px solid var(--cw-line); padding: 0 12px; }
.dissolve-hint { margin: 8px 2px 0; color: var(--cw-muted); font-size: 12px; }
`;

// -------------------------------------------------------------------------------- the mathematics

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const logit = (share) => Math.log(share) - Math.log1p(-share);
const clamp = (value, low, high) => Math.max(low, Math.min(value, high));

// The log-SNR at every time, from the heights of the handles. dissolve.py computes the same.
function curveThrough(knots, heights, steps) {
  const curve = monotoneCurve(knots, heights);
  return Float64Array.from({ length: steps }, (_, t) => curve(t)[0]);
}

// The heights of a curve at the handles: inside the plot, and none as high as another.
function heightsAt(curve, knots) {
  const last = knots.length - 1;
  return knots.map((t, k) => clamp(curve[t], GAP * (last - k) - LIMIT, LIMIT - GAP * k));
}

// ------------------------------------------------------------------------------------ the drawing

// Where everything stands: points beside the curve where there is room, images always above it.
function stands(width, images) {
  const [head, left, foot, gap, lost] = [24, 34, 24, 28, 46];
  const beside = !images && width >= 560;
  const side = beside ? Math.floor((width - 24) / 2) : width;
  let data;
  if (images) {
    const [count, rows, columns] = images.shape;
    // In as many rows as it takes for an image to be large enough.
    const across = Math.ceil(count / Math.ceil((count * Math.min(56, 5 * columns)) / width));
    const room = Math.min((width - 4 * (across - 1)) / (across * columns), 112 / columns);
    const pixel = room > 1 ? Math.floor(room) : room;
    const cell = { width: pixel * columns, height: pixel * rows };
    data = { across, cell, y: 0, height: Math.ceil(count / across) * (cell.height + 4) - 4 };
  } else {
    const square = Math.min(side - left - 8, 380);
    data = { x: left, y: head, width: square, height: square };
  }
  const below = data.y + data.height + (images ? 14 : foot + 14);
  const curve = {
    x: (beside ? side + 24 : 0) + left, y: (beside ? 0 : below) + head,
    width: side - left - 8, height: beside ? data.height - lost - foot - gap : 200
  };
  const drop = { ...curve, y: curve.y + curve.height + foot + gap, height: lost };
  return { data, curve, drop, total: drop.y + drop.height + (beside ? foot : 2) };
}

function words(ctx, text, x, y, colour, font, align = "left") {
  ctx.font = font;
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.fillText(text, x, y);
}

function inside(ctx, box, paint) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.x, box.y, box.width, box.height);
  ctx.clip();
  paint();
  ctx.restore();
}

// From the colour of data to that of noise.
function shade(share) {
  const [from, to] = ["data", "noise"].map((role) =>
    [1, 3, 5].map((k) => parseInt(PALETTE[role].slice(k, k + 2), 16)));
  return `rgb(${from.map((value, c) => Math.round(value + (to[c] - value) * share)).join()})`;
}

// Images x = a x_0 + b noise, one screen pixel for each of theirs, on a sheet to be drawn enlarged.
function imageSheet({ values, shape: [count, rows, columns] }, noise) {
  const sheet = element("canvas", { width: columns, height: rows * count });
  const brush = sheet.getContext("2d");
  const pixels = brush.createImageData(columns, rows * count);
  const table = new Uint32Array(pixels.data.buffer);
  const paint = (a, b) => {
    for (let i = 0; i < values.length; i++) {
      const x = a * (values[i] / 127.5 - 1) + b * noise[i];
      const level = clamp(Math.round(127.5 * (x + 1)), 0, 255);
      // Alpha, blue, green, red from high to low (little-endian).
      table[i] = (255 << 24) | (level << 16) | (level << 8) | level;
    }
    brush.putImageData(pixels, 0, 0);
  };
  return { sheet, paint };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const { points, images, noise, ...curves } = unpack(model);
  const names = model.get("names");
  const knots = model.get("knots");
  const steps = model.get("n_steps");
  const reach = model.get("reach");
  const named = names.map((_, k) => Float64Array.from(curves[`log_snr ${k}`].values));
  const { change, send } = throttledChanges(model);
  const clock = clockOf(model);
  // The schedule has whole times only.
  clock.shown = () => clamp(Math.floor(clock.step + 0.5), 0, steps - 1);
  clock.back = () => clock.seek(clock.shown() - 1);
  clock.forward = () => clock.seek(clock.shown() + 1);

  let made = {}; // the schedule of the handles, for the heights it was made from
  const curveOf = (name) => {
    if (name !== YOURS) return named[names.indexOf(name)];
    const heights = model.get("log_snr");
    if (made.heights !== heights) made = { heights, curve: curveThrough(knots, heights, steps) };
    return made.curve;
  };
  const chosen = () => curveOf(model.get("schedule"));
  const heightsNow = () =>
    model.get("schedule") === YOURS ? model.get("log_snr") : heightsAt(chosen(), knots);

  // Whichever schedule is shown, to move a handle is to make one's own from it.
  const moveHandle = (k, height) => {
    const before = heightsNow();
    const high = k > 0 ? before[k - 1] - GAP : LIMIT;
    const low = k + 1 < before.length ? before[k + 1] + GAP : -LIMIT;
    // Handles that Python set closer than the gap stay where they are.
    const bounded = clamp(height, Math.min(low, before[k]), Math.max(high, before[k]));
    change({ log_snr: before.with(k, bounded), schedule: YOURS });
  };

  // ------------------------------------------------------------------------------------- drawing

  let at = null; // where everything stands, as last laid out
  const asShown = (value) => (model.get("show_alpha_bar") ? sigmoid(value) : value);
  const range = () => (model.get("show_alpha_bar") ? [0, steps - 1, -0.04, 1.04] : [0, steps - 1, -1.08 * LIMIT, 1.08 * LIMIT]);

  const strip = images && imageSheet(images, noise.values);
  const radius = points && clamp(Math.sqrt(9000 / points.shape[0]), 1.7, 4.2);
  let dots = null;
  let dotsFor = "";

  const drawImages = (ctx, a, b, width, theme) => {
    const [count, rows, columns] = images.shape;
    const { across, cell } = at.data;
    strip.paint(a, b);
    ctx.imageSmoothingEnabled = false; // pixels are what there is, so show them as pixels
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    const left = (width - across * cell.width - 4 * (across - 1)) / 2;
    for (let i = 0; i < count; i++) {
      const x = Math.round(left + (i % across) * (cell.width + 4));
      const y = Math.round(Math.floor(i / across) * (cell.height + 4));
      const [w, h] = [Math.round(cell.width), Math.round(cell.height)];
      ctx.drawImage(strip.sheet, 0, i * rows, columns, rows, x, y, w, h);
      ctx.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    }
  };

  const drawPoints = (ctx, a, b, ratio, theme) => {
    const box = at.data;
    const extent = [-reach, reach, -reach, reach];
    const map = plane(extent, box);
    const key = `${ratio} ${theme.dark}`;
    if (key !== dotsFor) {
      dotsFor = key;
      const colours = Array.from({ length: SHADES }, (_, i) => shade(i / (SHADES - 1)));
      dots = dotStamp(colours, radius, ratio, theme.rim);
    }
    const colour = Math.round(b * b * (SHADES - 1));
    dots.clear(box.width, box.height);
    for (let i = 0; i < points.values.length; i += 2) {
      const x = map.x(a * points.values[i] + b * noise.values[i]);
      const y = map.y(a * points.values[i + 1] + b * noise.values[i + 1]);
      dots.stamp(x - box.x, y - box.y, colour);
    }
    drawPlane(ctx, box, theme);
    inside(ctx, box, () => dots.draw(ctx, box));
    drawAxes(ctx, extent, box, theme);
    words(ctx, "the points at t", box.x, box.y - 14, theme.ink, `600 13px ${theme.font}`);
  };

  // A curve over t as a path on the canvas.
  const trace = (ctx, box, height) => {
    ctx.beginPath();
    const across = Math.min(steps - 1, Math.round(box.width));
    for (let k = 0; k <= across; k++) {
      const t = Math.round((k / across) * (steps - 1));
      ctx.lineTo(box.x + (t / (steps - 1)) * box.width, height(t));
    }
  };

  // The names of the other curves, each where the curves are farthest from each other.
  const nameCurves = (ctx, others, map, box, theme) => {
    const all = [model.get("schedule"), ...others];
    const spots = Array.from({ length: 15 }, (_, k) => Math.round(((k + 2) / 18) * (steps - 1)));
    const heightOf = (name, t) => map.y(clamp(asShown(curveOf(name)[t]), ...range().slice(2)));
    const taken = [];
    ctx.lineJoin = "round";
    ctx.font = `12px ${theme.font}`;
    for (const name of others) {
      const half = ctx.measureText(name).width / 2 + 2;
      const rest = all.filter((other) => other !== name);
      let best = { room: -Infinity };
      for (const t of spots) {
        for (const by of [-12, 12, -20, 20]) {
          const [x, y] = [map.x(t), heightOf(name, t) + by];
          // The curves pass at a slope: what counts is the distance all along the word.
          const near = [-half, 0, half].flatMap((dx) => {
            const there = clamp(Math.round(t + (dx / box.width) * (steps - 1)), 0, steps - 1);
            const gaps = rest.map((other) => Math.abs(heightOf(other, there) - y));
            return [...gaps, 6 + Math.abs(heightOf(name, there) - y)];
          });
          near.push(y - box.y, box.y + box.height - y, ...taken.map(([px, py]) => Math.hypot((x - px) / 3, y - py)));
          const room = Math.min(...near, 24) - Math.abs(by) / 4;
          if (room > best.room) best = { room, x, y };
        }
      }
      taken.push([best.x, best.y]);
      ctx.strokeStyle = theme.plot;
      ctx.lineWidth = 3;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.strokeText(name, best.x, best.y);
      words(ctx, name, best.x, best.y, theme.muted, ctx.font, "center");
    }
  };

  const drawCurves = (ctx, t, theme) => {
    const box = at.curve;
    const map = plane(range(), box);
    const inLogs = !model.get("show_alpha_bar");
    const schedule = model.get("schedule");
    const others = names.filter((name) => name !== schedule);
    const middle = map.y(inLogs ? 0 : 0.5); // a = b
    drawPlane(ctx, box, theme);
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = PALETTE.data;
    ctx.fillRect(box.x, box.y, box.width, middle - box.y);
    ctx.fillStyle = PALETTE.noise;
    ctx.fillRect(box.x, middle, box.width, box.y + box.height - middle);
    ctx.globalAlpha = 1;
    const x = map.x(t);
    const y = map.y(asShown(chosen()[t]));
    inside(ctx, box, () => {
      ctx.strokeStyle = theme.muted;
      ctx.lineWidth = 1.25;
      for (const name of others) {
        const curve = curveOf(name);
        trace(ctx, box, (when) => map.y(asShown(curve[when])));
        ctx.stroke();
      }
      ctx.strokeStyle = theme.ink;
      ctx.lineWidth = 2.5;
      ctx.lineJoin = "round";
      trace(ctx, box, (when) => map.y(asShown(chosen()[when])));
      ctx.stroke();
      nameCurves(ctx, others, map, box, theme);
    });
    const fine = `11px ${theme.font}`;
    words(ctx, "a = b", box.x + box.width - 5, middle + 9, theme.muted, fine, "right");
    drawAxes(ctx, range(), box, theme);
    const title = inLogs ? "log-SNR = log(a\u00b2/b\u00b2) over t" : "\u03b1\u0304 = a\u00b2 over t";
    words(ctx, title, box.x, box.y - 14, theme.ink, `600 13px ${theme.font}`);

    // How much of ᾱ each step takes away. The area is what has gone; that up to t is darker.
    const drop = at.drop;
    const curve = chosen();
    const span = Math.max(1, Math.round(steps / 100)); // what 16 bits cannot show is averaged out
    const fall = (when) => {
      const [before, after] = [Math.max(when - span, 0), Math.min(when + span, steps - 1)];
      return ((sigmoid(curve[before]) - sigmoid(curve[after])) * (steps - 1)) / (after - before);
    };
    let top = 3; // gives way where nearly all goes at once
    for (let when = 0; when < steps; when++) top = Math.max(top, fall(when));
    const floor = drop.y + drop.height;
    drawPlane(ctx, drop, theme);
    for (const [right, alpha] of [[drop.x + drop.width, 0.3], [x, 0.6]]) {
      inside(ctx, { ...drop, width: right - drop.x }, () => {
        trace(ctx, drop, (when) => floor - (0.94 * drop.height * fall(when)) / top);
        ctx.lineTo(drop.x + drop.width, floor);
        ctx.lineTo(drop.x, floor);
        ctx.globalAlpha = alpha;
        ctx.fillStyle = PALETTE.noise;
        ctx.fill();
      });
    }
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(Math.round(drop.x) + 0.5, Math.round(drop.y) + 0.5, drop.width - 1, drop.height - 1);
    words(ctx, "how much of \u03b1\u0304 is lost at each t", drop.x, drop.y - 11, theme.muted, `12px ${theme.font}`);

    // The time that is shown, in both.
    ctx.strokeStyle = theme.accent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const one of [box, drop]) {
      ctx.moveTo(x, one.y);
      ctx.lineTo(x, one.y + one.height);
    }
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, clamp(y, box.y, box.y + box.height), 6, 0, 2 * Math.PI);
    ctx.fillStyle = shade(1 - sigmoid(chosen()[t]));
    ctx.fill();
    ctx.strokeStyle = theme.plot;
    ctx.lineWidth = 1.5;
    ctx.stroke();
    place(map);
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const t = clock.shown();
    const logSnr = chosen()[t];
    const [a, b] = [Math.sqrt(sigmoid(logSnr)), Math.sqrt(sigmoid(-logSnr))];
    if (images) drawImages(ctx, a, b, width, theme);
    else drawPoints(ctx, a, b, ratio, theme);
    drawCurves(ctx, t, theme);
    say({ t, a, b, logSnr });
  };

  const layout = (width) => {
    at = stands(width, images);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 760 });
  view.root.classList.add("dissolve-widget");
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------- what is written above

  const part = (name) => element("span", { class: `value ${name}` });
  const written = Object.fromEntries(
    ["t", "a", "b", "alphaBar", "logSnr", "data", "noise"].map((name) => [name, part("")]));
  written.a.classList.add("data");
  written.b.classList.add("noise");
  for (const name of ["a", "b", "alphaBar"]) written[name].style.minWidth = "0";
  const sub = (letter, index) => [letter, element("sub", {}, index)];
  const bar = element("div");
  const variance = "Share of the variance of x that comes from the data: a\u00b2v / (a\u00b2v + b\u00b2), where v is the variance of the data";
  view.header.after(element("div", { class: "dissolve-said" },
    element("span", { class: "dissolve-formula" }, ...sub("x", "t"), " = ", written.a, " ", ...sub("x", "0"), " + ", written.b, " \u03b5"),
    element("span", {}, "t = ", written.t),
    element("span", {}, "\u03b1\u0304 = ", written.alphaBar),
    element("span", {}, "log-SNR = ", written.logSnr),
    element("span", { class: "dissolve-shares", title: variance }, "variance: data", written.data,
      element("div", { class: "dissolve-bar" }, bar), "noise", written.noise)));

  function say({ t, a, b, logSnr }) {
    const v = model.get("variance");
    const share = (a * a * v) / (a * a * v + b * b);
    const percent = Math.round(100 * share);
    const now = {
      t: String(t), a: a.toFixed(3), b: b.toFixed(3), alphaBar: (a * a).toFixed(3),
      logSnr: logSnr.toFixed(2).replace("-", "\u2212"), data: `${percent} %`, noise: `${100 - percent} %`
    };
    for (const [name, text] of Object.entries(now)) {
      if (written[name].textContent !== text) written[name].textContent = text;
    }
    bar.style.width = `${100 * share}%`;
  }

  // ------------------------------------------------------------------------------- what is dragged

  let drawn = null; // the map as last drawn
  const toHeight = (value) => (model.get("show_alpha_bar") ? clamp(logit(clamp(value, 1e-9, 1 - 1e-9)), -LIMIT, LIMIT) : value);

  const handles = knots.map((t, k) => {
    const node = element("div", {
      class: "dissolve-handle", role: "slider", tabindex: "0", "aria-label": `Log-SNR at t = ${t}`,
      "aria-valuemin": -LIMIT, "aria-valuemax": LIMIT, "aria-orientation": "vertical"
    });
    let grip = null; // from the pointer to the middle of the handle
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !drawn) return;
      event.preventDefault(); // no text selection, no scrolling
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      grip = drawn.y(asShown(heightsNow()[k])) - event.clientY;
    });
    node.addEventListener("pointermove", (event) => {
      if (grip !== null) moveHandle(k, toHeight(drawn.toPlane(0, event.clientY + grip)[1]));
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      node.addEventListener(end, () => {
        if (grip !== null) send();
        grip = null;
      });
    }
    view.stage.append(node);
    return node;
  });

  function place(map) {
    drawn = map;
    heightsNow().forEach((height, k) => {
      const node = handles[k];
      node.style.left = `${map.x(knots[k])}px`;
      node.style.top = `${map.y(asShown(height))}px`;
      const value = height.toFixed(2);
      if (node.getAttribute("aria-valuenow") !== value) node.setAttribute("aria-valuenow", value);
    });
  }

  // Elsewhere the curve is a slider of the time.
  const { canvas } = view;
  let held = false;
  const timeAt = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const { curve, drop } = at;
    const over = x >= curve.x - 4 && x <= curve.x + curve.width + 4 && y >= curve.y && y <= drop.y + drop.height;
    return over || held ? Math.round(clamp((x - curve.x) / curve.width, 0, 1) * (steps - 1)) : null;
  };
  canvas.addEventListener("pointerdown", (event) => {
    const t = timeAt(event);
    if (event.button !== 0 || t === null) return;
    event.preventDefault();
    view.root.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    held = true;
    clock.seek(t);
  });
  canvas.addEventListener("pointermove", (event) => {
    const t = timeAt(event);
    canvas.style.cursor = t === null ? "" : "ew-resize";
    if (held) clock.seek(t);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, () => (held = false));
  }

  // ------------------------------------------------------------------------------ buttons and keys

  const toggle = (label, title, act) => {
    const node = element("button", { type: "button", title }, label);
    node.addEventListener("click", () => {
      act();
      send();
    });
    return node;
  };
  const choices = [...names, YOURS].map((name) =>
    [name, toggle(name, name === YOURS ? "The schedule of the handles" : `The ${name} schedule`, () => change({ schedule: name }))]);
  const axes = [[false, "log-SNR"], [true, "\u03b1\u0304"]].map(([value, label]) =>
    [value, toggle(label, `Show ${value ? "alpha bar" : "the log-SNR"} over t`, () => change({ show_alpha_bar: value }))]);
  playerBar(view, model);
  const slider = view.controls.querySelector("input");
  slider.step = "1";
  slider.setAttribute("aria-label", "Time t");
  view.controls.after(
    element("div", { class: "cw-controls dissolve-tools" },
      element("div", {}, "schedule", ...choices.map(([, node]) => node)),
      element("div", {}, "axis", ...axes.map(([, node]) => node))),
    element("p", { class: "dissolve-hint" },
      "Drag a handle up or down to make a schedule of your own; drag elsewhere on the curve to move t. " +
      "Keys: \u2190 \u2192 one step, Page Up and Page Down a twentieth, space plays, \u2191 \u2193 move the handle that has the focus."));

  const nudge = (sign) => (event) => {
    const k = handles.indexOf(event.target);
    if (k >= 0) moveHandle(k, heightsNow()[k] + sign * (event.shiftKey ? 0.05 : 0.5));
  };
  const leap = (sign) => () => clock.seek(clock.shown() + sign * Math.max(1, Math.round(steps / 20)));
  onKeys(view, { ArrowUp: nudge(1), ArrowDown: nudge(-1), PageUp: leap(-1), PageDown: leap(1) });

  const show = () => {
    for (const [name, node] of choices) node.setAttribute("aria-pressed", String(name === model.get("schedule")));
    for (const [value, node] of axes) node.setAttribute("aria-pressed", String(value === model.get("show_alpha_bar")));
    view.redraw();
  };
  for (const name of ["schedule", "log_snr", "show_alpha_bar"]) {
    model.on(`change:${name}`, show);
    view.onStop(() => model.off(`change:${name}`, show));
  }
  view.onStop(send);
  show();
  return view.stop;
}

export default { render };

// Dissolve: add noise to points or images by hand, along a schedule that can be bent.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, rgb } from "./parts/colours.js";
import { choice, row } from "./parts/controls.js";
import { curveEditor } from "./parts/curve_editor.js";
import { monotoneCurve } from "./parts/curves.js";
import { unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { hint, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, inside, panel, segment, trace, words } from "./parts/panel.js";
import { drawTile, pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./dissolve.css" with { type: "css" };

const SHADES = 64; // of the points, from data to noise

// -------------------------------------------------------------------------------- the mathematics

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const logit = (share) => Math.log(share) - Math.log1p(-share);

// The log-SNR at every time, from the heights of the handles. dissolve.py computes the same.
function curveThrough(knots, heights, steps) {
  const curve = monotoneCurve(knots, heights);
  return Float64Array.from({ length: steps }, (_, t) => curve(t)[0]);
}

// The heights of a curve at the handles: inside the plot, and none as high as another.
function heightsAt(curve, knots, limit, gap) {
  const last = knots.length - 1;
  return knots.map((t, k) => clamp(curve[t], gap * (last - k) - limit, limit - gap * k));
}

// -------------------------------------------------------------------------------------- the state

// The schedules of a model, and what is changed of them.
function schedulesOf(model, curves) {
  const [names, knots, steps, limit, gap, yours] =
    ["names", "knots", "n_steps", "limit", "gap", "yours"].map((name) => model.get(name));
  const named = names.map((_, k) => Float64Array.from(curves[`log_snr ${k}`].values));
  const { change, send } = throttledChanges(model);
  let made = {}; // the schedule of the handles, for the heights it was made from
  const curveOf = (name) => {
    if (name !== yours) return named[names.indexOf(name)];
    const heights = model.get("log_snr");
    if (made.heights !== heights) made = { heights, curve: curveThrough(knots, heights, steps) };
    return made.curve;
  };
  const chosen = () => curveOf(model.get("schedule"));
  const heights = () =>
    model.get("schedule") === yours ? model.get("log_snr") : heightsAt(chosen(), knots, limit, gap);
  // Whichever schedule is shown, to move a handle is to make one's own from it.
  const bend = (k, height) => change({ log_snr: heights().with(k, height), schedule: yours });
  // The axis is that of the log-SNR, or of alpha bar.
  const inLogs = () => !model.get("show_alpha_bar");
  const toPlot = (logSnr) => (inLogs() ? logSnr : sigmoid(logSnr));
  const fromPlot = (value) => (inLogs() ? value : clamp(logit(clamp(value, 1e-9, 1 - 1e-9)), -limit, limit));
  const range = () => [0, steps - 1, ...(inLogs() ? [-1.08 * limit, 1.08 * limit] : [-0.04, 1.04])];
  const others = () => names.filter((name) => name !== model.get("schedule"));
  return {
    names, knots, steps, limit, gap, yours, curveOf, chosen, heights, bend, inLogs, toPlot, fromPlot, range, others,
    change, send
  };
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

// The names of the other curves, each where the curves are farthest from each other.
function nameCurves(ctx, schedules, map, box, theme) {
  const { steps, chosen, curveOf, others, toPlot, range } = schedules;
  const spots = Array.from({ length: 15 }, (_, k) => Math.round(((k + 2) / 18) * (steps - 1)));
  const curves = [chosen(), ...others().map(curveOf)];
  const heightOf = (curve, t) => map.y(clamp(toPlot(curve[t]), ...range().slice(2)));
  const font = `12px ${theme.font}`;
  const taken = [];
  ctx.lineJoin = "round";
  ctx.font = font;
  others().forEach((name, i) => {
    const half = ctx.measureText(name).width / 2 + 2;
    const own = curves[i + 1];
    let best = { room: -Infinity };
    for (const t of spots) {
      for (const by of [-12, 12, -20, 20]) {
        const [x, y] = [map.x(t), heightOf(own, t) + by];
        // The curves pass at a slope: what counts is the distance all along the word.
        const near = [-half, 0, half].flatMap((dx) => {
          const there = clamp(Math.round(t + (dx / box.width) * (steps - 1)), 0, steps - 1);
          return curves.map((curve) => (curve === own ? 6 : 0) + Math.abs(heightOf(curve, there) - y));
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
    words(ctx, name, best.x, best.y, theme.muted, font, "center");
  });
}

// From the colour of data to that of noise.
function shade(share) {
  const [from, to] = [PALETTE.data, PALETTE.noise].map(rgb);
  return `rgb(${from.map((value, c) => Math.round(value + (to[c] - value) * share)).join()})`;
}

// Images x = a x_0 + b noise, one below the other on a sheet to be drawn enlarged.
function imagesOf({ values, shape: [count, rows, columns] }, noise) {
  const sheet = pixelSheet(columns, rows * count);
  const levels = new Float64Array(values.length);
  return (ctx, { across, cell }, a, b, { width }, theme) => {
    for (let i = 0; i < values.length; i++) {
      levels[i] = 127.5 * (a * (values[i] / 127.5 - 1) + b * noise[i] + 1);
    }
    sheet.paint(levels);
    const left = (width - across * cell.width - 4 * (across - 1)) / 2;
    for (let i = 0; i < count; i++) {
      const place = {
        x: Math.round(left + (i % across) * (cell.width + 4)),
        y: Math.round(Math.floor(i / across) * (cell.height + 4)),
        width: Math.round(cell.width), height: Math.round(cell.height)
      };
      drawTile(ctx, sheet.canvas, i, [rows, columns], place, theme.line);
    }
  };
}

// The points x = a x_0 + b noise in their plane.
function pointsOf({ values, shape }, noise, reach) {
  const extent = [-reach, reach, -reach, reach];
  const radius = clamp(Math.sqrt(9000 / shape[0]), 1.7, 4.2);
  let dots = null;
  let dotsFor = "";
  return (ctx, box, a, b, { ratio }, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key !== dotsFor) {
      dotsFor = key;
      const colours = Array.from({ length: SHADES }, (_, i) => shade(i / (SHADES - 1)));
      dots = dotStamp(colours, radius, ratio, theme.rim);
    }
    const colour = Math.round(b * b * (SHADES - 1));
    panel(ctx, extent, box, theme, (map) => {
      dots.clear(box.width, box.height);
      for (let i = 0; i < values.length; i += 2) {
        const [x, y] = [map.x(a * values[i] + b * noise[i]), map.y(a * values[i + 1] + b * noise[i + 1])];
        dots.stamp(x - box.x, y - box.y, colour);
      }
      dots.draw(ctx, box);
    });
    words(ctx, "the points at t", box.x, box.y - 14, theme.ink, `600 13px ${theme.font}`);
  };
}

// The places of a curve over t, with a height for each.
function along(box, steps, height) {
  const across = Math.min(steps - 1, Math.round(box.width));
  return Array.from({ length: across + 1 }, (_, k) => {
    const t = Math.round((k / across) * (steps - 1));
    return [box.x + (t / (steps - 1)) * box.width, height(t)];
  });
}

function drawCurves(ctx, schedules, box, theme) {
  const { steps, chosen, curveOf, others, inLogs, toPlot, range } = schedules;
  const map = plane(range(), box);
  const middle = map.y(toPlot(0)); // a = b
  const draw = (curve, colour, width) => {
    trace(ctx, along(box, steps, (t) => map.y(toPlot(curve[t]))));
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  };
  drawPlane(ctx, box, theme);
  ctx.globalAlpha = 0.1;
  ctx.fillStyle = PALETTE.data;
  ctx.fillRect(box.x, box.y, box.width, middle - box.y);
  ctx.fillStyle = PALETTE.noise;
  ctx.fillRect(box.x, middle, box.width, box.y + box.height - middle);
  ctx.globalAlpha = 1;
  inside(ctx, box, () => {
    ctx.lineJoin = "round";
    for (const name of others()) draw(curveOf(name), theme.muted, 1.25);
    draw(chosen(), theme.ink, 2.5);
    nameCurves(ctx, schedules, map, box, theme);
  });
  words(ctx, "a = b", box.x + box.width - 5, middle + 9, theme.muted, `11px ${theme.font}`, "right");
  drawAxes(ctx, range(), box, theme);
  const title = inLogs() ? "log-SNR = log(a\u00b2/b\u00b2) over t" : "\u03b1\u0304 = a\u00b2 over t";
  words(ctx, title, box.x, box.y - 14, theme.ink, `600 13px ${theme.font}`);
  return map;
}

// How much of alpha bar each step takes away. The area is what has gone; that up to x is darker.
function drawLoss(ctx, { steps, chosen }, box, x, theme) {
  const curve = chosen();
  const span = Math.max(1, Math.round(steps / 100)); // what 16 bits cannot show is averaged out
  const fall = (when) => {
    const [before, after] = [Math.max(when - span, 0), Math.min(when + span, steps - 1)];
    return ((sigmoid(curve[before]) - sigmoid(curve[after])) * (steps - 1)) / (after - before);
  };
  let top = 3; // gives way where nearly all goes at once
  for (let when = 0; when < steps; when++) top = Math.max(top, fall(when));
  const floor = box.y + box.height;
  const area = along(box, steps, (when) => floor - (0.94 * box.height * fall(when)) / top);
  drawPlane(ctx, box, theme);
  for (const [right, alpha] of [[box.x + box.width, 0.3], [x, 0.6]]) {
    inside(ctx, { ...box, width: right - box.x }, () => {
      trace(ctx, [...area, [box.x + box.width, floor], [box.x, floor]]);
      ctx.globalAlpha = alpha;
      ctx.fillStyle = PALETTE.noise;
      ctx.fill();
    });
  }
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(box.x) + 0.5, Math.round(box.y) + 0.5, box.width - 1, box.height - 1);
  words(ctx, "how much of \u03b1\u0304 is lost at each t", box.x, box.y - 11, theme.muted, `12px ${theme.font}`);
}

// What is written above the picture: the formula with its numbers, and the shares of the variance.
function formulaLine(variance) {
  const part = (name) => element("span", { class: `value ${name}` });
  const written = {
    t: part(""), a: part("data short"), b: part("noise short"), alphaBar: part("short"), logSnr: part(""),
    data: part(""), noise: part("")
  };
  const sub = (letter, index) => [letter, element("sub", {}, index)];
  const bar = element("div");
  const title = "Share of the variance of x that comes from the data: a\u00b2v / (a\u00b2v + b\u00b2), where v is the variance of the data";
  const node = element("div", { class: "dissolve-said" },
    element("span", { class: "dissolve-formula" }, ...sub("x", "t"), " = ", written.a, " ", ...sub("x", "0"), " + ", written.b, " \u03b5"),
    element("span", {}, "t = ", written.t),
    element("span", {}, "\u03b1\u0304 = ", written.alphaBar),
    element("span", {}, "log-SNR = ", written.logSnr),
    element("span", { class: "dissolve-shares", title }, "variance: data", written.data,
      element("div", { class: "dissolve-bar" }, bar), "noise", written.noise));
  const write = (t, a, b, logSnr) => {
    const share = (a * a * variance) / (a * a * variance + b * b);
    const percent = Math.round(100 * share);
    const now = {
      t: String(t), a: a.toFixed(3), b: b.toFixed(3), alphaBar: (a * a).toFixed(3),
      logSnr: logSnr.toFixed(2).replace("-", "\u2212"), data: `${percent} %`, noise: `${100 - percent} %`
    };
    for (const [name, text] of Object.entries(now)) say(written[name], text);
    bar.style.width = `${100 * share}%`;
  };
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const { points, images, noise, ...curves } = unpack(model);
  const schedules = schedulesOf(model, curves);
  const { steps, limit, gap, chosen, send } = schedules;
  const clock = clockOf(model);
  // The schedule has whole times only.
  clock.shown = () => clamp(Math.floor(clock.step + 0.5), 0, steps - 1);
  clock.back = () => clock.seek(clock.shown() - 1);
  clock.forward = () => clock.seek(clock.shown() + 1);

  const drawData = images ? imagesOf(images, noise.values) : pointsOf(points, noise.values, model.get("reach"));
  const formula = formulaLine(model.get("variance"));
  let at = null; // where everything stands, as last laid out
  const draw = (ctx, size, theme) => {
    const t = clock.shown();
    const logSnr = chosen()[t];
    const [a, b] = [Math.sqrt(sigmoid(logSnr)), Math.sqrt(sigmoid(-logSnr))];
    drawData(ctx, at.data, a, b, size, theme);
    const map = drawCurves(ctx, schedules, at.curve, theme);
    const x = map.x(t);
    drawLoss(ctx, schedules, at.drop, x, theme);
    // The time that is shown, in both.
    ctx.strokeStyle = theme.accent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const { y, height } of [at.curve, at.drop]) segment(ctx, x, y, x, y + height);
    ctx.stroke();
    const y = clamp(map.y(schedules.toPlot(logSnr)), at.curve.y, at.curve.y + at.curve.height);
    dot(ctx, x, y, 6, shade(1 - sigmoid(logSnr)), theme.plot, 1.5);
    editor.stand(map);
    formula.write(t, a, b, logSnr);
  };
  const layout = (width) => {
    at = stands(width, images);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 760, style: STYLE });
  view.header.after(formula.node);

  const editor = curveEditor(view, {
    read: () => [schedules.knots, schedules.heights()],
    write: (k, t, height) => schedules.bend(k, height),
    limits: () => ({ y: [-limit, limit], gap }),
    falls: true, end: send, kind: "dissolve-knot",
    name: (k) => `Log-SNR at t = ${schedules.knots[k]}`,
    said: (t, height) => height.toFixed(2),
    toPlot: schedules.toPlot, fromPlot: schedules.fromPlot
  });
  // Elsewhere the curve is a slider of the time.
  const timeAt = ([x]) => Math.round(clamp((x - at.curve.x) / at.curve.width, 0, 1) * (steps - 1));
  const over = ([x, y]) => x >= at.curve.x - 4 && x <= at.curve.x + at.curve.width + 4
    && y >= at.curve.y && y <= at.drop.y + at.drop.height;
  drag(view.canvas, {
    focus: view.root,
    start: (place) => {
      if (!over(place)) return null;
      clock.seek(timeAt(place));
      return (to) => clock.seek(timeAt(to));
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "ew-resize" : "")
  });

  playerBar(view, model);
  const slider = view.controls.querySelector("input");
  slider.step = "1";
  slider.setAttribute("aria-label", "Time t");
  // What is pressed after a drag is told after it.
  const change = (values) => {
    schedules.change(values);
    send();
  };
  const tools = row(
    choice(view, "schedule", "schedule", [...schedules.names, schedules.yours].map((name) =>
      [name, name, name === schedules.yours ? "The schedule of the handles" : `The ${name} schedule`]), { change }),
    choice(view, "show_alpha_bar", "axis", [
      [false, "log-SNR", "Show the log-SNR over t"], [true, "\u03b1\u0304", "Show alpha bar over t"]
    ], { change }));
  tools.classList.add("dissolve-tools");
  view.controls.after(tools, hint(
    "Drag a handle up or down to make a schedule of your own; drag elsewhere on the curve to move t. " +
    "Keys: \u2190 \u2192 one step, Page Up and Page Down a twentieth, space plays, \u2191 \u2193 move the handle that has the focus."));

  const nudge = (sign) => (event) => {
    const k = editor.indexOf(event.target);
    if (k >= 0) editor.move(k, 0, schedules.heights()[k] + sign * (event.shiftKey ? 0.05 : 0.5));
  };
  const leap = (sign) => () => clock.seek(clock.shown() + sign * Math.max(1, Math.round(steps / 20)));
  const leaps = { PageUp: leap(-1), PageDown: leap(1) };
  onKeys(view, { ArrowUp: nudge(1), ArrowDown: nudge(-1), ...leaps });
  onKeys(view, leaps, slider);
  view.follow(["schedule", "log_snr", "show_alpha_bar"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

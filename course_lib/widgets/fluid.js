// Fluid: draw a velocity field on a line by hand; a density flows along it.

import { drawPlane, plane, ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { MAPS, PALETTE, colourWords } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { curveEditor } from "./parts/curve_editor.js";
import { monotoneCurve } from "./parts/curves.js";
import { tidy } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { hint, mapStrip, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, inside, segment, trace, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./fluid.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics

const COLUMNS = 321; // places where the density is drawn
const NODES = 400; // on the first density, to sum up the mass
const PARTICLES = 100; // of equal mass
const BRIGHTEST = 2.5; // times the highest density at the start

// A mixture of Gaussians as a function of x.
function mixtureOf(weights, means, stds) {
  const heights = weights.map((weight, k) => weight / (stds[k] * Math.sqrt(2 * Math.PI)));
  return (x) => heights.reduce((sum, height, k) => sum + height * Math.exp(-(((x - means[k]) / stds[k]) ** 2) / 2), 0);
}

const spread = (low, high, count) => Float64Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));

// Places that hold all of the first density, and others that cut it into parts of equal mass.
function placesOn(density, means, stds) {
  const nodes = spread(
    Math.min(...means.map((mean, k) => mean - 6 * stds[k])), Math.max(...means.map((mean, k) => mean + 6 * stds[k])), NODES);
  const heights = nodes.map(density);
  const total = heights.reduce((a, b) => a + b, 0);
  const particles = new Float64Array(PARTICLES);
  let [below, found] = [0, 0];
  nodes.forEach((x, i) => {
    below += heights[i] / total;
    while (found < PARTICLES && below > (found + 0.5) / PARTICLES) {
      const beyond = (below - (found + 0.5) / PARTICLES) / (heights[i] / total);
      particles[found++] = x + (0.5 - beyond) * (nodes[1] - nodes[0]);
    }
  });
  return { nodes, particles };
}

// One step h of the classical Runge-Kutta method for all places x at once, dx/dt = v(x), and for the
// integral of v' on their way. `field(x)` is [v(x), v'(x)].
function onward(field, { x, grown }, h) {
  const next = { x: new Float64Array(x.length), grown: new Float64Array(x.length) };
  for (let i = 0; i < x.length; i++) {
    const [f1, g1] = field(x[i]);
    const [f2, g2] = field(x[i] + (h / 2) * f1);
    const [f3, g3] = field(x[i] + (h / 2) * f2);
    const [f4, g4] = field(x[i] + h * f3);
    next.x[i] = x[i] + (h / 6) * (f1 + 2 * f2 + 2 * f3 + f4);
    next.grown[i] = grown[i] + (h / 6) * (g1 + 2 * g2 + 2 * g3 + g4);
  }
  return next;
}

// Where the field takes places in steps of the time h (which may be negative), as a function of the
// step, which may be a fraction. The field does not change with time, so each step begins where the one
// before it ended, on the way back, too.
function journey(field, places, h) {
  const rows = [{ x: places, grown: new Float64Array(places.length) }];
  return (step) => {
    const whole = Math.floor(step);
    while (rows.length <= whole) rows.push(onward(field, rows.at(-1), h));
    return step === whole ? rows[whole] : onward(field, rows[whole], (step - whole) * h);
  };
}

// The integral of a density over places {x, p}, in any order: trapezoids.
function massOf(places) {
  const order = places.toSorted((one, other) => one.x - other.x);
  let sum = 0;
  for (let i = 1; i < order.length; i++) sum += ((order[i].p + order[i - 1].p) / 2) * (order[i].x - order[i - 1].x);
  return sum;
}

// How a field moves all that is drawn, in steps of the time h: the columns back and forth.
function journeysOf(field, { columns, nodes, particles }, h) {
  return {
    back: journey(field, columns, -h), forth: journey(field, columns, h),
    onNodes: journey(field, nodes, h), onParticles: journey(field, particles, h)
  };
}

// What there is at a step: the density over the columns, p(x) = p_0(where it came from) exp(-the
// integral of v' on the way), where the particles are, how much each is squeezed, and the mass. To sum
// that up it takes places that are close together where there is much: even at the start (nodes), at
// the end (columns), and at times between, then carried on.
function fluidAt(step, first, { back, forth, onNodes, onParticles }) {
  const came = back(step);
  const density = came.x.map((x, i) => first(x) * Math.exp(came.grown[i]));
  const [start, went] = [onNodes(0), onNodes(step)];
  const places = Array.from(start.x, (x, i) => ({ x: went.x[i], p: first(x) * Math.exp(-went.grown[i]) }));
  for (const share of [0.25, 0.5, 0.75, 1]) {
    const [before, after] = [back(share * step), forth(step - share * step)];
    after.x.forEach((x, i) => places.push({ x, p: first(before.x[i]) * Math.exp(before.grown[i] - after.grown[i]) }));
  }
  const here = onParticles(step);
  return {
    density, particles: here.x, squeezed: here.grown.map((grown) => Math.exp(-grown)), mass: massOf(places)
  };
}

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const [knots, limit, speed, duration, n_steps] =
    ["knots", "limit", "speed", "duration", "n_steps"].map((name) => model.get(name));
  const [weights, means, stds] = ["weights", "means", "stds"].map((name) => model.get(name));
  const { change, send } = throttledChanges(model);
  const first = mixtureOf(weights, means, stds);
  const { nodes, particles } = placesOn(first, means, stds);
  const columns = spread(-limit, limit, COLUMNS);
  const h = duration / (n_steps - 1);

  let known = {}; // for the field that it was computed from
  const flow = () => {
    const velocities = model.get("velocities");
    if (known.velocities === velocities) return known;
    const field = monotoneCurve(knots, velocities);
    known = { velocities, field, journeys: journeysOf(field, { columns, nodes, particles }, h) };
    return known;
  };
  const at = (step) => ({ field: flow().field, ...fluidAt(step, first, flow().journeys) });
  const setKnot = (k, x, y) => change({ velocities: model.get("velocities").with(k, clamp(y, -speed, speed)) });
  // A stroke over the plot takes all knots with it that it passes, and the nearest one.
  const nearest = (x) => clamp(Math.round(((x + limit) / (2 * limit)) * (knots.length - 1)), 0, knots.length - 1);
  const stroke = ([x0, y0], [x1, y1]) => {
    const [low, high] = [Math.min(x0, x1), Math.max(x0, x1)];
    const drawn = model.get("velocities").map((y, k) => {
      if (k === nearest(x1)) return clamp(y1, -speed, speed);
      const passed = knots[k] > low && knots[k] < high;
      return passed ? clamp(y0 + ((y1 - y0) * (knots[k] - x0)) / (x1 - x0), -speed, speed) : y;
    });
    change({ velocities: drawn });
  };
  const goTo = (velocities) => {
    change({ velocities: [...velocities] });
    send();
  };
  const top = Math.max(...columns.map(first));
  return { knots, limit, speed, first, columns, top, at, setKnot, stroke, goTo, send };
}

// ------------------------------------------------------------------------------------ the picture

// The field, the density and the fluid, one below the other on the same line.
function stands(width) {
  const [left, gap] = [42, 10];
  const inner = width - left - 10;
  const height = Math.round(clamp(0.26 * inner, 90, 140));
  const field = { x: left, y: 6, width: inner, height };
  const density = { x: left, y: field.y + height + gap, width: inner, height };
  const tube = { x: left, y: density.y + height + gap, width: inner, height: 44 };
  return { field, density, tube, total: tube.y + tube.height + 26 };
}

const caption = (ctx, text, { x, y }, colour, theme) =>
  words(ctx, text, x + 8, y + 7, colour, `600 12px ${theme.font}`, "left", "top");

// Heights over the columns as places on the canvas.
const line = (columns, heights, map) => Array.from(columns, (x, i) => [map.x(x), map.y(heights[i])]);

function drawField(ctx, { columns, knots, limit, speed }, field, box, theme) {
  const map = plane([-limit, limit, -1.08 * speed, 1.08 * speed], box);
  const zero = map.y(0);
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1;
    ctx.beginPath();
    segment(ctx, box.x, Math.round(zero) + 0.5, box.x + box.width, Math.round(zero) + 0.5);
    ctx.stroke();
    // On the line, where the fluid goes.
    ctx.strokeStyle = ctx.fillStyle = PALETTE.model;
    ctx.lineWidth = 1.5;
    const count = 2 * knots.length;
    for (let k = 0; k < count; k++) {
      const x = -limit + (2 * limit * (k + 0.5)) / count;
      const long = ((field(x)[0] / speed) * box.width) / count;
      if (Math.abs(long) < 2) continue;
      const [tail, tip] = [map.x(x) - long / 2, map.x(x) + long / 2];
      const head = Math.sign(long) * Math.min(6, Math.abs(long));
      ctx.beginPath();
      segment(ctx, tail, zero, tip - head, zero);
      ctx.stroke();
      ctx.beginPath();
      trace(ctx, [[tip, zero], [tip - head, zero - 4], [tip - head, zero + 4]]);
      ctx.fill();
    }
    trace(ctx, line(columns, columns.map((x) => field(x)[0]), map));
    ctx.lineJoin = "round";
    ctx.lineWidth = 2.5;
    ctx.stroke();
  });
  caption(ctx, "velocity v(x)", box, theme.words.model, theme);
  return map;
}

function drawDensity(ctx, { columns, first, limit, top }, density, box, theme) {
  const high = 1.1 * clamp(Math.max(...density), 1.6 * top, 6 * top);
  const extent = [-limit, limit, 0, high];
  const map = plane(extent, box);
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
    const now = line(columns, density, map);
    trace(ctx, [...now, [map.x(limit), map.y(0)], [map.x(-limit), map.y(0)]]);
    ctx.globalAlpha = 0.25;
    ctx.fillStyle = PALETTE.data;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.lineJoin = "round";
    trace(ctx, line(columns, columns.map(first), map));
    ctx.strokeStyle = PALETTE.noise;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 4]);
    ctx.stroke();
    ctx.setLineDash([]);
    trace(ctx, now);
    ctx.strokeStyle = PALETTE.data;
    ctx.lineWidth = 2;
    ctx.stroke();
  });
  caption(ctx, "density p(x)", box, theme.words.data, theme);
  return map;
}

// The fluid as bright as it is dense, with particles of equal mass in it.
function tubeOf({ limit, top }) {
  const sheet = pixelSheet(COLUMNS, 1);
  const colours = colourWords("viridis");
  return (ctx, { density, particles }, box) => {
    sheet.paint(density.map((p) => (255 * p) / (BRIGHTEST * top)), colours);
    ctx.imageSmoothingEnabled = true;
    const column = box.width / (COLUMNS - 1); // the outer ones stand on the edges
    inside(ctx, box, () => {
      ctx.drawImage(sheet.canvas, box.x - column / 2, box.y, box.width + column, box.height);
      particles.forEach((x, i) => {
        if (Math.abs(x) > limit) return;
        const y = box.y + 5 + ((i * 0.618034) % 1) * (box.height - 10);
        dot(ctx, box.x + ((x + limit) / (2 * limit)) * box.width, y, 2, "#ffffff", "#10141a");
      });
    });
  };
}

// Frames and numbers: x below all, heights beside the two plots.
function drawNumbers(ctx, { field, density, tube }, limit, velocities, heights, theme) {
  const font = `11px ${theme.font}`;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  for (const { x, y, width, height } of [field, density, tube]) ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  const floor = tube.y + tube.height;
  ctx.beginPath();
  for (const value of ticks(-limit, limit)) {
    const x = Math.round(velocities.x(value)) + 0.5;
    segment(ctx, x, floor, x, floor + 4);
    words(ctx, tidy(value), x, floor + 8, theme.muted, font, "center", "top");
  }
  for (const [box, map] of [[field, velocities], [density, heights]]) {
    const ends = [box.y + box.height, box.y].map((y) => map.toPlane(0, y)[1]);
    for (const value of ticks(...ends, 4)) {
      const y = Math.round(map.y(value)) + 0.5;
      segment(ctx, box.x - 4, y, box.x, y);
      words(ctx, tidy(value), box.x - 7, y, theme.muted, font, "right");
    }
  }
  ctx.stroke();
}

// What is summed up, above the picture: the mass, and how much the density of a particle has changed.
function saidLine() {
  const [mass, least, most] = [0, 1, 2].map(() => element("b"));
  const node = element("p", { class: "fluid-said" },
    element("span", {}, "mass \u222b p dx = ", mass),
    element("span", {}, "density of a particle: \u00d7 ", least, " to \u00d7 ", most));
  const times = (value) => (value < 99.5 ? String(Number(value.toPrecision(2))) : "99+");
  const write = (now) => {
    say(mass, now.mass.toFixed(3));
    say(least, times(Math.min(...now.squeezed)));
    say(most, times(Math.max(...now.squeezed)));
  };
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { limit, speed, top, send } = state;
  const drawTube = tubeOf(state);
  const said = saidLine();
  let map = null; // of the field, as last drawn
  let boxes = null;

  const draw = (ctx, { width }, theme) => {
    boxes = stands(width);
    const now = state.at(clock.shown());
    map = drawField(ctx, state, now.field, boxes.field, theme);
    const heights = drawDensity(ctx, state, now.density, boxes.density, theme);
    drawTube(ctx, now, boxes.tube);
    drawNumbers(ctx, boxes, limit, map, heights, theme);
    editor.stand(map);
    said.write(now);
  };
  const view = outline({ model, el, layout: (width) => stands(width).total, draw, style: STYLE, name: "fluid", maxWidth: 620 });
  const clock = playerBar(view, model);
  view.header.after(said.node);

  const editor = curveEditor(view, {
    read: () => [state.knots, model.get("velocities")], write: state.setKnot, end: send, kind: "fluid-knot",
    limits: () => ({ y: [-speed, speed] }), free: true,
    name: (k) => `Velocity at x = ${tidy(state.knots[k])}`, said: (x, y) => y.toFixed(2)
  });
  // One stroke draws a whole field.
  const over = ([x, y], { field }) => x >= field.x && x <= field.x + field.width && y >= field.y && y <= field.y + field.height;
  drag(view.canvas, {
    focus: view.root, end: send,
    start: (place) => {
      if (!over(place, boxes)) return null;
      let before = map.toPlane(...place);
      state.stroke(before, before);
      return (to) => {
        const now = map.toPlane(...to);
        state.stroke(before, now);
        before = now;
      };
    },
    hover: (place) => (view.canvas.style.cursor = over(place, boxes) ? "crosshair" : "")
  });
  const nudge = (sign) => (event) => {
    const k = editor.indexOf(event.target);
    if (k >= 0) editor.move(k, 0, model.get("velocities")[k] + (sign * speed * (event.shiftKey ? 1 : 5)) / 50);
  };
  onKeys(view, { ArrowUp: nudge(1), ArrowDown: nudge(-1) });

  view.controls.after(
    row(...model.get("presets").map(([name, velocities]) =>
      button(name[0].toUpperCase() + name.slice(1), () => state.goTo(velocities))),
    button("Reset", () => state.goTo(model.get("start")), { class: "cw-quiet", title: "Bring back the first field" }),
    mapStrip(MAPS.viridis, "density 0", (BRIGHTEST * top).toPrecision(2))),
    hint(
      "Draw the field with one stroke, or drag a knot; then play. Each white dot carries the same mass. " +
      "Keys: \u2191 \u2193 move the knot that has the focus (Shift: finer), \u2190 \u2192 one step of time, space plays."));
  view.follow(["velocities"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

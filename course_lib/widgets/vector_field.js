// VectorField: arrows all over the plane, at every time, and particles that drift along a flow.

import { drawColourBar } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, anchorsOf, colourList } from "./parts/colours.js";
import { button, choice, row } from "./parts/controls.js";
import { atStep, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint } from "./parts/notes.js";
import { outline } from "./parts/outline.js";
import { clamp, dot, panel, trace } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./vector_field.css" with { type: "css" };

const COLOURS = 32;

const SCALES = [
  ["all", "one scale", "A length of arrow means the same at all times"],
  ["each", "each time", "Each time has a scale of its own"],
  ["direction", "direction", "All arrows are equally long; the colour tells the length"]
];

// ------------------------------------------------------------------------------------- integration

// The flow at a place and a time: linear between two times and two nodes; beyond the grid, that of
// the nearest place on its rim.
function velocity({ values, shape: [steps, rows, columns] }, [x0, x1, y0, y1], x, y, step) {
  const cell = (place, count) => {
    const near = clamp(place, 0, count - 1);
    const low = Math.min(Math.floor(near), count - 2);
    return [low, near - low];
  };
  const [t, later] = cell(step, steps);
  const [i, up] = cell(((y - y0) / (y1 - y0)) * (rows - 1), rows);
  const [j, right] = cell(((x - x0) / (x1 - x0)) * (columns - 1), columns);
  const found = [0, 0];
  for (let corner = 0; corner < 8; corner++) {
    const [dt, di, dj] = [corner >> 2, (corner >> 1) & 1, corner & 1];
    const share = (dt ? later : 1 - later) * (di ? up : 1 - up) * (dj ? right : 1 - right);
    const at = 2 * (((t + dt) * rows + i + di) * columns + j + dj);
    found[0] += share * values[at];
    found[1] += share * values[at + 1];
  }
  return found;
}

// Where the flow leads a particle from (x, y, step), forwards and backwards: its place at each
// moment k / moments, as Float64Array [2 (moments (T - 1) + 1)].
function carry(flow, extent, [x, y, step], moments) {
  const last = moments * (flow.shape[0] - 1);
  const path = new Float64Array(2 * (last + 1));
  for (const way of [1, -1]) {
    let [px, py, now] = [x, y, step];
    let k = way > 0 ? Math.ceil(step * moments) : Math.floor(step * moments);
    for (; k >= 0 && k <= last; k += way) {
      // One step of the classical Runge-Kutta method, to the next moment.
      const h = k / moments - now;
      const [u1, v1] = velocity(flow, extent, px, py, now);
      const [u2, v2] = velocity(flow, extent, px + (h / 2) * u1, py + (h / 2) * v1, now + h / 2);
      const [u3, v3] = velocity(flow, extent, px + (h / 2) * u2, py + (h / 2) * v2, now + h / 2);
      const [u4, v4] = velocity(flow, extent, px + h * u3, py + h * v3, now + h);
      px += (h / 6) * (u1 + 2 * u2 + 2 * u3 + u4);
      py += (h / 6) * (v1 + 2 * v2 + 2 * v3 + v4);
      now = k / moments;
      path[2 * k] = px;
      path[2 * k + 1] = py;
    }
  }
  return path;
}

// Where a particle is at a step: on its path, and exactly where it was dropped at that time.
function placeAt({ path, dropped: [x, y, start] }, step, moments) {
  if (step === start) return [x, y];
  const at = Math.min(step * moments, path.length / 2 - 1);
  const k = 2 * Math.min(Math.floor(at), path.length / 2 - 2);
  const share = at - k / 2;
  return [path[k] + (path[k + 2] - path[k]) * share, path[k + 1] + (path[k + 3] - path[k + 1]) * share];
}

// ------------------------------------------------------------------------------------------ arrows

// An arrow around its middle (x, y), from its tail to its tip by (dx, dy) pixels, as part of a path;
// `rim` pixels larger all around.
function traceArrow(ctx, x, y, dx, dy, rim) {
  const length = Math.hypot(dx, dy);
  if (length < 1.5) {
    ctx.rect(x - 0.8 - rim, y - 0.8 - rim, 1.6 + 2 * rim, 1.6 + 2 * rim);
    return;
  }
  const [ux, uy] = [dx / length, dy / length];
  const head = Math.min(7, 0.55 * length);
  const shaft = Math.min(0.8, length / 10) + rim;
  const wide = 0.42 * head + 1.5 * rim;
  const tail = -length / 2 - rim;
  const neck = length / 2 - head - rim;
  const tip = length / 2 + 2 * rim;
  const [nx, ny] = [x + neck * ux, y + neck * uy];
  ctx.moveTo(x + tail * ux - shaft * uy, y + tail * uy + shaft * ux);
  ctx.lineTo(nx - shaft * uy, ny + shaft * ux);
  ctx.lineTo(nx - wide * uy, ny + wide * ux);
  ctx.lineTo(x + tip * ux, y + tip * uy);
  ctx.lineTo(nx + wide * uy, ny - wide * ux);
  ctx.lineTo(nx + shaft * uy, ny - shaft * ux);
  ctx.lineTo(x + tail * ux + shaft * uy, y + tail * uy - shaft * ux);
  ctx.closePath();
}

// The vectors of a grid as arrows; `lengthOf(length)` is how long one is drawn, in cells of the grid,
// and those of length `top` have the last of the colours. All have a rim, so that the ends of the
// colour map stand out from the page, too: filled, since it is drawn much faster than a line around
// each.
function drawArrows(ctx, vectors, [, rows, columns], { top, lengthOf }, box, theme) {
  const [across, up] = [box.width / (columns - 1), box.height / (rows - 1)];
  const cell = Math.min(across, up);
  const colours = colourList("viridis", COLOURS, theme);
  const byColour = colours.map(() => []);
  ctx.beginPath();
  for (let i = 0; i < rows * columns; i++) {
    const [dx, dy] = [vectors[2 * i], -vectors[2 * i + 1]];
    const length = Math.hypot(dx, dy);
    const scale = (cell * lengthOf(length)) / (length || 1);
    const [x, y] = [box.x + (i % columns) * across, box.y + box.height - Math.floor(i / columns) * up];
    const arrow = [x, y, scale * dx, scale * dy];
    byColour[Math.min(COLOURS - 1, Math.floor((COLOURS * length) / top))].push(arrow);
    traceArrow(ctx, ...arrow, 0.6);
  }
  ctx.fillStyle = theme.dark ? "rgba(232, 234, 237, 0.35)" : "rgba(31, 35, 40, 0.6)";
  ctx.fill();
  byColour.forEach((arrows, colour) => {
    ctx.beginPath();
    for (const arrow of arrows) traceArrow(ctx, ...arrow, 0);
    ctx.fillStyle = colours[colour];
    ctx.fill();
  });
}

// --------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const { field, points, flow } = unpack(model);
  const [extent, moments] = [model.get("extent"), model.get("moments")];
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  let known = new Map(); // where each particle goes, until it is dropped anew
  const particles = () => {
    const found = model.get("dropped").map((dropped) => {
      const name = dropped.join();
      return [name, known.get(name) || { dropped, path: carry(flow, extent, dropped, moments) }];
    });
    known = new Map(found);
    return found.map(([, one]) => one);
  };
  const here = (i) => placeAt(particles()[i], clock.shown(), moments);
  // Particle i is dropped at (x, y) now; where there is no such particle, it is a new one.
  const drop = (i, x, y) => {
    const dropped = [...model.get("dropped")];
    dropped[Math.min(i, dropped.length)] = [clamp(x, extent[0], extent[1]), clamp(y, extent[2], extent[3]), clock.shown()];
    change({ dropped });
  };
  const remove = (i) => change({ dropped: model.get("dropped").filter((_, k) => k !== i) });
  // The index of a particle to come. Of too many the oldest goes.
  const another = () => {
    if (model.get("dropped").length === model.get("most_dropped")) remove(0);
    return model.get("dropped").length;
  };
  // How long the longest arrow is at a step, and how long one is drawn.
  const scaleAt = (step) => {
    const [scale, tops, longest, allEqual, least] =
      ["scale", "tops", "longest", "all_equal", "least"].map((name) => model.get(name));
    const k = Math.min(Math.floor(step), tops.length - 1);
    const own = tops[k] + ((tops[k + 1] ?? tops[k]) - tops[k]) * (step - k);
    const top = scale === "each" ? own : model.get("top");
    const lengthOf = scale === "direction" ? (length) => (length > least ? allEqual : 0)
      : (length) => longest * Math.min(length / top, 1);
    return { top, lengthOf };
  };
  return { field, points, flow, extent, moments, clock, particles, here, drop, remove, another, scaleAt, change, send };
}

// ------------------------------------------------------------------------------------- the picture

function boxFor([x0, x1, y0, y1], width) {
  const inner = width - 36 - 82;
  return { x: 36, y: 6, width: inner, height: Math.round(inner * clamp((y1 - y0) / (x1 - x0), 0.3, 1.4)) };
}

// All of a particle's path is thin, the part that was travelled is bold.
function drawPath(ctx, map, particle, step, moments, theme) {
  const { path, dropped: [x, y, start] } = particle;
  const [from, to] = [Math.min(start, step), Math.max(start, step)];
  const onCanvas = ([px, py]) => [map.x(px), map.y(py)];
  const all = Array.from({ length: path.length / 2 }, (_, k) => onCanvas(path.subarray(2 * k, 2 * k + 2)));
  const [first, last] = [from, to].map((end) => onCanvas(placeAt(particle, end, moments)));
  const travelled = [first, ...all.slice(Math.ceil(from * moments), Math.floor(to * moments) + 1), last];
  ctx.lineJoin = ctx.lineCap = "round";
  for (const [places, bold] of [[all, 0], [travelled, 1.5]]) {
    trace(ctx, places);
    for (const [colour, width] of [[theme.plot, 3.5], [PALETTE.model, 1.3]]) {
      ctx.lineWidth = width + bold;
      ctx.strokeStyle = colour;
      ctx.stroke();
    }
  }
  dot(ctx, ...onCanvas([x, y]), 4, theme.plot, PALETTE.model, 1.5);
}

// Returns `draw(ctx, box, theme)`, which draws the present time and returns the map of the plane.
function pictureOf(state, label) {
  const { field, points, extent, moments, clock } = state;
  const vectors = new Float32Array(field.values.length / field.shape[0]);
  const cloud = points && new Float32Array(2 * points.shape[1]);
  return (ctx, box, theme) => {
    const step = clock.shown();
    const scale = state.scaleAt(step);
    const bar = { x: box.x + box.width + 14, y: box.y, width: 12, height: box.height };
    drawColourBar(ctx, "viridis", 0, scale.top, label, bar, theme, anchorsOf("viridis", theme));
    return panel(ctx, extent, box, theme, (map) => {
      if (points) {
        atStep(points, step, cloud);
        ctx.beginPath();
        for (let i = 0; i < cloud.length; i += 2) ctx.rect(map.x(cloud[i]) - 1.2, map.y(cloud[i + 1]) - 1.2, 2.4, 2.4);
        ctx.fillStyle = PALETTE.data;
        ctx.globalAlpha = theme.dark ? 0.6 : 0.4;
        ctx.fill();
        ctx.globalAlpha = 1;
      }
      drawArrows(ctx, atStep(field, step, vectors), field.shape, scale, box, theme);
      for (const particle of state.particles()) drawPath(ctx, map, particle, step, moments, theme);
    });
  };
}

// ---------------------------------------------------------------------------------- the particles

const written = (x) => x.toFixed(2).replace("-", "\u2212");

// A handle for each particle: what the focus is on, and what is dragged and moved by the arrow keys.
// Returns {place, buttons}; `map()` is that of the plane as last drawn.
function particlesOn(view, state, map) {
  const { extent: [x0, x1, y0, y1], here, drop, remove, another, change, send } = state;
  const handles = [];
  const within = ([x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1;
  const handleOf = (i) => handle(view, `Particle ${i + 1}`, {
    shape: "round vectors-particle", range: [x0, x1], end: send,
    start: ([x, y]) => {
      const [left, top] = [map().x(here(i)[0]) - x, map().y(here(i)[1]) - y];
      return ([toX, toY]) => drop(i, ...map().toPlane(toX + left, toY + top));
    }
  });
  const place = () => handles.forEach(({ node, stand }, i) => {
    const [x, y] = here(i);
    stand(map().x(x), map().y(y), x, `(${written(x)}, ${written(y)})`);
    node.classList.toggle("outside", !within([x, y]));
  });

  view.stage.classList.add("vectors-flow");
  drag(view.canvas, {
    focus: null, end: send,
    start: (at) => {
      if (!within(map().toPlane(...at))) return null;
      const i = another();
      const move = (to) => drop(i, ...map().toPlane(...to));
      move(at);
      handles[i].node.focus({ preventScroll: true });
      return move;
    }
  });
  const indexOf = ({ target }) => handles.findIndex(({ node }) => node === target);
  const nudge = (right, up) => (event) => {
    const i = indexOf(event);
    const by = (event.shiftKey ? 0.1 : 0.02) * (x1 - x0);
    const [x, y] = here(i);
    drop(i, x + by * right, y + by * up);
  };
  const takeOut = (event) => {
    const i = indexOf(event);
    remove(i);
    (handles[Math.min(i, handles.length - 1)]?.node || view.root).focus();
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1),
    Delete: takeOut, Backspace: takeOut
  }, view.stage);

  const add = button("Drop a particle", () => {
    // Around the middle, and always beside the others: the seeds of a sunflower.
    const i = another();
    const [radius, angle] = [0.07 * Math.sqrt(i), 2.4 * i];
    drop(i, x0 + (x1 - x0) * (0.5 + radius * Math.cos(angle)), y0 + (y1 - y0) * (0.5 + radius * Math.sin(angle)));
    send();
  });
  const clear = button("Clear", () => {
    change({ dropped: [] });
    send();
  });
  view.follow(["dropped"], () => {
    const wanted = view.model.get("dropped").length;
    while (handles.length > wanted) handles.pop().node.remove();
    while (handles.length < wanted) handles.push(handleOf(handles.length));
    clear.disabled = !wanted;
    view.redraw();
  }, { now: true });
  return { place, buttons: [add, clear] };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { extent, flow, send } = state;
  const paint = pictureOf(state, `length: ${model.get("field_label")}`);
  let map = null; // as last drawn
  const draw = (ctx, { width }, theme) => {
    map = paint(ctx, boxFor(extent, width), theme);
    particles?.place();
  };
  const layout = (width) => boxFor(extent, width).height + 30;
  const view = outline({ model, el, style: STYLE, layout, draw });
  const particles = flow && particlesOn(view, state, () => map);
  playerBar(view, model);
  view.controls.after(row(
    ...(particles ? particles.buttons : []), choice(view, "scale", "arrows", SCALES)));
  if (flow) {
    view.root.append(hint(
      "Click in the plane to drop a particle, or drag one. As time goes on or back, the flow carries it: the " +
      "thin line is its way. Keys: arrows move the particle in focus (Shift: further), Delete takes it out."));
  }
  view.follow(["scale"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

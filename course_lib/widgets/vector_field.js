// VectorField: arrows all over the plane, at every time, and particles that drift along a flow.

import { drawAxes, drawColourBar, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, colourTable } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { clamp } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./vector_field.css" with { type: "css" };

// vector_field.py has the same numbers.
const MOMENTS = 8; // stored places of a dropped particle for each step
const MOST_DROPPED = 40;
const LONGEST = 1.3; // the longest arrow, in cells of the grid
const ALL_EQUAL = 0.75; // the length of all arrows where they show directions only

const COLOURS = 32;
const REACH = 14; // pixels from a particle within which the pointer takes it

const SCALES = {
  all: ["one scale", "A length of arrow means the same at all times"],
  each: ["each time", "Each time has a scale of its own"],
  direction: ["direction", "All arrows are equally long; the colour tells the length"]
};

// ------------------------------------------------------------------------------------- integration

// The flow at a place and a time: linear between two times and two nodes; beyond the grid, that of
// the nearest place on its rim.
function velocity({ values, shape: [steps, rows, columns] }, [x0, x1, y0, y1], x, y, step) {
  const cell = (place, count) => {
    const inside = Math.max(0, Math.min(place, count - 1));
    const low = Math.min(Math.floor(inside), count - 2);
    return [low, inside - low];
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
// moment k / MOMENTS, as Float64Array [2 (MOMENTS (T - 1) + 1)].
function carry(flow, extent, [x, y, step]) {
  const last = MOMENTS * (flow.shape[0] - 1);
  const path = new Float64Array(2 * (last + 1));
  for (const way of [1, -1]) {
    let [px, py, now] = [x, y, step];
    let k = way > 0 ? Math.ceil(step * MOMENTS) : Math.floor(step * MOMENTS);
    for (; k >= 0 && k <= last; k += way) {
      // One step of the classical Runge-Kutta method, to the next moment.
      const h = k / MOMENTS - now;
      const [u1, v1] = velocity(flow, extent, px, py, now);
      const [u2, v2] = velocity(flow, extent, px + (h / 2) * u1, py + (h / 2) * v1, now + h / 2);
      const [u3, v3] = velocity(flow, extent, px + (h / 2) * u2, py + (h / 2) * v2, now + h / 2);
      const [u4, v4] = velocity(flow, extent, px + h * u3, py + h * v3, now + h);
      px += (h / 6) * (u1 + 2 * u2 + 2 * u3 + u4);
      py += (h / 6) * (v1 + 2 * v2 + 2 * v3 + v4);
      now = k / MOMENTS;
      path[2 * k] = px;
      path[2 * k + 1] = py;
    }
  }
  return path;
}

// Where a particle is at a step: on its path, and exactly where it was dropped at that time.
function placeAt(path, [x, y, dropped], step) {
  if (step === dropped) return [x, y];
  const at = Math.min(step * MOMENTS, path.length / 2 - 1);
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

// The vectors of a grid as arrows; those of length `top` have the last of the colours. All have a
// rim, so that the ends of the colour map stand out from the page, too: filled, since it is drawn
// much faster than a line around each.
function drawArrows(ctx, vectors, [, rows, columns], { top, allEqual }, box, colours, theme) {
  const [across, up] = [box.width / (columns - 1), box.height / (rows - 1)];
  const cell = Math.min(across, up);
  const byColour = colours.map(() => []);
  ctx.beginPath();
  for (let i = 0; i < rows * columns; i++) {
    const [dx, dy] = [vectors[2 * i], -vectors[2 * i + 1]];
    const length = Math.hypot(dx, dy);
    const scale = cell * (allEqual ? ALL_EQUAL / (length || 1) : LONGEST / Math.max(length, top));
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

// ------------------------------------------------------------------------------------------ render

function render({ model, el }) {
  const { field, points, flow } = unpack(model);
  const extent = model.get("extent");
  const [, rows, columns] = field.shape;
  const vectors = new Float32Array(2 * rows * columns);
  const cloud = points && new Float32Array(2 * points.shape[1]);
  const table = colourTable("viridis", COLOURS);
  const colours = Array.from({ length: COLOURS }, (_, i) => `rgb(${table.slice(3 * i, 3 * i + 3).join()})`);
  const clock = clockOf(model);

  // -------------------------------------------------------------------------------- the particles

  // Where each goes, until it is dropped anew.
  let known = new Map();
  const paths = () => {
    const dropped = model.get("dropped");
    const found = dropped.map((one) => {
      const name = one.join();
      return [name, known.get(name) || carry(flow, extent, one)];
    });
    known = new Map(found);
    return found.map(([, path]) => path);
  };

  const drawPaths = (ctx, map, step, theme) => {
    const dropped = model.get("dropped");
    ctx.lineJoin = ctx.lineCap = "round";
    paths().forEach((path, i) => {
      const [x, y, start] = dropped[i];
      const line = (from, to, ends) => {
        ctx.beginPath();
        if (ends) ctx.moveTo(map.x(ends[0][0]), map.y(ends[0][1]));
        for (let k = Math.ceil(from * MOMENTS); k <= to * MOMENTS; k++) {
          ctx.lineTo(map.x(path[2 * k]), map.y(path[2 * k + 1]));
        }
        if (ends) ctx.lineTo(map.x(ends[1][0]), map.y(ends[1][1]));
      };
      // All of the path is thin, the part that was travelled is bold.
      const [from, to] = [Math.min(start, step), Math.max(start, step)];
      const bold = () => line(from, to, [placeAt(path, dropped[i], from), placeAt(path, dropped[i], to)]);
      const strokes = [
        [() => line(0, clock.last()), 3.5, theme.plot], [() => line(0, clock.last()), 1.3, PALETTE.model],
        [bold, 5, theme.plot], [bold, 2.8, PALETTE.model]
      ];
      for (const [trace, width, colour] of strokes) {
        trace();
        ctx.lineWidth = width;
        ctx.strokeStyle = colour;
        ctx.stroke();
      }
      ctx.beginPath();
      ctx.arc(map.x(x), map.y(y), 4, 0, 2 * Math.PI);
      ctx.fillStyle = theme.plot;
      ctx.fill();
      ctx.lineWidth = 1.5;
      ctx.stroke();
    });
  };

  // ----------------------------------------------------------------------------------- the picture

  let box = { x: 36, y: 4, width: 0, height: 0 };
  const layout = (width) => {
    const inner = width - 36 - 82;
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    box = { x: 36, y: 4, width: inner, height: Math.round(inner * Math.min(1.4, Math.max(0.3, shape))) };
    return box.y + box.height + 24;
  };

  const topAt = (step) => {
    if (model.get("scale") !== "each") return model.get("top");
    const tops = model.get("tops");
    const k = Math.min(Math.floor(step), tops.length - 1);
    return tops[k] + ((tops[k + 1] ?? tops[k]) - tops[k]) * (step - k);
  };

  const draw = (ctx, size, theme) => {
    const step = clock.shown();
    const map = plane(extent, box);
    const top = topAt(step);
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    if (points) {
      atStep(points, step, cloud);
      ctx.beginPath();
      for (let i = 0; i < cloud.length; i += 2) ctx.rect(map.x(cloud[i]) - 1.2, map.y(cloud[i + 1]) - 1.2, 2.4, 2.4);
      ctx.fillStyle = PALETTE.data;
      ctx.globalAlpha = theme.dark ? 0.6 : 0.4;
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    const scale = { top, allEqual: model.get("scale") === "direction" };
    drawArrows(ctx, atStep(field, step, vectors), field.shape, scale, box, colours, theme);
    if (flow) drawPaths(ctx, map, step, theme);
    ctx.restore();
    drawAxes(ctx, extent, box, theme);
    const bar = { x: box.x + box.width + 14, y: box.y, width: 12, height: box.height };
    drawColourBar(ctx, "viridis", 0, top, `length: ${model.get("field_label")}`, bar, theme);
    if (flow) placeHandles(map, step);
  };

  const view = outline({ model, el, style: STYLE, layout, draw });
  const { change, send } = throttledChanges(model);
  view.onStop(send);
  const tools = element("div", { class: "cw-controls vectors-tools" });

  // ------------------------------------------------------------------------------ pointer and keys

  // A handle for each particle: what the focus is on, and what is moved by the arrow keys.
  const layer = element("div");
  const handles = [];
  const written = (x) => x.toFixed(2).replace("-", "\u2212");
  const placeHandles = (map, step) => {
    const dropped = model.get("dropped");
    paths().forEach((path, i) => {
      const [x, y] = placeAt(path, dropped[i], step);
      const inside = x >= extent[0] && x <= extent[1] && y >= extent[2] && y <= extent[3];
      handles[i].style.left = `${map.x(x)}px`;
      handles[i].style.top = `${map.y(y)}px`;
      handles[i].classList.toggle("outside", !inside);
      handles[i].setAttribute("aria-valuenow", String(x));
      handles[i].setAttribute("aria-valuetext", `(${written(x)}, ${written(y)})`);
    });
  };
  const enoughHandles = () => {
    const wanted = model.get("dropped").length;
    while (handles.length > wanted) handles.pop().remove();
    while (handles.length < wanted) {
      const node = element("div", {
        class: "vectors-handle", role: "slider", tabindex: "0", "aria-label": `Particle ${handles.length + 1}`,
        "aria-valuemin": String(extent[0]), "aria-valuemax": String(extent[1])
      });
      handles.push(node);
      layer.append(node);
    }
  };

  const here = (i) => placeAt(paths()[i], model.get("dropped")[i], clock.shown());
  // Particle i is dropped at (x, y) now; where there is no such particle, it is a new one.
  const drop = (i, x, y) => {
    const dropped = [...model.get("dropped")];
    dropped[Math.min(i, dropped.length)] = [clamp(x, extent[0], extent[1]), clamp(y, extent[2], extent[3]), clock.shown()];
    change({ dropped });
  };
  // The index of a particle to come. Of too many the oldest goes.
  const another = () => {
    const dropped = model.get("dropped");
    if (dropped.length === MOST_DROPPED) change({ dropped: dropped.slice(1) });
    return model.get("dropped").length;
  };

  if (flow) {
    view.stage.append(layer);
    view.stage.classList.add("vectors-flow");
    const { canvas } = view;
    drag(canvas, {
      focus: null, end: send,
      start: ([x, y]) => {
        if (x < box.x || x > box.x + box.width || y < box.y || y > box.y + box.height) return null;
        const map = plane(extent, box);
        const near = handles
          .map((_, i) => ({ i, by: [map.x(here(i)[0]) - x, map.y(here(i)[1]) - y] }))
          .sort((a, b) => Math.hypot(...a.by) - Math.hypot(...b.by))[0];
        // A particle within reach is taken; else a new one is dropped.
        const { i, by } = near && Math.hypot(...near.by) < REACH ? near : { i: another(), by: [0, 0] };
        const move = ([px, py]) => drop(i, ...plane(extent, box).toPlane(px + by[0], py + by[1]));
        move([x, y]);
        handles[i].focus({ preventScroll: true });
        return move;
      }
    });

    // With the focus on a particle the arrow keys move it. They are heard before the player's.
    const move = (right, up) => (event) => {
      event.stopImmediatePropagation();
      const i = handles.indexOf(event.target);
      const by = (event.shiftKey ? 0.1 : 0.02) * (extent[1] - extent[0]);
      const [x, y] = here(i);
      drop(i, x + by * right, y + by * up);
    };
    const remove = (event) => {
      const i = handles.indexOf(event.target);
      change({ dropped: model.get("dropped").filter((_, k) => k !== i) });
      (handles[Math.min(i, handles.length - 1)] || view.root).focus();
    };
    onKeys(view, {
      ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, 1), ArrowDown: move(0, -1),
      Delete: remove, Backspace: remove
    }, layer);

    const add = element("button", { type: "button" }, "Drop a particle");
    add.addEventListener("click", () => {
      // Around the middle, and always beside the others: the seeds of a sunflower.
      const i = another();
      const [radius, angle] = [0.07 * Math.sqrt(i), 2.4 * i];
      const [width, height] = [extent[1] - extent[0], extent[3] - extent[2]];
      drop(i, extent[0] + width * (0.5 + radius * Math.cos(angle)), extent[2] + height * (0.5 + radius * Math.sin(angle)));
      send();
    });
    const clear = element("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => {
      change({ dropped: [] });
      send();
    });
    tools.append(add, clear);
    const count = () => {
      clear.disabled = !model.get("dropped").length;
      enoughHandles();
      view.redraw();
    };
    view.follow(["dropped"], count);
    count();
  }

  // ------------------------------------------------------------------------------------- the tools

  playerBar(view, model);
  const scales = Object.entries(SCALES).map(([scale, [name, title]]) => {
    const node = element("button", { type: "button", title }, name);
    node.addEventListener("click", () => {
      change({ scale });
      send();
    });
    return node;
  });
  tools.append(element("div", { class: "vectors-scales", role: "group", "aria-label": "Scale of the arrows" }, ...scales));
  const rescale = () => {
    Object.keys(SCALES).forEach((scale, i) => scales[i].setAttribute("aria-pressed", String(scale === model.get("scale"))));
    view.redraw();
  };
  view.follow(["scale"], rescale);
  rescale();
  view.controls.after(tools);
  if (flow) {
    view.root.append(element("p", { class: "vectors-hint" },
      "Click in the plane to drop a particle, or drag one. As time goes on or back, the flow carries it: the " +
      "thin line is its way. Keys: arrows move the particle in focus (Shift: further), Delete takes it out."));
  }
  return view.stop;
}

export default { render };

// PointCloud: points in space that move through the steps of a trajectory, turned by hand.

import { drawColourBar, drawPlane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, anchorsOf, colourTable, rgb } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { atStep, tidy, unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { hint } from "./parts/notes.js";
import { outline } from "./parts/outline.js";
import { clamp, inside, segment, words } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./point_cloud.css" with { type: "css" };

const COLOURS = 32;
const LAYERS = 8; // of depth, each with dots of its own size and strength
const SLICES = 256; // of depth, to draw the far ones first
const REACH = Math.sqrt(3); // from the middle of the box to a corner, where it is a cube

// The corners of a box as signs along x, y and z, and its edges as pairs of corners.
const CORNERS = Array.from({ length: 8 }, (_, k) => [k & 1, (k >> 1) & 1, k >> 2].map((bit) => 2 * bit - 1));
const EDGES = [0, 1, 2].flatMap((axis) =>
  CORNERS.flatMap((_, k) => (k & (1 << axis) ? [] : [{ axis, from: k, to: k | (1 << axis) }])));

// --------------------------------------------------------------------------------------- the state

// What the eye sees of [x, y, z] in a box whose longest side is 2: [across, up, depth]. The cloud is
// turned about the third axis, then the eye rises. point_cloud.py has the same formulas.
function eye(yaw, pitch, distance) {
  const [turn, tilt] = [yaw, pitch].map((degrees) => (degrees * Math.PI) / 180);
  const [ct, st, cp, sp] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  return (x, y, z, out) => {
    const behind = st * x + ct * y;
    const depth = cp * behind - sp * z;
    const scale = distance / (distance + depth);
    out[0] = scale * (ct * x - st * y);
    out[1] = scale * (cp * z + sp * behind);
    out[2] = depth;
    return out;
  };
}

// The points at a step as `look` sees them, the far ones first: `order` holds their numbers, `seen`
// [across, up, depth] of each, `shade` what colours them.
function pointsOf({ points, color }, extent, unit) {
  const count = points.shape[1];
  const [mx, my, mz] = [0, 2, 4].map((k) => (extent[k] + extent[k + 1]) / 2);
  const [now, seen] = [new Float32Array(3 * count), new Float32Array(3 * count)];
  const shade = color && new Float32Array(count);
  const slice = new Uint8Array(count);
  const order = new Uint32Array(count);
  const see = (step, look) => {
    atStep(points, step, now);
    if (color) atStep(color, step, shade);
    const place = [0, 0, 0];
    const starts = new Uint32Array(SLICES + 1); // of a counting sort by slices of depth
    for (let i = 0; i < count; i++) {
      const k = 3 * i;
      look((now[k] - mx) / unit, (now[k + 1] - my) / unit, (now[k + 2] - mz) / unit, place);
      seen.set(place, k);
      const near = (REACH - place[2]) / (2 * REACH); // 0 is farthest
      slice[i] = clamp(Math.floor(near * SLICES), 0, SLICES - 1);
      starts[slice[i] + 1] += 1;
    }
    for (let k = 0; k < SLICES; k++) starts[k + 1] += starts[k];
    for (let i = 0; i < count; i++) order[starts[slice[i]]++] = i;
  };
  return { count, seen, shade, order, see };
}

function stateOf(model) {
  const arrays = unpack(model);
  const extent = model.get("extent");
  const halves = [0, 2, 4].map((k) => (extent[k + 1] - extent[k]) / 2);
  const unit = Math.max(...halves);
  const { change, send } = throttledChanges(model);
  const wrapped = (yaw) => ((((yaw + 180) % 360) + 360) % 360) - 180;
  const turnTo = (yaw, pitch) => change({ yaw: wrapped(yaw), pitch: clamp(pitch, -90, 90) });
  const zoomBy = (factor) => change({ zoom: clamp(model.get("zoom") * factor, ...model.get("zooms")) });
  const home = { yaw: model.get("yaw"), pitch: model.get("pitch"), zoom: model.get("zoom") };
  return {
    model, extent, coloured: Boolean(arrays.color), points: pointsOf(arrays, extent, unit),
    sides: halves.map((half) => half / unit), clock: clockOf(model),
    look: () => eye(model.get("yaw"), model.get("pitch"), model.get("distance")),
    turnTo, zoomBy, back: () => change({ ...home }), send
  };
}

// ------------------------------------------------------------------------------------- the picture

// Dots of all colours, each in every layer of depth: what is far is small and faint.
function depthDots({ model, coloured, points }, ratio, theme) {
  const table = colourTable(model.get("color_map"), COLOURS, theme);
  const colours = coloured ? Array.from({ length: COLOURS }, (_, i) => table.subarray(3 * i, 3 * i + 3))
    : [rgb(PALETTE[model.get("role")])];
  const ground = rgb(theme.plot);
  const radius = clamp(Math.sqrt(11000 / points.count), 1.9, 5);
  const distance = model.get("distance");
  const depths = Array.from({ length: LAYERS }, (_, k) => (2 * (k + 0.5)) / LAYERS - 1); // near first
  const radii = depths.map((depth) => (radius * distance) / (distance + 2.5 * depth));
  const faded = (colour, share) =>
    `rgb(${ground.map((value, c) => Math.round(colour[c] + (value - colour[c]) * share)).join()})`;
  const all = colours.flatMap((colour) => depths.map((depth) => faded(colour, 0.3 * (depth + 1))));
  return dotStamp(all, radii, ratio, theme.rim);
}

// The name of an axis stands at the lowest edge along it, that of z at the leftmost, and the ends
// of its range beside the edge's ends: inside the plot, where the place they belong to is.
function nameAxes(ctx, corners, extent, box, theme) {
  const [right, bottom] = [box.x + box.width, box.y + box.height];
  const [middleX, middleY] = [(box.x + right) / 2, (box.y + bottom) / 2];
  for (const axis of [0, 1, 2]) {
    const along = EDGES.filter((edge) => edge.axis === axis);
    const side = axis === 2 ? ({ from, to }) => corners[from].x + corners[to].x
      : ({ from, to }) => -corners[from].y - corners[to].y;
    const { from, to } = along.reduce((best, edge) => (side(edge) < side(best) ? edge : best));
    const [a, b] = [corners[from], corners[to]];
    const length = Math.hypot(b.x - a.x, b.y - a.y);
    if (length < 30) continue; // it points at the eye
    // Away from the edge, on the side where the box is not.
    let [nx, ny] = [(a.y - b.y) / length, (b.x - a.x) / length];
    if ((a.x + b.x - 2 * middleX) * nx + (a.y + b.y - 2 * middleY) * ny < 0) [nx, ny] = [-nx, -ny];
    const write = (text, share, font) => {
      ctx.font = font;
      const half = ctx.measureText(text).width / 2;
      const [x, y] = [a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share];
      const inSight = x > box.x && x < right && y > box.y && y < bottom;
      const keep = (value, low, high) => (inSight ? clamp(value, low, high) : value);
      words(ctx, text, keep(x + nx * (9 + half), box.x + half + 2, right - half - 2),
        keep(y + ny * 12, box.y + 8, bottom - 8), theme.muted, font, "center");
    };
    write("xyz"[axis], 0.5, `italic 14px ${theme.font}`);
    write(tidy(Number(extent[2 * axis].toPrecision(2))), 0.1, `11px ${theme.font}`);
    write(tidy(Number(extent[2 * axis + 1].toPrecision(2))), 0.9, `11px ${theme.font}`);
  }
}

// The box in two parts: `behind()` and `inFront()` of what is in it. Returns its corners, too.
function boxEdges(ctx, state, look, toCanvas, theme) {
  const corners = CORNERS.map((signs) => {
    const [across, up, depth] = look(...signs.map((sign, c) => sign * state.sides[c]), [0, 0, 0]);
    return { ...toCanvas(across, up), depth };
  });
  const nearest = corners.reduce((best, corner, k) => (corner.depth < corners[best].depth ? k : best), 0);
  const isNear = ({ from, to }) => from === nearest || to === nearest;
  const drawEdges = (edges, alpha) => {
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1;
    ctx.globalAlpha = alpha;
    ctx.beginPath();
    for (const { from, to } of edges) segment(ctx, corners[from].x, corners[from].y, corners[to].x, corners[to].y);
    ctx.stroke();
    ctx.globalAlpha = 1;
  };
  return {
    corners, behind: () => drawEdges(EDGES.filter((edge) => !isNear(edge)), 0.45),
    inFront: () => drawEdges(EDGES.filter(isNear), 0.3)
  };
}

function boxFor(coloured, width) {
  const side = Math.min(width - (coloured ? 76 : 0), 500);
  return { x: coloured ? 0 : (width - side) / 2, y: 0, width: side, height: Math.round(0.86 * side) };
}

// Returns `draw(ctx, size, theme)`.
function pictureOf(state) {
  const { model, coloured, points } = state;
  const [low, high] = model.get("color_range");
  const scale = COLOURS / (high - low || 1);
  let dots = null;
  let dotsFor = "";
  return (ctx, { width, ratio }, theme) => {
    const [box, look] = [boxFor(coloured, width), state.look()];
    const size = (model.get("zoom") * box.height) / 2 / model.get("fits");
    const [cx, cy] = [box.width / 2, box.height / 2];
    if (dotsFor !== `${ratio} ${theme.dark}`) dots = depthDots(state, ratio, theme);
    dotsFor = `${ratio} ${theme.dark}`;
    points.see(state.clock.shown(), look);
    dots.clear(box.width, box.height);
    for (const i of points.order) {
      const shade = coloured ? clamp(Math.floor((points.shade[i] - low) * scale), 0, COLOURS - 1) : 0;
      // Most points lie within a ball about the middle: the layers of size divide that.
      const layer = clamp(Math.floor(((points.seen[3 * i + 2] + 1) / 2) * LAYERS), 0, LAYERS - 1);
      dots.stamp(cx + size * points.seen[3 * i], cy - size * points.seen[3 * i + 1], shade * LAYERS + layer);
    }
    drawPlane(ctx, box, theme);
    inside(ctx, box, () => {
      const toCanvas = (across, up) => ({ x: box.x + cx + size * across, y: box.y + cy - size * up });
      const { corners, behind, inFront } = boxEdges(ctx, state, look, toCanvas, theme);
      behind();
      dots.draw(ctx, box);
      inFront();
      nameAxes(ctx, corners, state.extent, box, theme);
    });
    if (coloured) {
      const [map, label] = [model.get("color_map"), model.get("color_label")];
      const bar = { x: box.x + box.width + 14, y: box.y + 4, width: 12, height: box.height - 8 };
      drawColourBar(ctx, map, low, high, label, bar, theme, anchorsOf(map, theme));
    }
  };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { turnTo, zoomBy, back, send } = state;
  const layout = (width) => boxFor(state.coloured, width).height;
  const view = outline({ model, el, style: STYLE, name: "cloud-widget", layout, draw: pictureOf(state) });
  const { canvas } = view;
  drag(canvas, {
    focus: view.root,
    start: ([x, y]) => {
      const [yaw, pitch] = [model.get("yaw"), model.get("pitch")];
      canvas.classList.add("held");
      // What is in front follows the pointer.
      return ([toX, toY]) => turnTo(yaw + 0.5 * (toX - x), pitch + 0.5 * (toY - y));
    },
    end: () => {
      send();
      canvas.classList.remove("held");
    }
  });
  // A page that is scrolled past must not be caught: the wheel zooms where the focus is.
  canvas.addEventListener("wheel", (event) => {
    if (!document.hasFocus() || !view.root.contains(document.activeElement)) return;
    event.preventDefault();
    zoomBy(Math.exp(-0.0015 * clamp(event.deltaY, -200, 200)));
  }, { passive: false });

  const turn = (yaw, pitch) => (event) => {
    const by = event.shiftKey ? 1 : 5;
    turnTo(model.get("yaw") + by * yaw, model.get("pitch") + by * pitch);
  };
  const [nearer, farther] = [() => zoomBy(1.1), () => zoomBy(1 / 1.1)];
  onKeys(view, {
    a: turn(-1, 0), d: turn(1, 0), w: turn(0, 1), s: turn(0, -1),
    "+": nearer, "=": nearer, "-": farther, _: farther, 0: back
  });

  playerBar(view, model);
  if (model.get("n_steps") === 1) view.controls.style.display = "none"; // nothing to play
  view.root.append(row(
    hint("Drag to turn; once clicked, the wheel zooms. Keys: A\u00a0D turn, W\u00a0S tilt, +\u00a0\u2212 zoom, 0 resets; " +
      "\u2190\u00a0\u2192 step, space plays."),
    button("Reset view", back)));
  view.follow(["yaw", "pitch", "zoom"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

// PointCloud: points in space that move through the steps of a trajectory, turned by hand.

import { drawColourBar, drawPlane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, colourTable } from "./parts/colours.js";
import { atStep, tidy, unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { clamp } from "./parts/panel.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./point_cloud.css" with { type: "css" };

// The eye's distance from the middle of a box whose longest side is 2, and half the height of what it
// sees. point_cloud.py has the same numbers.
const [DISTANCE, FITS] = [6, 1.75];
const ZOOMS = [0.5, 8];
const COLOURS = 32;
const LAYERS = 8; // of depth, each with dots of its own size and strength
const SLICES = 256; // of depth, to draw the far ones first

// The corners of a box as signs along x, y and z, and its edges as pairs of corners.
const CORNERS = Array.from({ length: 8 }, (_, k) => [k & 1, (k >> 1) & 1, k >> 2].map((bit) => 2 * bit - 1));
const EDGES = [0, 1, 2].flatMap((axis) =>
  CORNERS.flatMap((_, k) => (k & (1 << axis) ? [] : [{ axis, from: k, to: k | (1 << axis) }])));


// What the eye sees of [x, y, z]: [across, up, depth]. The cloud is turned about the third axis, then
// the eye rises. point_cloud.py has the same formulas.
function eye(yaw, pitch) {
  const [turn, tilt] = [yaw, pitch].map((degrees) => (degrees * Math.PI) / 180);
  const [ct, st, cp, sp] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  return (x, y, z, out) => {
    const behind = st * x + ct * y;
    const depth = cp * behind - sp * z;
    const scale = DISTANCE / (DISTANCE + depth);
    out[0] = scale * (ct * x - st * y);
    out[1] = scale * (cp * z + sp * behind);
    out[2] = depth;
    return out;
  };
}

// A colour on its way to the background.
function faded(colour, background, share) {
  const parts = [colour, background].map((hex) =>
    hex.startsWith("#") ? [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)) : hex.match(/\d+/g).map(Number));
  return `rgb(${parts[0].map((value, c) => Math.round(value + (parts[1][c] - value) * share)).join()})`;
}

function render({ model, el }) {
  const { points, color } = unpack(model);
  const [, count] = points.shape;
  const extent = model.get("extent");
  const [colourLow, colourHigh] = model.get("color_range");
  const middle = [0, 2, 4].map((k) => (extent[k] + extent[k + 1]) / 2);
  const halves = [0, 2, 4].map((k) => (extent[k + 1] - extent[k]) / 2);
  const unit = Math.max(...halves);
  const { change, send } = throttledChanges(model);

  const now = new Float32Array(3 * count);
  const shade = color && new Float32Array(count);
  const seen = new Float32Array(3 * count); // across, up, depth
  const slice = new Uint8Array(count);
  const order = new Uint32Array(count);

  // ------------------------------------------------------------------------------------- drawing

  // Dots of all colours, each in every layer of depth: what is far is small and faint.
  const radius = clamp(Math.sqrt(11000 / count), 1.9, 5);
  let dots = null;
  let dotsFor = "";
  const makeDots = (ratio, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key === dotsFor) return;
    dotsFor = key;
    const table = color ? colourTable(model.get("color_map"), COLOURS) : null;
    const colours = color
      ? Array.from({ length: COLOURS }, (_, i) => `rgb(${table.slice(3 * i, 3 * i + 3).join()})`)
      : [PALETTE[model.get("role")]];
    const depths = Array.from({ length: LAYERS }, (_, k) => (2 * (k + 0.5)) / LAYERS - 1); // near first
    const radii = depths.map((depth) => (radius * DISTANCE) / (DISTANCE + 2.5 * depth));
    const all = colours.flatMap((one) => depths.map((depth) => faded(one, theme.plot, 0.3 * (depth + 1))));
    dots = dotStamp(all, radii, ratio, theme.rim);
  };

  // The far points first: a counting sort by slices of depth. Returns nothing; fills `order`.
  const REACH = Math.sqrt(3);
  const sort = () => {
    const starts = new Uint32Array(SLICES + 1);
    for (let i = 0; i < count; i++) {
      const near = (REACH - seen[3 * i + 2]) / (2 * REACH); // 0 is farthest
      slice[i] = clamp(Math.floor(near * SLICES), 0, SLICES - 1);
      starts[slice[i] + 1] += 1;
    }
    for (let k = 0; k < SLICES; k++) starts[k + 1] += starts[k];
    for (let i = 0; i < count; i++) order[starts[slice[i]]++] = i;
  };

  const boxFor = (width) => {
    const side = Math.min(width - (color ? 76 : 0), 500);
    return { x: color ? 0 : (width - side) / 2, y: 0, width: side, height: Math.round(0.86 * side) };
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const step = clock.shown();
    const box = boxFor(width);
    const look = eye(model.get("yaw"), model.get("pitch"));
    const size = (model.get("zoom") * box.height) / 2 / FITS;
    const [cx, cy] = [box.width / 2, box.height / 2];
    makeDots(ratio, theme);
    atStep(points, step, now);
    if (color) atStep(color, step, shade);
    const place = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      look(
        (now[3 * i] - middle[0]) / unit, (now[3 * i + 1] - middle[1]) / unit,
        (now[3 * i + 2] - middle[2]) / unit, place
      );
      seen.set(place, 3 * i);
    }
    sort();
    dots.clear(box.width, box.height);
    const scale = color ? COLOURS / (colourHigh - colourLow || 1) : 0;
    for (let k = 0; k < count; k++) {
      const i = order[k];
      const shadeOf = color ? clamp(Math.floor((shade[i] - colourLow) * scale), 0, COLOURS - 1) : 0;
      // Most points lie within a ball about the middle: the layers of size divide that.
      const layer = clamp(Math.floor(((seen[3 * i + 2] + 1) / 2) * LAYERS), 0, LAYERS - 1);
      dots.stamp(cx + size * seen[3 * i], cy - size * seen[3 * i + 1], shadeOf * LAYERS + layer);
    }

    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    const corners = CORNERS.map((signs) => {
      const [across, up, depth] = look(...signs.map((sign, c) => (sign * halves[c]) / unit), [0, 0, 0]);
      return { x: box.x + cx + size * across, y: box.y + cy - size * up, depth };
    });
    const nearest = corners.reduce((best, corner, k) => (corner.depth < corners[best].depth ? k : best), 0);
    const drawEdges = (edges, alpha) => {
      ctx.strokeStyle = theme.muted;
      ctx.lineWidth = 1;
      ctx.globalAlpha = alpha;
      ctx.beginPath();
      for (const { from, to } of edges) {
        ctx.moveTo(corners[from].x, corners[from].y);
        ctx.lineTo(corners[to].x, corners[to].y);
      }
      ctx.stroke();
      ctx.globalAlpha = 1;
    };
    const inFront = ({ from, to }) => from === nearest || to === nearest;
    drawEdges(EDGES.filter((edge) => !inFront(edge)), 0.45);
    dots.draw(ctx, box);
    drawEdges(EDGES.filter(inFront), 0.3);
    nameAxes(ctx, corners, box, theme);
    ctx.restore();
    if (color) {
      const bar = { x: box.x + box.width + 14, y: box.y + 4, width: 12, height: box.height - 8 };
      drawColourBar(ctx, model.get("color_map"), colourLow, colourHigh, model.get("color_label"), bar, theme);
    }
  };

  // The name of an axis stands at the lowest edge along it, that of z at the leftmost, and the ends
  // of its range beside the edge's ends.
  const nameAxes = (ctx, corners, box, theme) => {
    const [cx, cy] = [box.x + box.width / 2, box.y + box.height / 2];
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillStyle = theme.muted;
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
      if ((a.x + b.x - 2 * cx) * nx + (a.y + b.y - 2 * cy) * ny < 0) [nx, ny] = [-nx, -ny];
      const write = (text, share, font) => {
        ctx.font = font;
        const half = ctx.measureText(text).width / 2;
        ctx.fillText(text, a.x + (b.x - a.x) * share + nx * (9 + half), a.y + (b.y - a.y) * share + ny * 12);
      };
      write("xyz"[axis], 0.5, `italic 14px ${theme.font}`);
      write(tidy(Number(extent[2 * axis].toPrecision(2))), 0.1, `11px ${theme.font}`);
      write(tidy(Number(extent[2 * axis + 1].toPrecision(2))), 0.9, `11px ${theme.font}`);
    }
  };

  const layout = (width) => boxFor(width).height;
  const view = outline({ model, el, style: STYLE, layout, draw });
  view.root.classList.add("cloud-widget");

  // ----------------------------------------------------------------------------- turning and zooming

  const wrapped = (yaw) => ((((yaw + 180) % 360) + 360) % 360) - 180;
  const turnTo = (yaw, pitch) => change({ yaw: wrapped(yaw), pitch: clamp(pitch, -90, 90) });
  const zoomBy = (factor) => change({ zoom: clamp(model.get("zoom") * factor, ...ZOOMS) });
  const home = { yaw: model.get("yaw"), pitch: model.get("pitch"), zoom: model.get("zoom") };
  const back = () => change({ ...home });

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
  const keys = { a: turn(-1, 0), d: turn(1, 0), w: turn(0, 1), s: turn(0, -1) };
  for (const [key, action] of Object.entries(keys)) keys[key.toUpperCase()] = action;
  const [nearer, farther] = [() => zoomBy(1.1), () => zoomBy(1 / 1.1)];
  onKeys(view, { ...keys, "+": nearer, "=": nearer, "-": farther, _: farther, 0: back });

  const clock = playerBar(view, model);
  if (model.get("n_steps") === 1) view.controls.style.display = "none"; // nothing to play
  const reset = element("button", { type: "button" }, "Reset view");
  reset.addEventListener("click", back);
  view.root.append(element("div", { class: "cloud-tools" },
    element("p", { class: "cloud-hint" },
      "Drag to turn; once clicked, the wheel zooms. Keys: A\u00a0D turn, W\u00a0S tilt, +\u00a0\u2212 zoom, 0 resets; " +
      "\u2190\u00a0\u2192 step, space plays."),
    reset));

  const redraw = () => view.redraw();
  view.follow(["yaw", "pitch", "zoom"], redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

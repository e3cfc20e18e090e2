// LatentPlane: drag a point through the latent plane and see what it decodes to. With images at its
// corners the plane is a square of their mixtures, and says how large the share of each is.

import { drawAxes, drawDigits, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { kernelLine } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { paintGrey } from "./parts/pixels.js";
import { listenersOf, perModel } from "./parts/shared.js";

const N_WALK = 9; // images along a walk; latent_plane.py has the same number
const NO_KERNEL = "Run this cell to decode every point.";

const STYLE = `
.latent-body { display: flex; flex-wrap: wrap; gap: 10px 22px; align-items: flex-start; }
.latent-body .cw-stage { flex: 1 1 300px; min-width: 0; max-width: 440px; }
.latent-body canvas { border-radius: 2px; }
.latent-body .cw-stage canvas { cursor: crosshair; }
.latent-handle {
  position: absolute; width: 24px; height: 24px; margin: -12px 0 0 -12px; border-radius: 50%; pointer-events: none;
}
.latent-handle::after {
  content: ""; position: absolute; inset: 3px; border-radius: 50%; background: ${PALETTE.latent};
  border: 2px solid var(--cw-plot); box-shadow: 0 0 0 1px ${PALETTE.latent};
}
.latent-end::after { inset: 4px; border-radius: 3px; transform: rotate(45deg); }
.latent-handle:focus { outline: none; }
.latent-handle:focus-visible { outline: 2px solid var(--cw-accent); outline-offset: 3px; }
.latent-handle[hidden] { display: none; }
.latent-side { flex: 1 1 200px; max-width: 300px; }
.latent-side.narrow { flex-basis: 100%; max-width: none; display: flex; gap: 14px; }
.latent-image {
  display: block; width: 100%; flex: none; image-rendering: pixelated; box-shadow: 0 0 0 1px var(--cw-line);
}
.latent-place { margin: 6px 0 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.latent-mark { margin: 2px 0 0; min-height: 2.8em; color: var(--cw-muted); overflow-wrap: anywhere; }
.latent-mark::before {
  content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 6px; border-radius: 50%;
  border: 1.5px solid ${PALETTE.latent};
}
.latent-mark.exact::before { background: ${PALETTE.latent}; }
.latent-mark.failed { color: var(--cw-ink); border-left: 3px solid ${PALETTE.error}; padding-left: 8px; }
.latent-mark.failed::before { display: none; }
.latent-walk { margin-top: 12px; }
.latent-walk[hidden] { display: none; }
.latent-strip { display: grid; grid-template-columns: repeat(${N_WALK}, 1fr); gap: 4px; }
.latent-strip canvas { width: 100%; image-rendering: pixelated; border: 1px solid var(--cw-line); }
.latent-ends { display: flex; justify-content: space-between; font-size: 12px; color: var(--cw-muted); }
.course-widget .latent-tools { flex-wrap: wrap; gap: 6px; }
.latent-tools button { border: 1px solid var(--cw-line); padding: 0 12px; }
.latent-square { flex: 1 1 300px; min-width: 0; max-width: 440px; margin-bottom: 6px; }
.latent-square .cw-stage { max-width: none; }
.latent-corners { display: flex; justify-content: space-between; gap: 8px; padding: 0 9px; }
.latent-corner {
  display: flex; align-items: center; gap: 8px; min-width: 0; margin: 0; padding: 0; border: 0;
  background: none; color: inherit; font: inherit; cursor: pointer;
}
.latent-corner:nth-child(2) { flex-direction: row-reverse; }
.latent-corner canvas { display: block; min-width: 0; image-rendering: pixelated; box-shadow: 0 0 0 1px var(--cw-line); }
.latent-corner span { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.latent-corner:hover span { color: var(--cw-accent); }
.latent-hint { margin: 8px 2px 0; color: var(--cw-muted); font-size: 12px; }
`;

// ------------------------------------------------------------------------------------ the images

// The image at a latent point, 0 ... 255, mixed from the four nearest of the stored grid into `out`.
function mixtureAt({ values, shape }, extent, [z1, z2], out) {
  const [side] = shape;
  const size = out.length;
  const place = (z) => {
    const at = Math.max(0, Math.min(((z + extent) / (2 * extent)) * (side - 1), side - 1));
    const cell = Math.min(Math.floor(at), side - 2);
    return [cell, at - cell];
  };
  const [j, right] = place(z1);
  const [i, up] = place(z2);
  const [a, b] = [(i * side + j) * size, ((i + 1) * side + j) * size];
  for (let k = 0; k < size; k++) {
    const low = values[a + k] + (values[a + size + k] - values[a + k]) * right;
    const high = values[b + k] + (values[b + size + k] - values[b + k]) * right;
    out[k] = low + (high - low) * up;
  }
  return out;
}

// The points on the straight line from z to the end, both included.
function walkOf(z, end) {
  return Array.from({ length: N_WALK }, (_, k) => {
    if (k === N_WALK - 1) return [...end];
    return z.map((value, i) => value + ((end[i] - value) * k) / (N_WALK - 1));
  });
}

// The corners, in the order of their images: a name, and where each stands from -1 to 1.
const CORNERS = [
  ["top left", [-1, 1]], ["top right", [1, 1]], ["bottom left", [-1, -1]], ["bottom right", [1, -1]]
];

// The share of each corner in a mixture; latent_plane.py has the same formula.
function sharesAt(extent, [z1, z2]) {
  return CORNERS.map(([, [x, y]]) => ((1 + (x * z1) / extent) * (1 + (y * z2) / extent)) / 4);
}

const samePoint = (a, b) => a[0] === b[0] && a[1] === b[1];

// The map: stored images side by side, as ink on the page, so that it can stay in the background.
// latent_plane.py has the same tiles.
function drawMap(ctx, { values, shape }, box, strength, theme) {
  const [side, , rows, columns] = shape;
  const width = side <= 25 ? 2 : 4;
  const sheet = element("canvas", { width: columns, height: rows });
  const brush = sheet.getContext("2d");
  const pixels = brush.createImageData(columns, rows);
  const ink = theme.ink.match(/\w\w/g).map((part) => parseInt(part, 16));
  const tile = (box.width * width) / (side - 1);
  ctx.imageSmoothingQuality = "high";
  for (let i = width / 2; i < side; i += width) {
    for (let j = width / 2; j < side; j += width) {
      const from = (i * side + j) * rows * columns;
      for (let k = 0; k < rows * columns; k++) {
        pixels.data.set([...ink, strength * values[from + k]], 4 * k);
      }
      brush.putImageData(pixels, 0, 0);
      const [left, top] = [(j - width / 2) / width, (side - 1 - i - width / 2) / width];
      ctx.drawImage(sheet, box.x + left * tile, box.y + top * tile, tile, tile);
    }
  }
}

// ------------------------------------------------------------------------------ asking the kernel

// What is shown and what is asked, once per model, shared by all its views.
const deskOf = perModel((model) => {
  const { tell, listen } = listenersOf();
  const desk = {};
  // All points whose images are on the screen; with a walk, z is the first of them.
  desk.latents = () =>
    model.get("walk") ? walkOf(model.get("z"), model.get("z_end")) : [model.get("z")];
  // The decoded image of a point, where the last answer holds it.
  let answer = null;
  desk.exactly = (z, size) => {
    const { latents, pixels } = model.get("answered");
    const found = pixels ? latents.findIndex((other) => samePoint(z, other)) : -1;
    if (found < 0) return null;
    if (answer?.pixels !== pixels) {
      answer = { pixels, bytes: Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0)) };
    }
    return answer.bytes.subarray(found * size, (found + 1) * size);
  };
  // Whether the last answer, good or bad, is one to the points that are shown.
  desk.answered = () => {
    const { latents } = model.get("answered");
    return desk.latents().every((z) => latents.some((other) => samePoint(z, other)));
  };
  desk.failed = () => desk.answered() && model.get("answered").error;
  desk.line = kernelLine(model, "decode", { onAnswer: () => {}, tell });
  desk.ask = () => {
    if (!model.standIn && !desk.answered()) {
      desk.line.ask(() => (desk.answered() ? null : { latents: desk.latents() }));
    } else {
      tell();
    }
  };
  desk.listen = listen;
  // Whoever moved a point.
  for (const name of ["z", "z_end", "walk"]) model.on(`change:${name}`, desk.ask);
  return desk;
});

// ----------------------------------------------------------------------------------------- render

// Room around the plane for the numbers and names of the axes; where there are corners, for half a
// handle.
const ROOM_FOR_AXES = { left: 40, right: 8, top: 8, bottom: 40 };
const ROOM_FOR_A_HANDLE = { left: 9, right: 9, top: 9, bottom: 9 };
const CORNER_SIDE = 56; // the width of a corner's image, at most

function render({ model, el }) {
  const { grid, points, labels, corners } = unpack(model);
  const [, , rows, columns] = grid.shape;
  const size = rows * columns;
  const extent = model.get("extent");
  const range = [-extent, extent, -extent, extent];
  const desk = deskOf(model);
  const mixture = new Float32Array(size);
  const room = corners ? ROOM_FOR_A_HANDLE : ROOM_FOR_AXES;
  let box = { x: room.left, y: room.top, width: 0, height: 0 };

  const inside = [];
  const count = points ? points.shape[0] : 0;
  for (let i = 0; i < count; i++) {
    const [x, y] = points.values.subarray(2 * i, 2 * i + 2);
    if (Math.max(Math.abs(x), Math.abs(y)) <= extent) inside.push({ x, y, label: labels?.values[i] });
  }

  // -------------------------------------------------------------------------------------- the plane

  // What lies under the point is drawn once, until something of it changes.
  const layer = document.createElement("canvas");
  let drawn = "";
  const drawLayer = (ratio, theme) => {
    const [map, cloud] = [model.get("show_map"), model.get("show_points") && count > 0];
    const wanted = [box.width, ratio, theme.dark, theme.font, map, cloud].join();
    if (drawn === wanted) return;
    drawn = wanted;
    layer.width = layer.height = Math.ceil(box.width * ratio);
    const ctx = layer.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    const all = { x: 0, y: 0, width: box.width, height: box.height };
    const to = plane(range, all);
    drawPlane(ctx, all, theme);
    if (map) drawMap(ctx, grid, all, cloud ? 0.3 : 0.85, theme);
    if (!cloud) return;
    const places = inside.map(({ x, y }) => [to.x(x), to.y(y)]);
    if (labels) {
      drawDigits(ctx, places, inside.map(({ label }) => label), theme);
      return;
    }
    ctx.fillStyle = PALETTE.latent;
    for (const [x, y] of places) ctx.fillRect(x - 1.5, y - 1.5, 3, 3);
  };

  const draw = (ctx, { ratio }, theme) => {
    drawLayer(ratio, theme);
    ctx.drawImage(layer, box.x, box.y, box.width, box.height);
    const to = plane(range, box);
    const [x, y] = [to.x(model.get("z")[0]), to.y(model.get("z")[1])];
    // Where z stands on the axes. Between corners the lines go on: they cut the square into four
    // rectangles, and the area of each is the share of the corner opposite to it.
    ctx.strokeStyle = PALETTE.latent;
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 4]);
    ctx.beginPath();
    ctx.moveTo(box.x, y);
    ctx.lineTo(x, y);
    ctx.lineTo(x, box.y + box.height);
    if (corners) {
      ctx.moveTo(box.x + box.width, y);
      ctx.lineTo(x, y);
      ctx.lineTo(x, box.y);
    }
    ctx.stroke();
    ctx.setLineDash([]);
    if (model.get("walk")) {
      const path = walkOf(model.get("z"), model.get("z_end")).map((z) => [to.x(z[0]), to.y(z[1])]);
      for (const [colour, width] of [[theme.plot, 5], [PALETTE.latent, 2]]) {
        ctx.strokeStyle = ctx.fillStyle = colour;
        ctx.lineWidth = width;
        ctx.beginPath();
        for (const [px, py] of path) ctx.lineTo(px, py);
        ctx.stroke();
        ctx.beginPath();
        for (const [px, py] of path) {
          ctx.moveTo(px, py);
          ctx.arc(px, py, 2 + width / 2, 0, 2 * Math.PI);
        }
        ctx.fill();
      }
    }
    if (corners) {
      ctx.strokeStyle = theme.line;
      ctx.lineWidth = 1;
      ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
    } else {
      drawAxes(ctx, range, box, theme);
      ctx.font = `600 12px ${theme.font}`;
      ctx.fillStyle = theme.muted;
      ctx.textAlign = "center";
      ctx.fillText("z\u2081", box.x + box.width / 2, box.y + box.height + 30);
      ctx.fillText("z\u2082", 9, box.y + box.height / 2);
    }
    for (const [name, node] of Object.entries(handles)) {
      const [z1, z2] = model.get(name);
      node.style.left = `${to.x(z1)}px`;
      node.style.top = `${to.y(z2)}px`;
    }
  };
  const layout = (width) => {
    const side = Math.floor(width - room.left - room.right);
    box = { x: room.left, y: room.top, width: side, height: side };
    return side + room.top + room.bottom;
  };

  const view = outline({ model, el, layout, draw, maxWidth: 780 });
  view.root.prepend(element("style", {}, STYLE));
  const side = element("div", { class: "latent-side" });
  const body = element("div", { class: "latent-body" });
  view.root.insertBefore(body, view.stage);
  body.append(view.stage, side);

  // ------------------------------------------------------------------------------ pointer and keys

  const handle = (kind, name) => {
    const node = element("div", {
      class: `latent-handle latent-${kind}`, role: "slider", tabindex: "0", "aria-label": name,
      "aria-valuemin": String(-extent), "aria-valuemax": String(extent)
    });
    view.stage.append(node);
    return node;
  };
  const handles = {
    z: handle("z", corners ? "Point in the square" : "Point z"), z_end: handle("end", "End of the walk")
  };

  const { change, send } = throttledChanges(model);
  const moveTo = (name, z) =>
    change({ [name]: z.map((value) => Math.max(-extent, Math.min(value, extent))) });

  drag(view.canvas, {
    focus: null, end: send,
    start: ([x, y]) => {
      const to = plane(range, box);
      const from = (name) => [to.x(model.get(name)[0]) - x, to.y(model.get(name)[1]) - y];
      // The nearest handle within reach is taken where it is; else z comes to the pointer.
      const near = Object.keys(handles)
        .filter((name) => !handles[name].hidden && Math.hypot(...from(name)) < 14)
        .sort((a, b) => Math.hypot(...from(a)) - Math.hypot(...from(b)));
      const [name, by] = near.length ? [near[0], from(near[0])] : ["z", [0, 0]];
      const move = ([px, py]) => moveTo(name, plane(range, box).toPlane(px + by[0], py + by[1]));
      handles[name].focus({ preventScroll: true });
      move([x, y]);
      return move;
    }
  });

  const step = (right, up) => (event) => {
    const name = event.target === handles.z_end ? "z_end" : "z";
    const length = event.shiftKey ? 0.5 : 0.1;
    const [z1, z2] = model.get(name);
    const tidied = (value) => Math.round(1e6 * value) / 1e6; // 0.1 + 0.2 is 0.3
    moveTo(name, [tidied(z1 + length * right), tidied(z2 + length * up)]);
  };
  onKeys(view, {
    ArrowLeft: step(-1, 0), ArrowRight: step(1, 0), ArrowUp: step(0, 1), ArrowDown: step(0, -1)
  });

  // ---------------------------------------------------------------------------- beside the picture

  const sheet = (more) => element("canvas", { width: columns, height: rows, role: "img", ...more });
  const image = sheet({ class: "latent-image", "aria-label": "The decoded image" });
  const place = element("p", { class: "latent-place" });
  const mark = element("p", { class: "latent-mark" });
  side.append(image, element("div", {}, place, mark));
  // Beside the plane or, in a narrow page, small below it; all pixels equally large.
  const arrange = new ResizeObserver(() => {
    const narrow = body.clientWidth < 520;
    side.classList.toggle("narrow", narrow);
    const most = Math.min(narrow ? 0.55 * body.clientWidth : side.clientWidth, 300);
    image.style.width = `${Math.max(1, Math.floor(most / columns)) * columns}px`;
  });
  arrange.observe(body);
  view.onStop(() => arrange.disconnect());

  // The corners' images stand above and below the plane, each with its share beside it; pressed, one
  // brings the point into its corner.
  const shares = [];
  if (corners) {
    const buttons = CORNERS.map(([name, [x, y]], k) => {
      const picture = sheet({ "aria-hidden": "true" });
      picture.style.width = `${Math.max(1, Math.floor(CORNER_SIDE / columns)) * columns}px`;
      paintGrey(picture, corners.values.subarray(k * size, (k + 1) * size));
      shares.push(element("span"));
      const title = `Go to the image at the ${name}`;
      const node = element("button", {
        type: "button", class: "latent-corner", title, "aria-label": title
      }, picture, shares[k]);
      node.addEventListener("click", () => moveTo("z", [x * extent, y * extent]));
      return node;
    });
    const square = element("div", { class: "latent-square" });
    view.stage.replaceWith(square);
    square.append(
      element("div", { class: "latent-corners" }, ...buttons.slice(0, 2)), view.stage,
      element("div", { class: "latent-corners" }, ...buttons.slice(2))
    );
  }

  const strip = Array.from({ length: N_WALK }, (_, k) => sheet({ "aria-label": `Image ${k + 1} of the walk` }));
  const walk = element("div", { class: "latent-walk" },
    element("div", { class: "latent-strip" }, ...strip),
    element("div", { class: "latent-ends" },
      element("span", {}, corners ? "point \u25cf" : "z \u25cf"),
      element("span", {}, "equal steps on the straight line"),
      element("span", {}, "\u25c6 end")));
  body.after(walk);

  const toggle = (name, label) => {
    const node = element("button", { type: "button" }, label);
    node.addEventListener("click", () => {
      change({ [name]: !model.get(name) });
      send();
    });
    return [name, node];
  };
  const toggles = [toggle("show_map", "Map"), toggle("walk", "Walk")];
  if (count) toggles.splice(1, 0, toggle("show_points", labels ? "Digits" : "Points"));
  view.controls.classList.add("latent-tools");
  view.controls.append(...toggles.map(([, node]) => node));
  const outside = count - inside.length;
  const left = outside ? ` ${outside} of ${count} ${count === 1 ? "point" : "points"} lie outside the plane.` : "";
  view.root.append(element("p", { class: "latent-hint" },
    "Drag the green point anywhere, or move it with the arrow keys (Shift: further)." +
    `${corners ? " Press an image in a corner to go there." : ""}${left}`));

  // --------------------------------------------------------------------------------- what is shown

  const say = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const nearly = corners ? "blended" : "mixed"; // what an image is that is not decoded
  const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
  const written = (z) => corners
    ? sharesAt(extent, z).map((share, k) => `${CORNERS[k][0]} ${percent(share)}`).join(", ")
    : `(${z.map((value) => value.toFixed(2).replace("-", "\u2212")).join(", ")})`;
  // Paints z's image; whether it is the decoded one.
  const paintAt = (sheet, z) => {
    const exact = desk.exactly(z, size);
    paintGrey(sheet, exact || mixtureAt(grid, extent, z, mixture));
    return Boolean(exact);
  };
  const message = (exact) => {
    if (desk.line.late) return desk.line.late;
    if (desk.failed()) return `decode failed: ${desk.failed()}`;
    if (exact) return model.get("walk") ? "decoded at these points" : "decoded at this point";
    return `${nearly} from stored points nearby${model.standIn ? `. ${NO_KERNEL}` : ""}`;
  };

  let painted = 0; // the next frame's painting
  const paintAll = () => {
    painted = 0;
    const walking = model.get("walk");
    const latents = desk.latents();
    const flags = [paintAt(image, latents[0])];
    if (walking) latents.forEach((z, k) => flags.push(paintAt(strip[k], z)));
    const exact = flags.every(Boolean);
    say(place, corners ? "the mixture" : `z = ${written(latents[0])}`);
    if (corners) sharesAt(extent, latents[0]).forEach((share, k) => say(shares[k], percent(share)));
    say(mark, message(exact));
    mark.classList.toggle("exact", exact);
    mark.classList.toggle("failed", Boolean(!exact && desk.failed()));
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    walk.hidden = handles.z_end.hidden = !walking;
    for (const [name, node] of Object.entries(handles)) {
      const z = model.get(name);
      node.setAttribute("aria-valuenow", z[0].toFixed(2));
      node.setAttribute("aria-valuetext", `${written(z)}, ${exact ? "decoded" : nearly}`);
    }
    for (const [name, node] of toggles) node.setAttribute("aria-pressed", String(model.get(name)));
  };
  const show = () => {
    if (!painted) painted = requestAnimationFrame(paintAll);
    view.redraw();
  };
  view.onStop(desk.listen(show));
  view.follow(["show_map", "show_points"], show);
  view.onStop(() => cancelAnimationFrame(painted));
  view.onStop(send);
  desk.ask();
  paintAll();
  return view.stop;
}

export default { render };

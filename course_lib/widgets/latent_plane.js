// LatentPlane: drag a point through the latent plane and see what it decodes to. With images at its
// corners the plane is a square of their mixtures, and says how large the share of each is.

import { drawAxes, drawDigits, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, rgb } from "./parts/colours.js";
import { row, toggle } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { kernelLine } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { hint, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { backdrop, clamp, inside, segment, trace, words } from "./parts/panel.js";
import { greyCanvas, paintGrey, wholePixels } from "./parts/pixels.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./latent_plane.css" with { type: "css" };

const NO_KERNEL = "Run this cell to decode every point.";

// -------------------------------------------------------------------------------- the mathematics

// The shares of four corners in a place of the square [0, 1]², in the order of reading: top left, top
// right, bottom left, bottom right. `corner_shares` of latent_plane.py is the same.
function sharesAt([right, up]) {
  return [(1 - right) * up, right * up, (1 - right) * (1 - up), right * (1 - up)];
}

// The image at a place of the square, 0 ... 255, mixed from the four nearest of the grid into `out`.
function mixtureAt({ values, shape: [side] }, place, out) {
  const size = out.length;
  const [[j, right], [i, up]] = place.map((value) => {
    const at = value * (side - 1);
    const cell = Math.min(Math.floor(at), side - 2);
    return [cell, at - cell];
  });
  const [topLeft, topRight, bottomLeft, bottomRight] = sharesAt([right, up]);
  const below = (i * side + j) * size;
  const above = below + side * size;
  for (let k = 0; k < size; k++) {
    out[k] = topLeft * values[above + k] + topRight * values[above + size + k]
      + bottomLeft * values[below + k] + bottomRight * values[below + size + k];
  }
  return out;
}

// `count` points on the straight line from z to the end, both included.
function walkOf(z, end, count) {
  const at = (share) => z.map((value, i) => (share === 1 ? end[i] : value + (end[i] - value) * share));
  return Array.from({ length: count }, (_, k) => at(k / (count - 1)));
}

const samePoint = (a, b) => a[0] === b[0] && a[1] === b[1];

// ------------------------------------------------------------------------------ asking the kernel

// What is shown and what is asked, once per model, shared by all its views.
const deskOf = perModel((model) => {
  const { tell, listen } = listenersOf();
  const desk = { listen };
  // All points whose images are on the screen; with a walk, z is the first of them.
  desk.latents = () =>
    model.get("walk") ? walkOf(model.get("z"), model.get("z_end"), model.get("n_walk")) : [model.get("z")];
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
  // Whoever moved a point.
  for (const name of ["z", "z_end", "walk"]) model.on(`change:${name}`, desk.ask);
  return desk;
});

// -------------------------------------------------------------------------------------- the state

// The corners, in the order of their images: a name, and where each stands from -1 to 1.
const CORNERS = [
  ["top left", [-1, 1]], ["top right", [1, 1]], ["bottom left", [-1, -1]], ["bottom right", [1, -1]]
];

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

function stateOf(model) {
  const { grid, points, labels, corners } = unpack(model);
  const [, , rows, columns] = grid.shape;
  const size = rows * columns;
  const extent = model.get("extent");
  const desk = deskOf(model);
  const { change, send } = throttledChanges(model);
  const mixture = new Float32Array(size);
  const count = points ? points.shape[0] : 0;
  const all = Array.from({ length: count }, (_, i) => ({
    z: [...points.values.subarray(2 * i, 2 * i + 2)], label: labels?.values[i]
  }));
  const cloud = all.filter(({ z }) => Math.max(...z.map(Math.abs)) <= extent);
  const nearly = corners ? "blended" : "mixed"; // what an image is that is not decoded
  const state = { model, grid, corners, labels, rows, columns, size, extent, desk, send, count, cloud, nearly };
  state.range = [-extent, extent, -extent, extent];

  const inSquare = (z) => z.map((value) => clamp((value / extent + 1) / 2, 0, 1));
  state.shares = (z) => sharesAt(inSquare(z));
  state.moveTo = (name, z) => change({ [name]: z.map((value) => clamp(value, -extent, extent)) });
  // Paints the image of a point; whether it is the decoded one.
  state.paint = (canvas, z) => {
    const exact = desk.exactly(z, size);
    paintGrey(canvas, exact || mixtureAt(grid, inSquare(z), mixture));
    return Boolean(exact);
  };
  // A point in words.
  state.written = (z) => corners
    ? state.shares(z).map((share, k) => `${CORNERS[k][0]} ${percent(share)}`).join(", ")
    : `(${z.map((value) => value.toFixed(2).replace("-", "\u2212")).join(", ")})`;
  // Where the images come from.
  state.message = (exact) => {
    if (desk.line.late) return desk.line.late;
    if (desk.failed()) return `decode failed: ${desk.failed()}`;
    if (exact) return model.get("walk") ? "decoded at these points" : "decoded at this point";
    return `${nearly} from stored points nearby${model.standIn ? `. ${NO_KERNEL}` : ""}`;
  };
  return state;
}

// -------------------------------------------------------------------------------------- the plane

// The map: stored images side by side, as ink on the page, so that it can stay in the background.
function drawMap(ctx, { values, shape }, tiles, box, strength, theme) {
  const [side, , rows, columns] = shape;
  const sheet = element("canvas", { width: columns, height: rows });
  const brush = sheet.getContext("2d");
  const pixels = brush.createImageData(columns, rows);
  const ink = rgb(theme.ink);
  const tile = box.width / tiles.length;
  ctx.imageSmoothingQuality = "high";
  tiles.forEach((i, up) => tiles.forEach((j, right) => {
    const from = (i * side + j) * rows * columns;
    for (let k = 0; k < rows * columns; k++) {
      pixels.data.set([...ink, strength * values[from + k]], 4 * k);
    }
    brush.putImageData(pixels, 0, 0);
    ctx.drawImage(sheet, box.x + right * tile, box.y + (tiles.length - 1 - up) * tile, tile, tile);
  }));
}

function drawCloud(ctx, { cloud, labels }, map, theme) {
  const places = cloud.map(({ z: [x, y] }) => [map.x(x), map.y(y)]);
  if (labels) {
    drawDigits(ctx, places, cloud.map(({ label }) => label), theme);
    return;
  }
  ctx.fillStyle = PALETTE.latent;
  for (const [x, y] of places) ctx.fillRect(x - 1.5, y - 1.5, 3, 3);
}

// Where z stands on the axes. Between corners the lines go on: they cut the square into four
// rectangles, and the area of each is the share of the corner opposite to it.
function drawCross(ctx, x, y, box, whole) {
  ctx.strokeStyle = PALETTE.latent;
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 4]);
  ctx.beginPath();
  segment(ctx, box.x, y, whole ? box.x + box.width : x, y);
  segment(ctx, x, box.y + box.height, x, whole ? box.y : y);
  ctx.stroke();
  ctx.setLineDash([]);
}

function drawWalk(ctx, places, theme) {
  for (const [colour, width] of [[theme.plot, 5], [PALETTE.latent, 2]]) {
    ctx.strokeStyle = ctx.fillStyle = colour;
    ctx.lineWidth = width;
    trace(ctx, places);
    ctx.stroke();
    ctx.beginPath();
    for (const [x, y] of places) {
      ctx.moveTo(x, y);
      ctx.arc(x, y, 2 + width / 2, 0, 2 * Math.PI);
    }
    ctx.fill();
  }
}

function drawFrame(ctx, { corners, range }, box, theme) {
  if (corners) {
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
    return;
  }
  drawAxes(ctx, range, box, theme);
  const font = `600 12px ${theme.font}`;
  words(ctx, "z\u2081", box.x + box.width / 2, box.y + box.height + 30, theme.muted, font, "center");
  words(ctx, "z\u2082", 9, box.y + box.height / 2, theme.muted, font, "center");
}

// The whole plane; what lies under the point stays as it is while the point moves.
function planePicture(state) {
  const { model, grid, range, count, corners, desk } = state;
  const drawUnder = backdrop();
  return (ctx, box, ratio, theme) => {
    const map = plane(range, box);
    const [mapped, clouded] = [model.get("show_map"), model.get("show_points") && count > 0];
    drawUnder(ctx, ratio, [theme.dark, theme.font, mapped, clouded], (own) => {
      drawPlane(own, box, theme);
      if (mapped) drawMap(own, grid, model.get("tiles"), box, model.get("map_ink")[Number(clouded)], theme);
      if (clouded) inside(own, box, () => drawCloud(own, state, map, theme));
    });
    const at = ([x, y]) => [map.x(x), map.y(y)];
    drawCross(ctx, ...at(model.get("z")), box, corners);
    if (model.get("walk")) drawWalk(ctx, desk.latents().map(at), theme);
    drawFrame(ctx, state, box, theme);
    return map;
  };
}

// ---------------------------------------------------------------------------- around the picture

const sheetOf = ({ rows, columns }, label) =>
  element("canvas", { width: columns, height: rows, role: "img", "aria-label": label });

// The image of z and where it comes from: beside the plane or, in a narrow page, small below it.
function sideOf(state, view, body) {
  const image = sheetOf(state, "The decoded image");
  image.classList.add("latent-image");
  const place = element("p", { class: "latent-place" });
  const mark = element("p", { class: "latent-mark" });
  const node = element("div", { class: "latent-side" }, image, element("div", {}, place, mark));
  const arrange = new ResizeObserver(() => {
    const narrow = body.clientWidth < 520;
    node.classList.toggle("narrow", narrow);
    const most = Math.min(narrow ? 0.55 * body.clientWidth : node.clientWidth, 300);
    image.style.width = wholePixels(most, state.columns);
  });
  arrange.observe(body);
  view.onStop(() => arrange.disconnect());
  const tell = (z, exact) => {
    say(place, state.corners ? "the mixture" : `z = ${state.written(z)}`);
    say(mark, state.message(exact));
    mark.classList.toggle("exact", exact);
    mark.classList.toggle("failed", Boolean(!exact && state.desk.failed()));
  };
  return { node, image, tell };
}

const CORNER_SIDE = 56; // the width of a corner's image, at most

// The plane between its corners: the image of each with its share beside it. Pressed, one brings the
// point into its corner.
function squareOf({ corners, rows, columns, size, extent, moveTo, shares }, stage) {
  const said = CORNERS.map(() => element("span"));
  const buttons = CORNERS.map(([name, corner], k) => {
    const picture = greyCanvas(corners.values.subarray(k * size, (k + 1) * size), columns, rows, { "aria-hidden": "true" });
    picture.style.width = wholePixels(CORNER_SIDE, columns);
    const title = `Go to the image at the ${name}`;
    const attributes = { type: "button", class: "latent-corner", title, "aria-label": title };
    const node = element("button", attributes, picture, said[k]);
    node.addEventListener("click", () => moveTo("z", corner.map((side) => side * extent)));
    return node;
  });
  const pair = (from) => element("div", { class: "latent-corners" }, ...buttons.slice(from, from + 2));
  const node = element("div", { class: "latent-square" }, pair(0), stage, pair(2));
  return { node, tell: (z) => shares(z).forEach((share, k) => say(said[k], percent(share))) };
}

// The images of a walk.
function stripOf(state) {
  const { model, corners } = state;
  const images = Array.from({ length: model.get("n_walk") }, (_, k) => sheetOf(state, `Image ${k + 1} of the walk`));
  const ends = [corners ? "point \u25cf" : "z \u25cf", "equal steps on the straight line", "\u25c6 end"];
  const node = element("div", { class: "latent-walk" },
    element("div", { class: "latent-strip" }, ...images),
    element("div", { class: "latent-ends" }, ...ends.map((end) => element("span", {}, end))));
  return { node, images };
}

function howTo({ corners, count, cloud }) {
  const outside = count - cloud.length;
  const left = outside ? ` ${outside} of ${count} ${count === 1 ? "point" : "points"} lie outside the plane.` : "";
  return "Drag the green point anywhere, or move it with the arrow keys (Shift: further)." +
    `${corners ? " Press an image in a corner to go there." : ""}${left}`;
}

// ------------------------------------------------------------------------------- pointer and keys

// The two ends of the walk. `seen()` is the map as last drawn.
function handlesOf(state, view, seen) {
  const { model, extent, corners, moveTo, send } = state;
  const handleOf = (name, label, shape) => handle(view, label, {
    shape, colour: PALETTE.latent, range: [-extent, extent], end: send,
    start: ([x, y]) => {
      const [z1, z2] = model.get(name);
      const [left, top] = [seen().x(z1) - x, seen().y(z2) - y]; // to the middle of the handle
      return ([toX, toY]) => moveTo(name, seen().toPlane(toX + left, toY + top));
    }
  });
  const handles = {
    z: handleOf("z", corners ? "Point in the square" : "Point z", "round latent-z"),
    z_end: handleOf("z_end", "End of the walk", "diamond latent-end")
  };
  drag(view.canvas, {
    focus: handles.z.node, end: send,
    start: (place) => {
      const move = (to) => moveTo("z", seen().toPlane(...to));
      move(place);
      return move;
    }
  });
  const step = (right, up) => ({ target, shiftKey }) => {
    const name = target === handles.z_end.node ? "z_end" : "z";
    const length = shiftKey ? 0.5 : 0.1;
    const [z1, z2] = model.get(name);
    const tidied = (value) => Math.round(1e6 * value) / 1e6; // 0.1 + 0.2 is 0.3
    moveTo(name, [tidied(z1 + length * right), tidied(z2 + length * up)]);
  };
  onKeys(view, {
    ArrowLeft: step(-1, 0), ArrowRight: step(1, 0), ArrowUp: step(0, 1), ArrowDown: step(0, -1)
  });
  return handles;
}

// -------------------------------------------------------------------------------------- the widget

// Room around the plane for the numbers and names of the axes; where there are corners, for half a
// handle.
const ROOM_FOR_AXES = { left: 40, right: 8, top: 8, bottom: 40 };
const ROOM_FOR_A_HANDLE = { left: 9, right: 9, top: 9, bottom: 9 };

function render({ model, el }) {
  const state = stateOf(model);
  const { desk, corners, labels, count, send } = state;
  const picture = planePicture(state);
  const room = corners ? ROOM_FOR_A_HANDLE : ROOM_FOR_AXES;
  const sideFor = (width) => Math.floor(width - room.left - room.right);
  let map = null; // as last drawn

  // Images and words; whether all that is shown is decoded.
  const tell = () => {
    const [walking, latents] = [model.get("walk"), desk.latents()];
    const shown = [state.paint(side.image, latents[0])];
    if (walking) latents.forEach((z, k) => shown.push(state.paint(strip.images[k], z)));
    const exact = shown.every(Boolean);
    side.tell(latents[0], exact);
    square?.tell(latents[0]);
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    strip.node.hidden = handles.z_end.node.hidden = !walking;
    return exact;
  };
  const draw = (ctx, { width, ratio }, theme) => {
    const box = { x: room.left, y: room.top, width: sideFor(width), height: sideFor(width) };
    map = picture(ctx, box, ratio, theme);
    const source = tell() ? "decoded" : state.nearly;
    for (const [name, { stand }] of Object.entries(handles)) {
      const z = model.get(name);
      stand(map.x(z[0]), map.y(z[1]), z[0], `${state.written(z)}, ${source}`);
    }
  };
  const layout = (width) => {
    square?.node.style.setProperty("--latent-width", `${width}px`); // the corners stay at its corners
    return sideFor(width) + room.top + room.bottom;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 780, style: STYLE });

  const body = element("div", { class: "latent-body" });
  const side = sideOf(state, view, body);
  const square = corners ? squareOf(state, view.stage) : null;
  const strip = stripOf(state);
  body.append(square?.node || view.stage, side.node);
  view.header.after(body, strip.node);
  view.controls.replaceWith(row(
    toggle(view, "show_map", "Map"),
    ...(count ? [toggle(view, "show_points", labels ? "Digits" : "Points")] : []),
    toggle(view, "walk", "Walk")
  ));
  view.root.append(hint(howTo(state)));
  const handles = handlesOf(state, view, () => map);

  view.onStop(desk.listen(view.redraw));
  view.follow(["show_map", "show_points"], view.redraw);
  view.onStop(send);
  desk.ask();
  tell();
  return view.stop;
}

export default { render };

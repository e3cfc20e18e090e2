// StepsByEta: a table of steps by η to drag over, and the samples of the cell under the pointer.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, colourTable } from "./parts/colours.js";
import { tidy, unpack } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";

const GAP = 6;

const STYLE = `
.eta-body { display: flex; flex-wrap: wrap; gap: 12px 24px; align-items: flex-start; }
.eta-side { flex: 1.2 1 280px; min-width: 0; max-width: 420px; container-type: inline-size; }
.eta-body .cw-stage { flex: 1 1 280px; min-width: 0; max-width: 400px; }
.eta-table {
  display: grid; grid-template-columns: auto repeat(var(--eta-columns), minmax(0, 1fr)); gap: 3px; padding: 2px; touch-action: none; cursor: pointer; user-select: none;
  -webkit-user-select: none; font-variant-numeric: tabular-nums;
}
.eta-table.priced { grid-template-columns: auto repeat(var(--eta-columns), minmax(0, 1fr)) min-content; }
.eta-row { display: contents; }
.eta-head { padding: 2px 0; color: var(--cw-muted); text-align: center; line-height: 18px; align-self: center; }
.eta-head.chosen { color: var(--cw-ink); font-weight: 600; }
.eta-name { padding-right: 8px; text-align: right; white-space: nowrap; }
.eta-price { padding-left: 10px; text-align: right; }
.eta-words { font-size: 11px; line-height: 14px; }
.eta-cell {
  display: flex; flex-direction: column; align-items: center; justify-content: center; min-width: 0; min-height: 34px;
  border-radius: 4px; background: var(--cw-fill); font-size: 12px; line-height: 15px;
}
.eta-cell small { font-size: 10px; line-height: 12px; }
.eta-cell[aria-selected="true"] { box-shadow: 0 0 0 2px var(--cw-plot), 0 0 0 4px ${PALETTE.model}; z-index: 1; }
.eta-legend { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 7px; padding: 9px 2px 0; color: var(--cw-muted); font-size: 12px; }
.eta-scale { white-space: nowrap; }
.eta-map { display: inline-block; margin: 0 7px; width: 70px; height: 9px; border-radius: 2px; background: linear-gradient(to right, var(--eta-map)); }
.eta-status { min-height: 38px; margin: 8px 2px 0; line-height: 19px; }
.eta-hint { margin: 6px 2px 0; color: var(--cw-muted); font-size: 12px; }
/* The line below the table says what a cell costs: where there is no room for all, that is enough. */
@container (max-width: 385px) {
  .eta-table.many { grid-template-columns: auto repeat(var(--eta-columns), minmax(0, 1fr)); }
  .many .eta-price { display: none; }
}
`;

// Three digits are enough to compare with, and what stands before the point stays.
const short = (value, digits = 3) =>
  tidy(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(digits)));
const counted = (steps) => `${steps} step${steps === 1 ? "" : "s"}`;

function render({ model, el }) {
  const { values, shape } = unpack(model).samples;
  const [rows, columns, count] = shape;
  const [allSteps, allEtas] = [model.get("all_steps"), model.get("all_etas")];
  const [quality, cost] = [model.get("quality"), model.get("cost")];
  const [qualityLabel, costLabel] = [model.get("quality_label"), model.get("cost_label")];
  const perRow = cost.length > 0 && cost[0].length < columns; // one cost stands for a whole row
  const { change, send } = throttledChanges(model);
  const chosen = () => [model.get("steps_index"), model.get("eta_index")];
  const cellValues = () => {
    const [s, e] = chosen();
    const size = values.length / (rows * columns);
    return values.subarray((s * columns + e) * size, (s * columns + e + 1) * size);
  };

  const picture = model.get("extent").length ? cloud(model.get("extent")) : mosaic(count, shape.slice(3));
  const draw = (ctx, size, theme) => picture.draw(ctx, size, theme, cellValues());
  const view = outline({ model, el, layout: picture.layout, draw, maxWidth: 760 });
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------------------- the table

  const colours = colourTable("viridis");
  const paint = (node, shade) => {
    const [r, g, b] = colours.subarray(3 * Math.round(255 * shade), 3 * Math.round(255 * shade) + 3);
    node.style.background = `rgb(${r}, ${g}, ${b})`;
    node.style.color = 0.299 * r + 0.587 * g + 0.114 * b > 125 ? "#14181e" : "#ffffff";
  };
  // What a cell says, in words: for a reader who does not see it, and below the table.
  const sayCell = (s, e) => {
    const parts = [];
    if (quality.length) parts.push(`${qualityLabel || "quality"}: ${short(quality[s][e])}`);
    if (cost.length) parts.push(`${costLabel}: ${short(cost[s][perRow ? 0 : e])}`);
    return [`${counted(allSteps[s])}, \u03b7 = ${tidy(allEtas[e])}`, parts.join(", ")].filter(Boolean).join(". ");
  };
  const head = (role, name, ...words) => element("div", { role, class: `eta-head ${name}` }, ...words);
  const row = (...nodes) => element("div", { role: "row", class: "eta-row" }, ...nodes);
  const stepHeads = allSteps.map((steps) => head("rowheader", "eta-name", String(steps)));
  const etaHeads = allEtas.map((eta) => head("columnheader", "", tidy(eta)));
  const digits = columns > 4 ? 2 : 3; // as many as fit
  const cells = allSteps.map((_, s) => allEtas.map((_, e) => {
    const node = element("div", { role: "gridcell", class: "eta-cell", "aria-label": sayCell(s, e) });
    if (quality.length) {
      node.append(short(quality[s][e], digits));
      paint(node, model.get("shades")[s][e]);
    }
    if (cost.length && !perRow) node.append(element("small", {}, short(cost[s][e], digits)));
    return node;
  }));
  const price = (s) => (perRow ? [head("cell", "eta-price", short(cost[s][0]))] : []);
  const table = element("div", { role: "grid", class: "eta-table", "aria-label": "Steps by \u03b7" },
    row(head("columnheader", "eta-name eta-words", "steps \u2193  \u03b7 \u2192"), ...etaHeads,
      ...(perRow ? [head("columnheader", "eta-price eta-words", costLabel)] : [])),
    ...cells.map((nodes, s) => row(stepHeads[s], ...nodes, ...price(s))));
  table.style.setProperty("--eta-columns", columns);
  table.classList.toggle("priced", perRow);
  table.classList.toggle("many", columns > 4);

  // ---------------------------------------------------------------------------- hand and keyboard

  const choose = (s, e) => {
    const to = [Math.max(0, Math.min(rows - 1, s)), Math.max(0, Math.min(columns - 1, e))];
    if (to.join() !== chosen().join()) change({ steps_index: to[0], eta_index: to[1] });
  };
  // The cell under the pointer, or the one nearest to it. The table grows with its page.
  const nearest = (edges, at) => edges.filter((edge) => edge <= at).length;
  const point = ({ clientX, clientY }) => {
    const downs = cells.slice(1).map((nodes) => nodes[0].getBoundingClientRect().top);
    const rights = cells[0].slice(1).map((node) => node.getBoundingClientRect().left);
    choose(nearest(downs, clientY), nearest(rights, clientX));
  };
  let dragging = null;
  table.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    dragging = event.pointerId;
    table.setPointerCapture(dragging);
    point(event);
  });
  table.addEventListener("pointermove", (event) => event.pointerId === dragging && point(event));
  for (const end of ["pointerup", "pointercancel"]) {
    table.addEventListener(end, () => {
      dragging = null;
      send();
    });
  }
  const walk = (down, right) => () => {
    const [s, e] = chosen();
    choose(s + down, e + right);
  };
  onKeys(view, {
    ArrowUp: walk(-1, 0), ArrowDown: walk(1, 0), ArrowLeft: walk(0, -1), ArrowRight: walk(0, 1)
  });

  // ---------------------------------------------------------------------------------------- around

  const status = element("p", { class: "eta-status", role: "status" });
  const side = element("div", { class: "eta-side" }, table);
  if (quality.length) {
    const all = quality.flat();
    const map = element("span", { class: "eta-map" });
    map.style.setProperty("--eta-map", [255, 191, 128, 64, 0].map((i) =>
      `rgb(${colours.subarray(3 * i, 3 * i + 3).join()})`).join());
    side.append(element("div", { class: "eta-legend", "aria-hidden": "true" },
      element("span", {}, `${qualityLabel || "quality"}, lower is better:`),
      element("span", { class: "eta-scale" }, short(Math.min(...all)), map, short(Math.max(...all)))));
  }
  if (cost.length && !perRow) {
    side.append(element("div", { class: "eta-legend", "aria-hidden": "true" }, `small: ${costLabel}`));
  }
  side.append(status, element("p", { class: "eta-hint" }, "Click a cell or drag over them; the arrow keys do the same."));
  view.header.after(element("div", { class: "eta-body" }, side, view.stage));
  view.controls.remove();

  const show = () => {
    const [s, e] = chosen();
    cells.forEach((nodes, i) => nodes.forEach((node, j) => node.setAttribute("aria-selected", String(i === s && j === e))));
    stepHeads.forEach((node, i) => node.classList.toggle("chosen", i === s));
    etaHeads.forEach((node, j) => node.classList.toggle("chosen", j === e));
    const said = `${sayCell(s, e)}.`;
    if (status.textContent !== said) status.textContent = said;
    view.canvas.setAttribute("aria-label", `${model.get("alt")} Shown: ${said}`);
    view.redraw();
  };
  for (const name of ["steps_index", "eta_index"]) {
    model.on(`change:${name}`, show);
    view.onStop(() => model.off(`change:${name}`, show));
  }
  show();
  return view.stop;
}

// ------------------------------------------------------------------------------------ the samples

// How many images stand side by side: about as many as there are rows, and all rows full if it can be.
function acrossFor(count) {
  const square = Math.ceil(Math.sqrt(count));
  for (let across = square; across <= 2 * square; across++) if (count % across === 0) return across;
  return square;
}

// The images of a cell, [n, height, width], as a grid.
function mosaic(count, [height, width]) {
  const across = acrossFor(count);
  const down = Math.ceil(count / across);
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [width, height * count];
  const onSheet = sheet.getContext("2d");
  const pixels = onSheet.createImageData(width, height * count);
  const words = new Uint32Array(pixels.data.buffer);
  const sizeIn = (room) => {
    const cell = Math.floor(Math.min((room - GAP * (across - 1)) / across, 16 * width));
    return [cell, Math.round((cell * height) / width)];
  };
  const layout = (room) => down * (sizeIn(room)[1] + GAP) - GAP;
  const draw = (ctx, size, theme, levels) => {
    levels.forEach((level, i) => (words[i] = (255 << 24) | (level * 0x010101)));
    onSheet.putImageData(pixels, 0, 0);
    const [w, h] = sizeIn(size.width);
    const left = Math.floor((size.width - across * (w + GAP) + GAP) / 2);
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    for (let i = 0; i < count; i++) {
      const [x, y] = [left + (i % across) * (w + GAP), Math.floor(i / across) * (h + GAP)];
      ctx.drawImage(sheet, 0, i * height, width, height, x, y, w, h);
      ctx.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    }
  };
  return { layout, draw };
}

// The points of a cell, [N, 2], in the plane.
function cloud(extent) {
  const boxIn = (width) => ({ x: 30, y: 4, width: width - 36, height: width - 36 });
  const layout = (width) => boxIn(width).height + 28;
  const draw = (ctx, { width }, theme, places) => {
    const box = boxIn(width);
    const map = plane(extent, box);
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    ctx.fillStyle = PALETTE.model;
    ctx.strokeStyle = theme.rim;
    ctx.lineWidth = 0.6;
    for (let i = 0; i < places.length; i += 2) {
      ctx.beginPath();
      ctx.arc(map.x(places[i]), map.y(places[i + 1]), 3.2, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    }
    ctx.restore();
    drawAxes(ctx, extent, box, theme);
  };
  return { layout, draw };
}

export default { render };

// SampleTable: a table of two choices to drag over, and the samples of the cell under the pointer.

import { throttledChanges } from "./parts/changes.js";
import { MAPS, PALETTE, colourTable, inkOn } from "./parts/colours.js";
import { tidy, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { hint, mapStrip, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, panel } from "./parts/panel.js";
import { drawTile, imageStack } from "./parts/pixels.js";
import STYLE from "./sample_table.css" with { type: "css" };

const GAP = 6;

// Three digits are enough to compare with, and what stands before the point stays.
const short = (value, digits = 3) =>
  tidy(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(digits)));

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const { values, shape } = unpack(model).samples;
  const [rows, columns] = shape;
  const [rowName, columnName, rowValues, columnValues, quality, cost, costLabel] =
    ["row_name", "column_name", "row_values", "column_values", "quality", "cost", "cost_label"].map((name) => model.get(name));
  const qualityLabel = model.get("quality_label") || "quality";
  const perRow = cost.length > 0 && cost[0].length < columns; // one cost stands for a whole row
  const { change, send } = throttledChanges(model);
  const chosen = () => [model.get("row"), model.get("column")];
  const choose = (row, column) => {
    const to = [clamp(row, 0, rows - 1), clamp(column, 0, columns - 1)];
    if (to.join() !== chosen().join()) change({ row: to[0], column: to[1] });
  };
  const size = values.length / (rows * columns);
  const samples = () => {
    const [row, column] = chosen();
    return values.subarray((row * columns + column) * size, (row * columns + column + 1) * size);
  };
  // What a cell says, in words: for a reader who does not see it, and below the table.
  const words = (row, column) => {
    const parts = [];
    if (quality.length) parts.push(`${qualityLabel}: ${short(quality[row][column])}`);
    if (cost.length) parts.push(`${costLabel}: ${short(cost[row][perRow ? 0 : column])}`);
    const place = `${rowName} = ${rowValues[row]}, ${columnName} = ${columnValues[column]}`;
    return [place, parts.join(", ")].filter(Boolean).join(". ");
  };
  return {
    shape, rows, columns, rowName, columnName, rowValues, columnValues, quality, qualityLabel, cost, costLabel,
    perRow, send, chosen, choose, samples, words, shades: model.get("shades")
  };
}

// -------------------------------------------------------------------------------------- the table

function tableOf(state) {
  const { rows, columns, rowName, columnName, rowValues, columnValues, quality, cost, costLabel, perRow } = state;
  const colours = colourTable("viridis");
  const paint = (node, shade) => {
    const colour = colours.subarray(3 * Math.round(255 * shade), 3 * Math.round(255 * shade) + 3);
    node.style.background = `rgb(${colour.join()})`;
    node.style.color = inkOn(colour);
  };
  const head = (role, name, ...words) => element("div", { role, class: `table-head ${name}` }, ...words);
  const row = (...nodes) => element("div", { role: "row", class: "table-row" }, ...nodes);
  const rowHeads = rowValues.map((value) => head("rowheader", "table-name", value));
  const columnHeads = columnValues.map((value) => head("columnheader", "", value));
  const digits = columns > 4 ? 2 : 3; // as many as fit
  const cells = rowValues.map((_, s) => columnValues.map((_, e) => {
    const node = element("div", { role: "gridcell", class: "table-cell", "aria-label": state.words(s, e) });
    if (quality.length) {
      node.append(short(quality[s][e], digits));
      paint(node, state.shades[s][e]);
    }
    if (cost.length && !perRow) node.append(element("small", {}, short(cost[s][e], digits)));
    return node;
  }));
  const price = (s) => (perRow ? [head("cell", "table-price", short(cost[s][0]))] : []);
  const node = element("div", { role: "grid", class: "table-grid", "aria-label": `${rowName} by ${columnName}` },
    row(head("columnheader", "table-name table-words", `${rowName} \u2193  ${columnName} \u2192`), ...columnHeads,
      ...(perRow ? [head("columnheader", "table-price table-words", costLabel)] : [])),
    ...cells.map((nodes, s) => row(rowHeads[s], ...nodes, ...price(s))));
  node.style.setProperty("--table-columns", columns);
  node.classList.toggle("priced", perRow);
  node.classList.toggle("many", columns > 4);

  const mark = (s, e) => {
    cells.flat().forEach((cell, i) => cell.setAttribute("aria-selected", String(i === s * columns + e)));
    rowHeads.forEach((one, i) => one.classList.toggle("chosen", i === s));
    columnHeads.forEach((one, j) => one.classList.toggle("chosen", j === e));
  };
  // The cell under the pointer, or the one nearest to it. The table grows with its page.
  const nearest = (edges, at) => edges.filter((edge) => edge <= at).length;
  const point = (_, { clientX, clientY }) => {
    const downs = cells.slice(1).map((nodes) => nodes[0].getBoundingClientRect().top);
    const rights = cells[0].slice(1).map((one) => one.getBoundingClientRect().left);
    state.choose(nearest(downs, clientY), nearest(rights, clientX));
  };
  const start = (place, event) => {
    point(place, event);
    return point;
  };
  return { node, mark, start };
}

// What the colours and the small numbers mean.
function legends({ quality, qualityLabel, cost, costLabel, perRow }) {
  const found = [];
  const legend = (...nodes) => found.push(element("div", { class: "table-legend", "aria-hidden": "true" }, ...nodes));
  if (quality.length) {
    const all = quality.flat();
    legend(element("span", {}, `${qualityLabel}, lower is better:`),
      mapStrip([...MAPS.viridis].reverse(), short(Math.min(...all)), short(Math.max(...all))));
  }
  if (cost.length && !perRow) legend(`small: ${costLabel}`);
  return found;
}

// ------------------------------------------------------------------------------------ the samples

// How many images stand side by side: about as many as there are rows, and all rows full if it can be.
function acrossFor(count) {
  const square = Math.ceil(Math.sqrt(count));
  for (let across = square; across <= 2 * square; across++) if (count % across === 0) return across;
  return square;
}

// The images of a cell, [n, height, width] or [n, 3, height, width], as a grid.
function mosaic(shape) {
  const sheet = imageStack(shape);
  const { count, size: [height, width] } = sheet;
  const across = acrossFor(count);
  const down = Math.ceil(count / across);
  const sizeIn = (room) => {
    const cell = Math.floor(Math.min((room - GAP * (across - 1)) / across, 16 * width));
    return [cell, Math.round((cell * height) / width)];
  };
  const layout = (room) => down * (sizeIn(room)[1] + GAP) - GAP;
  const draw = (ctx, size, theme, levels) => {
    sheet.paint(levels);
    const [w, h] = sizeIn(size.width);
    const left = Math.floor((size.width - across * (w + GAP) + GAP) / 2);
    for (let i = 0; i < count; i++) {
      const place = { x: left + (i % across) * (w + GAP), y: Math.floor(i / across) * (h + GAP), width: w, height: h };
      drawTile(ctx, sheet.canvas, i, [height, width], place, theme.line);
    }
  };
  return { layout, draw };
}

// The points of a cell, [N, 2], in the plane.
function cloud(extent) {
  const boxIn = (width) => ({ x: 30, y: 4, width: width - 36, height: width - 36 });
  const layout = (width) => boxIn(width).height + 28;
  const draw = (ctx, { width }, theme, places) => {
    panel(ctx, extent, boxIn(width), theme, (map) => {
      for (let i = 0; i < places.length; i += 2) {
        dot(ctx, map.x(places[i]), map.y(places[i + 1]), 3.2, PALETTE.model, theme.rim, 0.6);
      }
    });
  };
  return { layout, draw };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { chosen, choose, send } = state;
  const extent = model.get("extent");
  const picture = extent.length ? cloud(extent) : mosaic(state.shape.slice(2));
  const draw = (ctx, size, theme) => picture.draw(ctx, size, theme, state.samples());
  const view = outline({ model, el, layout: picture.layout, draw, maxWidth: 760, style: STYLE });
  const table = tableOf(state);
  const status = element("p", { class: "table-status", role: "status" });
  const side = element("div", { class: "table-side" }, table.node, ...legends(state), status,
    hint("Click a cell or drag over them; the arrow keys do the same."));
  view.header.after(element("div", { class: "table-body" }, side, view.stage));
  view.controls.remove();

  drag(table.node, { start: table.start, end: send, focus: view.root });
  const walk = (down, right) => () => {
    const [row, column] = chosen();
    choose(row + down, column + right);
  };
  onKeys(view, {
    ArrowUp: walk(-1, 0), ArrowDown: walk(1, 0), ArrowLeft: walk(0, -1), ArrowRight: walk(0, 1)
  });
  const show = () => {
    table.mark(...chosen());
    const said = `${state.words(...chosen())}.`;
    say(status, said);
    view.canvas.setAttribute("aria-label", `${model.get("alt")} Shown: ${said}`);
    view.redraw();
  };
  view.follow(["row", "column"], show, { now: true });
  view.onStop(send);
  return view.stop;
}

export default { render };

// MaskExplorer: MADE's masks as a graph; multiply them and see what each output depends on.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, group } from "./parts/controls.js";
import { drag } from "./parts/drag.js";
import { gridLines } from "./parts/grid.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, segment, words } from "./parts/panel.js";
import STYLE from "./mask_explorer.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics

// The place of each input in the order, which is its degree: the inverse of the permutation.
function placesOf(order) {
  const places = [];
  order.forEach((input, place) => (places[input] = place));
  return places;
}

// The masks [above][below] of all layers from the degrees of inputs and hidden layers.
function masksOf(places, hidden, strict) {
  const layers = [places, ...hidden];
  const masks = hidden.map((above, k) => above.map((a) => layers[k].map((b) => Number(a >= b))));
  const last = layers.at(-1);
  masks.push(places.map((a) => last.map((b) => Number(strict ? a > b : a >= b))));
  return masks;
}

function product(a, b) {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));
}

// Everything that follows from the degrees. `fromInputs[l][u][j]` counts the paths from input j to
// unit u of layer l, `toOutputs[l][i][u]` those from that unit to output i.
function network(order, hidden, strict) {
  const places = placesOf(order);
  const masks = masksOf(places, hidden, strict);
  const unit = places.map((_, i) => places.map((_, j) => Number(i === j)));
  const fromInputs = [unit];
  for (const mask of masks) fromInputs.push(product(mask, fromInputs.at(-1)));
  const toOutputs = [unit];
  for (const mask of [...masks].reverse()) toOutputs.unshift(product(toOutputs[0], mask));
  const degrees = [places, ...hidden, places];
  return { order, places, degrees, masks, fromInputs, toOutputs, paths: fromInputs.at(-1), last: masks.length };
}

// The units on paths that end in a unit, [layer][unit].
function below(net, layer, unit) {
  const lit = net.fromInputs.map((units, l) => units.map((_, u) => l === layer && u === unit));
  for (let l = layer; l > 0; l--) {
    net.masks[l - 1].forEach((row, a) => row.forEach((on, b) => (lit[l - 1][b] ||= Boolean(on && lit[l][a]))));
  }
  return lit;
}

// Those on paths that start in an input.
const above = (net, input) => net.fromInputs.map((units) => units.map((paths) => paths[input] > 0));

const both = (a, b) => a.map((units, l) => units.map((on, u) => on && b[l][u]));

// What lights up: the units on the paths in question, and those on paths that leak, where i sees i.
function lights(net, focus) {
  if (!focus) return { lit: null, leak: null };
  const leakOf = (i) => (net.paths[i][i] ? both(below(net, net.last, i), above(net, i)) : null);
  if (focus.cell) {
    const [i, j] = focus.cell;
    const lit = both(below(net, net.last, i), above(net, j));
    return { lit, leak: i === j ? leakOf(i) : null };
  }
  const [layer, unit] = focus.unit;
  const lit = layer === 0 ? above(net, unit) : below(net, layer, unit);
  return { lit, leak: layer === 0 || layer === net.last ? leakOf(unit) : null };
}

// --------------------------------------------------------------------------------------- in words

function ordinal(number) {
  const teen = number % 100 > 10 && number % 100 < 14;
  return `${number}${(!teen && { 1: "st", 2: "nd", 3: "rd" }[number % 10]) || "th"}`;
}

// What the picture says about the unit or the cell in question.
function sentence(net, focus, names, strict) {
  const { order, places, paths, last } = net;
  const list = (inputs) => inputs.map((i) => names[i]).join(", ");
  const place = (i) => `${names[i]} (${ordinal(places[i] + 1)} in the order)`;
  if (!focus) {
    if (strict) {
      return "The number in a unit is its degree. A hidden unit is connected to units below of at " +
        "most its own degree, an output to those strictly below its own.";
    }
    const leaks = order.filter((i) => paths[i][i]).length;
    return `With \u2264, an output is connected to units of its own degree, too: ${leaks} of ` +
      `${order.length} outputs see their own input, and p(x\u1d62 | x\u1d62) is being modelled.`;
  }
  if (focus.cell) {
    const [i, j] = focus.cell;
    const count = paths[i][j];
    const start = `${count === 0 ? "No path leads" : count === 1 ? "1 path leads" : `${count} paths lead`} ` +
      `from input ${names[j]} to output ${names[i]}`;
    if (i === j) {
      return count ? `${start}: p(${names[i]} | \u2026, ${names[i]}) is being modelled.`
        : `${start}: an output must not see its own input.`;
    }
    const earlier = places[j] < places[i];
    if (!count && earlier) {
      return `${start}, although ${names[j]} comes earlier: the hidden layers are too narrow for it.`;
    }
    return `${start}: ${names[j]} comes ${earlier ? "earlier" : "later"} in the order.`;
  }
  const [layer, unit] = focus.unit;
  if (layer === last) {
    const seen = order.filter((j) => paths[unit][j] && j !== unit);
    const missing = order.slice(0, places[unit]).filter((j) => !paths[unit][j]);
    const start = `Output ${place(unit)} sees`;
    const rest = missing.length ? ` No path leads here from ${list(missing)}.` : "";
    if (paths[unit][unit]) {
      const given = seen.length ? " | \u2026" : "";
      return `${start} ${seen.length ? `${list(seen)} and ` : ""}its own input: ` +
        `p(${names[unit]} | ${seen.length ? "\u2026, " : ""}${names[unit]}) is being modelled, ` +
        `not p(${names[unit]}${given}).${rest}`;
    }
    if (!seen.length) return `${start} no input: p(${names[unit]}) is made of biases alone.${rest}`;
    const how = missing.length ? "only" : "exactly the";
    return `${start} ${list(seen)}: ${how} inputs earlier in the order.${rest}`;
  }
  const reached = order.filter((i) => net.toOutputs[layer][i][unit]);
  const others = reached.filter((i) => layer > 0 || i !== unit);
  const outputs = others.length ? `output${others.length > 1 ? "s" : ""} ${list(others)}` : "no output";
  if (layer === 0) {
    const start = `Input ${place(unit)} reaches ${outputs}`;
    if (paths[unit][unit]) return `${start}${others.length ? " and" : ", but"} its own output, which leaks.`;
    if (others.length) return `${start}: none that is earlier in the order.`;
    return `${start}${places[unit] === order.length - 1 ? ": it is the last in the order." : "."}`;
  }
  const degree = net.degrees[layer][unit];
  const seen = order.filter((j) => net.fromInputs[layer][unit][j]);
  return `Hidden unit ${unit + 1} of layer ${layer} (degree ${degree}) sees ` +
    `${seen.length ? list(seen) : "no input"}: of degree at most ${degree}. It reaches ${outputs}.`;
}

// The longest that may be said with nothing or a unit in question.
function longestSentence(model) {
  const names = model.get("input_names");
  const said = model.get("orders").flatMap((order, k) => {
    const net = network(order, model.get("hidden")[k], false);
    const ofUnits = net.degrees.flatMap((units, layer) =>
      units.map((_, unit) => sentence(net, { unit: [layer, unit] }, names, false)));
    return [sentence(net, null, names, true), sentence(net, null, names, false), ...ofUnits];
  });
  return said.reduce((a, b) => (b.length > a.length ? b : a));
}

// --------------------------------------------------------------------------------------- the look

const PITCH = 76; // of the layers
const GUTTER = 56; // for the names of the layers
const LABEL = 30; // for the names of the matrix's rows

// Where everything stands: the units, and the matrix beside the graph or, on a narrow page, below.
function arrange(width, widths) {
  const n = widths[0];
  const wide = width >= 690;
  const cell = Math.floor(Math.min(30, ((wide ? 0.36 * width : Math.min(width, 330)) - LABEL) / n));
  const side = n * cell;
  const across = wide ? width - side - LABEL - 34 : width;
  const rows = widths.length;
  const matrixHeight = side + 58 + 18;
  const graphHeight = 34 + (rows - 1) * PITCH + 52;
  const spread = wide ? Math.max(0, Math.min(matrixHeight - graphHeight, 24 * (rows - 1))) : 0;
  const units = widths.map((count, layer) => {
    const step = (across - GUTTER - 4) / count;
    // Units of a wide layer stand in a zigzag, so that there is room for their numbers.
    const zigzag = step < 25;
    const r = zigzag ? Math.max(8, Math.min(11, 0.58 * step)) : Math.min(14, 0.42 * step);
    const y = 34 + (rows - 1 - layer) * (PITCH + spread / (rows - 1));
    return Array.from({ length: count }, (_, i) => ({
      layer, unit: i, r, step,
      x: GUTTER + (i + 0.5) * step,
      y: y + (zigzag ? (i % 2 ? -0.8 : 0.8) * r : 0)
    }));
  });
  const bottom = graphHeight + spread;
  const matrix = wide
    ? { x: width - side - 4, y: Math.max(58, (bottom - matrixHeight) / 2 + 58), cell, side }
    : { x: Math.round((width - side + LABEL) / 2), y: bottom + 58, cell, side };
  return { units, matrix, height: Math.max(bottom, matrix.y + side + 20) };
}

// -------------------------------------------------------------------------------------- the state

// What is looked at in one view: the unit or the cell under the pointer, the input that is dragged,
// and how the matrix is arranged. All else is in the traits.
function stateOf(model) {
  const names = model.get("input_names");
  const hidden = () => model.get("hidden")[model.get("mask_set")];
  const widths = [names.length, ...hidden().map((layer) => layer.length), names.length];
  const { change, send } = throttledChanges(model);
  const state = {
    names, widths, last: widths.length - 1, change, send, net: null,
    hover: null, grip: null, inOrder: true, places: null // of everything on the screen, as last drawn
  };
  state.update = () => (state.net = network(model.get("order"), hidden(), model.get("strict")));
  state.set = (values) => {
    change(values);
    send();
  };
  state.natural = () => names.map((_, i) => i);
  state.arrangement = () => (state.inOrder ? state.net.order : state.natural());
  // The input that is dragged, with its place.
  state.dragged = () => (state.grip?.moved && state.grip.layer === 0 ? state.grip : null);
  state.focus = () => {
    const dragged = state.dragged();
    const selected = model.get("selected");
    if (dragged) return { unit: [0, dragged.unit] };
    return state.hover || (selected.length ? { unit: selected } : null);
  };
  // What stands at a place on the canvas.
  state.at = ([x, y]) => {
    if (!state.places) return null;
    const { units, matrix } = state.places;
    const unit = units.flat().find((u) => Math.hypot(u.x - x, u.y - y) <= u.r + 3);
    if (unit) return { unit: [unit.layer, unit.unit] };
    const [column, row] = [x - matrix.x, y - matrix.y].map((v) => Math.floor(v / matrix.cell));
    if (Math.min(row, column) < 0 || Math.max(row, column) >= names.length) return null;
    return { cell: [row, column].map((place) => state.arrangement()[place]) };
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

function drawLines(ctx, { masks }, units, wanted = () => true) {
  ctx.beginPath();
  masks.forEach((mask, l) => mask.forEach((row, a) => row.forEach((on, b) => {
    if (!on || !wanted(l, a, b)) return;
    const [from, to] = [units[l][b], units[l + 1][a]];
    segment(ctx, from.x, from.y - from.r, to.x, to.y + to.r);
  })));
  ctx.stroke();
}

function drawAllLines(ctx, net, units, focus, { lit, leak }, theme) {
  const inPaths = (on) => (l, a, b) => on[l][b] && on[l + 1][a];
  ctx.lineWidth = 1;
  ctx.strokeStyle = theme.dark ? "#5d646d" : "#b9c0c8";
  // The more lines there are, the fainter is each of them.
  const count = net.masks.flat(2).reduce((sum, on) => sum + on, 0);
  ctx.globalAlpha = (lit ? 0.4 : 1) * clamp(300 / count, 0.4, 1);
  drawLines(ctx, net, units);
  ctx.globalAlpha = 1;
  if (lit) {
    ctx.lineWidth = 1.7;
    ctx.strokeStyle = PALETTE[focus.unit?.[0] === 0 ? "data" : "model"];
    drawLines(ctx, net, units, inPaths(lit));
  }
  if (leak) {
    ctx.lineWidth = 2.6;
    ctx.strokeStyle = PALETTE.error;
    drawLines(ctx, net, units, inPaths(leak));
  }
}

function drawUnit(ctx, { layer, unit, x, y, r }, net, { lit, leak }, pinned, theme) {
  const role = PALETTE[layer === 0 ? "data" : layer === net.last ? "model" : "latent"];
  const on = !lit || lit[layer][unit];
  const colour = leak?.[layer][unit] ? PALETTE.error : on ? role : theme.line;
  const bold = lit && on;
  dot(ctx, x, y, r, theme.plot, colour, bold ? 2.5 : 2);
  if (bold) {
    ctx.globalAlpha = 0.22;
    ctx.fillStyle = colour;
    ctx.fill(); // the dot once more
    ctx.globalAlpha = 1;
  }
  if (pinned) dot(ctx, x, y, r + 3.5, "transparent", theme.accent, 2);
  const font = `${bold ? "600 " : ""}${r < 10 ? 10 : 11.5}px ${theme.font}`;
  words(ctx, String(net.degrees[layer][unit]), x, y + 0.5, on ? theme.ink : theme.muted, font, "center");
}

// The names of inputs and outputs, the places of the inputs, and the names of the layers.
function drawNames(ctx, units, net, names, lit, theme) {
  const small = `11px ${theme.font}`;
  for (const { layer, unit, x, y, r, step } of [...units[0], ...units[net.last]]) {
    const on = !lit || lit[layer][unit];
    const there = layer === net.last ? y - r - 13 : y + r + 13;
    const centred = (text, at, colour, font) => words(ctx, text, x, at, colour, font, "center", "middle", step - 2);
    centred(names[unit], there, on ? theme.ink : theme.muted, `600 12px ${theme.font}`);
    if (layer === 0) centred(ordinal(net.places[unit] + 1), there + 15, theme.muted, small);
  }
  units.forEach((layer, l) => {
    const name = l === 0 ? "inputs" : l === net.last ? "outputs" : `hidden ${l}`;
    words(ctx, name, 0, (layer[0].y + (layer[1] || layer[0]).y) / 2, theme.muted, small);
  });
  const first = units[0][0];
  const low = first.y + first.r + 28;
  words(ctx, "in the order", 0, low, theme.muted, `10px ${theme.font}`, "left", "middle", GUTTER - 2);
}

// The cells of the matrix with their numbers of paths, and the lines between them.
function drawCells(ctx, net, { x, y, cell, side }, arrangement, theme) {
  ctx.fillStyle = theme.plot;
  ctx.fillRect(x, y, side, side);
  arrangement.forEach((i, row) => arrangement.forEach((j, column) => {
    const count = net.paths[i][j];
    const leaks = net.places[j] >= net.places[i];
    const [left, top] = [x + column * cell, y + row * cell];
    if (!count && i !== j) return;
    ctx.fillStyle = count ? PALETTE[leaks ? "error" : "data"] : theme.fill;
    ctx.fillRect(left, top, cell, cell);
    if (!count || cell < 18) return;
    // Paths are many in a deep network: four digits no longer fit.
    const number = count > 999 ? "999+" : String(count);
    words(ctx, number, left + cell / 2, top + cell / 2 + 0.5, leaks ? "#000000" : "#ffffff",
      `600 10px ${theme.font}`, "center", "middle", cell - 3);
  }));
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  gridLines(ctx, { x, y, cell }, arrangement.length, arrangement.length);
}

function drawMatrix(ctx, net, matrix, arrangement, names, focus, theme) {
  const { x, y, cell, side } = matrix;
  const [middle, strong] = [x + side / 2, `600 12px ${theme.font}`];
  words(ctx, "Paths to output (row)", middle, y - 44, theme.ink, strong, "center");
  words(ctx, "from input (column)", middle, y - 29, theme.ink, strong, "center");
  words(ctx, "= the product of all masks", middle, y + side + 12, theme.muted, `11px ${theme.font}`, "center");
  drawCells(ctx, net, matrix, arrangement, theme);
  // The row and the column in question; a hidden unit has neither.
  const [layer, unit] = focus?.unit || [];
  const [output, input] = focus?.cell || [layer === net.last ? unit : null, layer === 0 ? unit : null];
  const name = (i, marked, at, align, most) => words(ctx, names[i], ...at, marked ? theme.ink : theme.muted,
    `${marked ? 700 : 400} 11px ${theme.font}`, align, "middle", most);
  arrangement.forEach((i, k) => {
    name(i, i === output, [x - 6, y + (k + 0.5) * cell], "right", LABEL);
    name(i, i === input, [x + (k + 0.5) * cell, y - 10], "center", cell - 2);
  });
  const [row, column] = [output, input].map((i) => arrangement.indexOf(i));
  if (Math.max(row, column) < 0) return;
  const [left, wide] = column < 0 ? [0, side] : [column * cell, cell];
  const [top, high] = row < 0 ? [0, side] : [row * cell, cell];
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 2;
  ctx.strokeRect(x + left, y + top, wide, high);
}

function drawPicture(ctx, state, selected, theme) {
  const { net, names, places: { units, matrix } } = state;
  const focus = state.focus();
  const lit = lights(net, focus);
  drawAllLines(ctx, net, units, focus, lit, theme);
  for (const one of units.flat()) {
    drawUnit(ctx, one, net, lit, selected[0] === one.layer && selected[1] === one.unit, theme);
  }
  drawNames(ctx, units, net, names, lit.lit, theme);
  drawMatrix(ctx, net, matrix, state.arrangement(), names, focus, theme);
  const dragged = state.dragged();
  if (!dragged) return;
  const { r } = units[0][dragged.unit];
  const [x, y] = dragged.place;
  dot(ctx, x, y, r + 2, PALETTE.data, PALETTE.data);
  words(ctx, names[dragged.unit], x, y + 0.5, "#ffffff", `600 11px ${theme.font}`, "center", "middle", 2 * r);
}

// ------------------------------------------------------------------------------- pointer and keys

const swapped = (order, a, b) => order.map((i) => (i === a ? b : i === b ? a : i));

// Whatever the pointer is over is shown; a click pins a unit, and an input is dragged onto another.
function pointOn(view, state, show) {
  const { model, canvas } = view;
  const { change } = state;
  const move = (place) => {
    const { grip } = state;
    if (!grip) return; // Escape has let go of it
    grip.place = place;
    grip.moved ||= Math.hypot(place[0] - grip.from[0], place[1] - grip.from[1]) > 4;
    if (state.dragged()) {
      const near = (u) => Math.abs(u.x - place[0]) <= u.step / 2 && Math.abs(u.y - place[1]) < 60;
      const target = state.places.units[0].find(near) || grip;
      change({ order: swapped(grip.order, grip.unit, target.unit) });
    }
    show();
  };
  drag(canvas, {
    focus: view.root,
    start: (place) => {
      state.hover = state.at(place);
      const [layer, unit] = state.hover?.unit || [];
      state.grip = { layer, unit, place, from: place, order: model.get("order"), moved: false };
      show();
      return move;
    },
    end: (place, { type, pointerType }) => {
      const { grip } = state;
      if (type !== "pointerup") letGo(state);
      if (!state.grip) return show();
      if (state.dragged()) state.send();
      state.grip = null;
      const found = state.at(place);
      // A finger that is gone points at nothing; of a cell it has tapped it wants to read.
      state.hover = pointerType === "mouse" || found?.cell ? found : null;
      if (!grip.moved && !found?.cell) {
        // A click pins a unit, a second one or one beside all units lets go.
        const { layer, unit } = grip;
        const again = layer === undefined || model.get("selected").join() === [layer, unit].join();
        change({ selected: again ? [] : [layer, unit] });
      }
      show();
    },
    hover: (place, { pointerType }) => {
      if (state.grip || pointerType === "touch") return;
      state.hover = state.at(place);
      canvas.style.cursor = !state.hover ? "" : state.hover.unit?.[0] === 0 ? "grab" : "pointer";
      show();
    },
    leave: ({ pointerType }) => {
      if (pointerType === "touch") return;
      state.hover = null;
      show();
    }
  });
}

// The order is what it was before the drag.
function letGo(state) {
  const dragged = state.dragged();
  state.grip = state.hover = null;
  if (dragged) state.change({ order: dragged.order });
}

function keysOf(view, state, show) {
  const { model } = view;
  const { widths, last, change } = state;
  const walk = (up, right) => {
    state.hover = null;
    if (!model.get("selected").length) {
      change({ selected: [last, state.net.order[Math.floor(widths[last] / 2)]] });
      return;
    }
    const [layer, unit] = model.get("selected");
    const next = clamp(layer + up, 0, last);
    // To the unit that stands nearest in the layer above or below.
    const share = (unit + 0.5) / widths[layer];
    const from = next === layer ? unit : Math.floor(share * widths[next]);
    change({ selected: [next, clamp(from + right, 0, widths[next] - 1)] });
  };
  const shift = (by) => {
    const [layer, unit] = model.get("selected");
    if (layer === undefined || layer % last) return;
    const other = state.net.order[state.net.places[unit] + by];
    if (other !== undefined) change({ order: swapped(model.get("order"), unit, other) });
  };
  onKeys(view, {
    ArrowUp: () => walk(1, 0), ArrowDown: () => walk(-1, 0),
    ArrowLeft: () => walk(0, -1), ArrowRight: () => walk(0, 1),
    "Shift+ArrowLeft": () => shift(-1), "Shift+ArrowRight": () => shift(1),
    Escape: () => {
      letGo(state);
      change({ selected: [] });
      show();
    }
  });
}

// ----------------------------------------------------------------------------------- the controls

function shuffled(order) {
  const mixed = [...order];
  for (let k = mixed.length - 1; k > 0; k--) {
    const other = Math.floor(Math.random() * (k + 1));
    [mixed[k], mixed[other]] = [mixed[other], mixed[k]];
  }
  return mixed;
}

// Returns `write`, which brings them up to date.
function controlsOf(view, state, show) {
  const { model, controls } = view;
  const { set, natural } = state;
  const orders = model.get("orders");
  const choose = (by) => () => {
    const chosen = (model.get("mask_set") + by + orders.length) % orders.length;
    set({ mask_set: chosen, order: orders[chosen] });
  };
  const which = element("span", { class: "mask-which" });
  const sets = group("Mask set",
    button("\u2039", choose(-1), { "aria-label": "Previous mask set" }), which,
    button("\u203a", choose(1), { "aria-label": "Next mask set" }));
  const loose = button("\u2264 instead of <", () => set({ strict: !model.get("strict") }), { class: "mask-wrong" });
  const arrangeBy = (inOrder) => () => {
    Object.assign(state, { inOrder, hover: null });
    show();
  };
  const ordered = button("In the order", arrangeBy(true));
  const byPosition = button("In x\u2019s own positions", arrangeBy(false));
  controls.classList.add("cw-row");
  controls.append(
    group("Order",
      button("Natural", () => set({ order: natural() })),
      button("Reversed", () => set({ order: natural().reverse() })),
      button("Shuffle", () => set({ order: shuffled(model.get("order")) }))),
    ...(orders.length > 1 ? [sets] : []),
    group("Outputs use", loose),
    group("Matrix", ordered, byPosition),
    button("Reset", () => set({ order: orders[model.get("mask_set")], strict: true, selected: [] })));
  return () => {
    which.textContent = `${model.get("mask_set") + 1} of ${orders.length}`;
    loose.setAttribute("aria-pressed", String(!model.get("strict")));
    ordered.setAttribute("aria-pressed", String(state.inOrder));
    byPosition.setAttribute("aria-pressed", String(!state.inOrder));
  };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const said = status();
  const draw = (ctx, { width }, theme) => {
    state.places = arrange(width, state.widths);
    drawPicture(ctx, state, model.get("selected"), theme);
  };
  const longest = longestSentence(model);
  const layout = (width) => {
    keepRoom(said, longest);
    return arrange(width, state.widths).height;
  };
  const view = outline({ model, el, style: STYLE, draw, layout, maxWidth: 920 });
  said.classList.add("mask-words");
  view.controls.before(said);
  view.root.append(hint(
    "Point at a unit, or use the arrow keys; a click pins it, Esc lets go. Drag an input onto another to " +
    "swap their places, or move a pinned one through the order with Shift + \u2190 \u2192."));
  const write = controlsOf(view, state, show);
  pointOn(view, state, show);
  keysOf(view, state, show);

  function show() {
    const net = state.update();
    const [focus, strict] = [state.focus(), model.get("strict")];
    said.tell(sentence(net, focus, state.names, strict), Boolean(lights(net, focus).leak || (!focus && !strict)));
    write();
    view.redraw();
  }
  view.follow(["order", "mask_set", "strict", "selected"], show);
  view.onStop(state.send);
  show();
  return view.stop;
}

export default { render };

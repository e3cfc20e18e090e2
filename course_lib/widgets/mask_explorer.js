// MaskExplorer: MADE's masks as a graph; multiply them and see what each output depends on.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
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
  return { order, places, masks, fromInputs, toOutputs, paths: fromInputs.at(-1), last: masks.length };
}

// The units on paths that end in a unit, [layer][unit], and those on paths that start in it.
function below(net, layer, unit) {
  const lit = net.fromInputs.map((units, l) => units.map((_, u) => l === layer && u === unit));
  for (let l = layer; l > 0; l--) {
    net.masks[l - 1].forEach((row, a) => row.forEach((on, b) => (lit[l - 1][b] ||= Boolean(on && lit[l][a]))));
  }
  return lit;
}

function above(net, layer, unit) {
  const lit = net.fromInputs.map((units, l) => units.map((_, u) => l === layer && u === unit));
  for (let l = layer; l < net.last; l++) {
    net.masks[l].forEach((row, a) => row.forEach((on, b) => (lit[l + 1][a] ||= Boolean(on && lit[l][b]))));
  }
  return lit;
}

const both = (a, b) => a.map((units, l) => units.map((on, u) => on && b[l][u]));

// What lights up: the units on the paths in question, and those on paths that leak, where i sees i.
function lights(net, focus) {
  if (!focus) return { lit: null, leak: null };
  const leakOf = (i) => (net.paths[i][i] ? both(below(net, net.last, i), above(net, 0, i)) : null);
  if (focus.cell) {
    const [i, j] = focus.cell;
    const lit = both(below(net, net.last, i), above(net, 0, j));
    return { lit, leak: i === j ? leakOf(i) : null };
  }
  const [layer, unit] = focus.unit;
  const lit = layer === 0 ? above(net, layer, unit) : below(net, layer, unit);
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
    if (!count && earlier) return `${start}, although ${names[j]} comes earlier: the hidden layers are too narrow for it.`;
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
  const degree = focus.degree;
  const seen = order.filter((j) => net.fromInputs[layer][unit][j]);
  return `Hidden unit ${unit + 1} of layer ${layer} (degree ${degree}) sees ` +
    `${seen.length ? list(seen) : "no input"}: of degree at most ${degree}. It reaches ${outputs}.`;
}

// --------------------------------------------------------------------------------------- the look

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
  const pitch = rows > 4 ? 76 : 96;
  const matrixHeight = side + 58 + 18;
  const graphHeight = 34 + (rows - 1) * pitch + 52;
  const spread = wide ? Math.max(0, Math.min(matrixHeight - graphHeight, 24 * (rows - 1))) : 0;
  const units = widths.map((count, layer) => {
    const step = (across - GUTTER - 4) / count;
    // Units of a wide layer stand in a zigzag, so that there is room for their numbers.
    const zigzag = step < 25;
    const r = zigzag ? Math.max(8, Math.min(11, 0.58 * step)) : Math.min(14, 0.42 * step);
    const y = 34 + (rows - 1 - layer) * (pitch + spread / (rows - 1));
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

function segments(ctx, net, units, wanted) {
  ctx.beginPath();
  net.masks.forEach((mask, l) => mask.forEach((row, a) => row.forEach((on, b) => {
    if (!on || !wanted(l, a, b)) return;
    const [from, to] = [units[l][b], units[l + 1][a]];
    ctx.moveTo(from.x, from.y - from.r);
    ctx.lineTo(to.x, to.y + to.r);
  })));
  ctx.stroke();
}

function text(ctx, words, x, y, colour, font, room) {
  ctx.fillStyle = colour;
  ctx.font = font;
  ctx.fillText(words, x, y, room);
}

function drawMatrix(ctx, net, { x, y, cell, side }, arrangement, names, focus, theme) {
  const n = arrangement.length;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  text(ctx, "Paths to output (row)", x + side / 2, y - 44, theme.ink, `600 12px ${theme.font}`);
  text(ctx, "from input (column)", x + side / 2, y - 29, theme.ink, `600 12px ${theme.font}`);
  text(ctx, "= the product of all masks", x + side / 2, y + side + 12, theme.muted, `11px ${theme.font}`);
  ctx.fillStyle = theme.plot;
  ctx.fillRect(x, y, side, side);
  const [layer, unit] = focus?.unit || [];
  arrangement.forEach((i, row) => {
    const marked = focus && (focus.cell ? focus.cell[0] === i : layer === net.last && unit === i);
    ctx.textAlign = "right";
    text(ctx, names[i], x - 6, y + (row + 0.5) * cell, marked ? theme.ink : theme.muted,
      `${marked ? "700" : "400"} 11px ${theme.font}`, LABEL);
    ctx.textAlign = "center";
    arrangement.forEach((j, column) => {
      const count = net.paths[i][j];
      const [left, top] = [x + column * cell, y + row * cell];
      if (count) {
        ctx.fillStyle = PALETTE[net.places[j] >= net.places[i] ? "error" : "data"];
        ctx.fillRect(left, top, cell, cell);
        // Paths are many in a deep network: four digits no longer fit.
        if (cell >= 18) {
          text(ctx, count > 999 ? "999+" : String(count), left + cell / 2, top + cell / 2 + 0.5, "#ffffff",
            `600 10px ${theme.font}`, cell - 3);
        }
      } else if (i === j) {
        ctx.fillStyle = theme.fill;
        ctx.fillRect(left, top, cell, cell);
      }
    });
  });
  arrangement.forEach((j, column) => {
    const marked = focus && (focus.cell ? focus.cell[1] === j : layer === 0 && unit === j);
    text(ctx, names[j], x + (column + 0.5) * cell, y - 10, marked ? theme.ink : theme.muted,
      `${marked ? "700" : "400"} 11px ${theme.font}`, cell - 2);
  });
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let k = 0; k <= n; k++) {
    ctx.moveTo(x, y + k * cell + 0.5);
    ctx.lineTo(x + side, y + k * cell + 0.5);
    ctx.moveTo(x + k * cell + 0.5, y);
    ctx.lineTo(x + k * cell + 0.5, y + side);
  }
  ctx.stroke();
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 2;
  if (focus?.cell) {
    const [row, column] = focus.cell.map((i) => arrangement.indexOf(i));
    ctx.strokeRect(x + column * cell, y + row * cell, cell, cell);
  } else if (focus && layer === net.last) {
    ctx.strokeRect(x, y + arrangement.indexOf(unit) * cell, side, cell);
  } else if (focus && layer === 0) {
    ctx.strokeRect(x + arrangement.indexOf(unit) * cell, y, cell, side);
  }
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const names = model.get("input_names");
  const n = names.length;
  const hidden = () => model.get("hidden")[model.get("mask_set")];
  const widths = [n, ...hidden().map((layer) => layer.length), n];
  const last = widths.length - 1;
  let net = null;
  let hover = null; // the unit or the cell under the pointer
  let grip = null; // the unit under the pressed pointer
  let inOrder = true; // how the matrix is arranged
  let places = null; // of everything on the screen, as last drawn

  const { change, send } = throttledChanges(model);

  const degreeOf = (layer, unit) => (layer % last === 0 ? net.places[unit] : hidden()[layer - 1][unit]);
  const dragging = () => grip?.moved && grip.layer === 0;
  const focused = () => {
    if (dragging()) return { unit: [0, grip.unit] };
    if (hover) return hover;
    const selected = model.get("selected");
    return selected.length ? { unit: selected } : null;
  };

  // ------------------------------------------------------------------------------------- drawing

  const drawUnit = (ctx, { layer, unit, x, y, r }, lit, leak, pinned, theme) => {
    const role = PALETTE[layer === 0 ? "data" : layer === last ? "model" : "latent"];
    const bad = leak?.[layer][unit];
    const on = !lit || lit[layer][unit];
    const colour = bad ? PALETTE.error : on ? role : theme.line;
    ctx.beginPath();
    ctx.arc(x, y, r, 0, 2 * Math.PI);
    ctx.fillStyle = theme.plot;
    ctx.fill();
    if (lit && on) {
      ctx.globalAlpha = 0.22;
      ctx.fillStyle = colour;
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    ctx.strokeStyle = colour;
    ctx.lineWidth = lit && on ? 2.5 : 2;
    ctx.stroke();
    if (pinned) {
      ctx.beginPath();
      ctx.arc(x, y, r + 3.5, 0, 2 * Math.PI);
      ctx.strokeStyle = theme.accent;
      ctx.lineWidth = 2;
      ctx.stroke();
    }
    ctx.textAlign = "center";
    text(ctx, String(degreeOf(layer, unit)), x, y + 0.5, on ? theme.ink : theme.muted,
      `${lit && on ? "600 " : ""}${r < 10 ? 10 : 11.5}px ${theme.font}`);
  };

  const draw = (ctx, { width }, theme) => {
    places = arrange(width, widths);
    const { units, matrix } = places;
    const focus = focused();
    const { lit, leak } = lights(net, focus);
    const inPaths = (on) => (l, a, b) => on[l][b] && on[l + 1][a];
    ctx.lineWidth = 1;
    ctx.strokeStyle = theme.dark ? "#5d646d" : "#b9c0c8";
    // The more lines there are, the fainter is each of them.
    const lines = net.masks.flat(2).reduce((sum, on) => sum + on, 0);
    ctx.globalAlpha = (lit ? 0.4 : 1) * Math.max(0.4, Math.min(1, 300 / lines));
    segments(ctx, net, units, () => true);
    ctx.globalAlpha = 1;
    if (lit) {
      ctx.lineWidth = 1.7;
      ctx.strokeStyle = PALETTE[focus.unit?.[0] === 0 ? "data" : "model"];
      segments(ctx, net, units, inPaths(lit));
    }
    if (leak) {
      ctx.lineWidth = 2.6;
      ctx.strokeStyle = PALETTE.error;
      segments(ctx, net, units, inPaths(leak));
    }
    ctx.textBaseline = "middle";
    const selected = model.get("selected");
    for (const unit of units.flat()) {
      const pinned = selected[0] === unit.layer && selected[1] === unit.unit;
      drawUnit(ctx, unit, lit, leak, pinned, theme);
    }
    for (const { layer, unit, x, y, r, step } of [...units[0], ...units[last]]) {
      const on = !lit || lit[layer][unit];
      const up = layer === last ? -r - 13 : r + 13;
      text(ctx, names[unit], x, y + up, on ? theme.ink : theme.muted, `600 12px ${theme.font}`, step - 2);
      if (layer === 0) {
        text(ctx, ordinal(net.places[unit] + 1), x, y + up + 15, theme.muted, `11px ${theme.font}`, step - 2);
      }
    }
    ctx.textAlign = "left";
    units.forEach((layer, l) => {
      const name = l === 0 ? "inputs" : l === last ? "outputs" : `hidden ${l}`;
      const y = (layer[0].y + (layer[1] || layer[0]).y) / 2;
      text(ctx, name, 0, y, theme.muted, `11px ${theme.font}`);
    });
    const first = units[0][0];
    text(ctx, "in the order", 0, first.y + first.r + 28, theme.muted, `10px ${theme.font}`, GUTTER - 2);
    drawMatrix(ctx, net, matrix, inOrder ? net.order : names.map((_, i) => i), names, focus, theme);
    if (dragging()) drawDragged(ctx, units[0][grip.unit], theme);
  };

  function drawDragged(ctx, { r }, theme) {
    ctx.globalAlpha = 0.9;
    ctx.beginPath();
    ctx.arc(grip.x, grip.y, r + 2, 0, 2 * Math.PI);
    ctx.fillStyle = PALETTE.data;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.textAlign = "center";
    text(ctx, names[grip.unit], grip.x, grip.y + 0.5, "#ffffff", `600 11px ${theme.font}`, 2 * r);
  }

  const view = outline({
    model, el, style: STYLE, draw, maxWidth: 920, layout: (width) => arrange(width, widths).height
  });
  view.canvas.style.touchAction = "pan-y"; // inputs are dragged sideways

  // ------------------------------------------------------------------------------------ the pointer

  const swapped = (order, a, b) => order.map((i) => (i === a ? b : i === b ? a : i));
  const at = (event) => {
    const box = view.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hit = ([x, y]) => {
    if (!places) return null;
    const unit = places.units.flat().find((u) => Math.hypot(u.x - x, u.y - y) <= u.r + 3);
    if (unit) return { unit: [unit.layer, unit.unit] };
    const { matrix } = places;
    const [column, row] = [x - matrix.x, y - matrix.y].map((v) => Math.floor(v / matrix.cell));
    if (Math.min(row, column) < 0 || Math.max(row, column) >= n) return null;
    const arrangement = inOrder ? net.order : names.map((_, i) => i);
    return { cell: [arrangement[row], arrangement[column]] };
  };
  view.canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    view.root.focus({ preventScroll: true });
    const [x, y] = at(event);
    hover = hit([x, y]);
    const [layer, unit] = hover?.unit || [];
    grip = { layer, unit, x, y, from: [x, y], order: model.get("order"), moved: false };
    view.canvas.setPointerCapture(event.pointerId);
    show();
  });
  view.canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (grip) {
      Object.assign(grip, { x, y });
      grip.moved ||= Math.hypot(x - grip.from[0], y - grip.from[1]) > 4;
    }
    if (dragging()) {
      const near = (u) => Math.abs(u.x - x) <= u.step / 2 && Math.abs(u.y - y) < 60;
      const target = places.units[0].find(near) || grip;
      change({ order: swapped(grip.order, grip.unit, target.unit) });
    } else if (!grip) {
      hover = hit([x, y]);
    }
    view.canvas.style.cursor = !hover ? "" : hover.unit?.[0] === 0 ? "grab" : "pointer";
    show();
  });
  view.canvas.addEventListener("pointerup", (event) => {
    if (!grip) return;
    const { layer, unit, moved } = grip;
    if (dragging()) send();
    grip = null;
    const cell = hit(at(event))?.cell;
    // A finger that is gone points at nothing; of a cell it has tapped it wants to read.
    hover = event.pointerType === "mouse" || cell ? hit(at(event)) : null;
    if (!moved && !cell) {
      // A click pins a unit, a second one or one beside all units lets go.
      const selected = model.get("selected");
      const again = layer === undefined || (selected[0] === layer && selected[1] === unit);
      change({ selected: again ? [] : [layer, unit] });
    }
    show();
  });
  view.canvas.addEventListener("pointercancel", () => {
    if (dragging()) change({ order: grip.order });
    grip = hover = null;
    show();
  });
  view.canvas.addEventListener("pointerleave", () => {
    hover = null;
    show();
  });

  // --------------------------------------------------------------------------------------- the keys

  const walk = (up, right) => {
    const selected = model.get("selected");
    hover = null;
    if (!selected.length) {
      change({ selected: [last, net.order[Math.floor(n / 2)]] });
      return;
    }
    const [layer, unit] = selected;
    const next = Math.max(0, Math.min(last, layer + up));
    // To the unit that stands nearest in the layer above or below.
    const share = (unit + 0.5) / widths[layer];
    const from = next === layer ? unit : Math.floor(share * widths[next]);
    change({ selected: [next, Math.max(0, Math.min(widths[next] - 1, from + right))] });
  };
  const shift = (by) => {
    const [layer, unit] = model.get("selected");
    if (layer === undefined || layer % last) return;
    const other = net.order[net.places[unit] + by];
    if (other !== undefined) change({ order: swapped(model.get("order"), unit, other) });
  };
  onKeys(view, {
    ArrowUp: () => walk(1, 0),
    ArrowDown: () => walk(-1, 0),
    ArrowLeft: (event) => (event.shiftKey ? shift(-1) : walk(0, -1)),
    ArrowRight: (event) => (event.shiftKey ? shift(1) : walk(0, 1)),
    Escape: () => {
      if (dragging()) change({ order: grip.order });
      grip = hover = null;
      change({ selected: [] });
      show();
    }
  });

  // ----------------------------------------------------------------------------- words and controls

  const words = element("p", { class: "mask-words", role: "status" });
  const hint = element("p", { class: "mask-hint" },
    "Point at a unit, or use the arrow keys; a click pins it, Esc lets go. Drag an input onto another to " +
    "swap their places, or move a pinned one through the order with Shift + \u2190 \u2192.");
  view.root.insertBefore(words, view.controls);
  view.root.append(hint);
  view.controls.classList.add("mask-controls");

  const tool = (label, onClick, attributes = {}) => {
    const node = element("button", { type: "button", ...attributes }, label);
    node.addEventListener("click", onClick);
    return node;
  };
  const group = (label, ...tools) => {
    const node = element("div", { class: "mask-group", role: "group", "aria-label": label },
      element("span", {}, label), ...tools);
    view.controls.append(node);
    return node;
  };
  const setOrder = (order) => () => {
    change({ order: order(model.get("order")) });
    send();
  };
  const shuffled = (order) => {
    const mixed = [...order];
    for (let k = n - 1; k > 0; k--) {
      const other = Math.floor(Math.random() * (k + 1));
      [mixed[k], mixed[other]] = [mixed[other], mixed[k]];
    }
    return mixed;
  };
  const natural = () => names.map((_, i) => i);
  group("Order",
    tool("Natural", setOrder(natural)),
    tool("Reversed", setOrder(() => natural().reverse())),
    tool("Shuffle", setOrder(shuffled)));

  const count = model.get("hidden").length;
  const which = element("span", { class: "mask-which" });
  const choose = (by) => () => {
    const chosen = (model.get("mask_set") + by + count) % count;
    change({ mask_set: chosen, order: model.get("orders")[chosen] });
    send();
  };
  if (count > 1) {
    const back = tool("\u2039", choose(-1), { "aria-label": "Previous mask set" });
    const forward = tool("\u203a", choose(1), { "aria-label": "Next mask set" });
    group("Mask set", back, which, forward);
  }

  const loose = tool("\u2264 instead of <", () => {
    change({ strict: !model.get("strict") });
    send();
  }, { class: "mask-wrong" });
  group("Outputs use", loose);
  const arrangeBy = (ordered) => () => {
    inOrder = ordered;
    hover = null;
    show();
  };
  const ordered = tool("In the order", arrangeBy(true));
  const byPosition = tool("In x\u2019s own positions", arrangeBy(false));
  group("Matrix", ordered, byPosition);
  const reset = tool("Reset", () => {
    change({ order: model.get("orders")[model.get("mask_set")], strict: true, selected: [] });
    send();
  }, { class: "mask-reset" });
  view.controls.append(reset);

  function show() {
    net = network(model.get("order"), hidden(), model.get("strict"));
    const focus = focused();
    if (focus?.unit) focus.degree = degreeOf(...focus.unit);
    const said = sentence(net, focus, names, model.get("strict"));
    if (words.textContent !== said) words.textContent = said;
    const { leak } = lights(net, focus);
    words.classList.toggle("mask-leak", Boolean(leak || (!focus && !model.get("strict"))));
    which.textContent = `${model.get("mask_set") + 1} of ${count}`;
    loose.setAttribute("aria-pressed", String(!model.get("strict")));
    ordered.setAttribute("aria-pressed", String(inOrder));
    byPosition.setAttribute("aria-pressed", String(!inOrder));
    view.redraw();
  }

  view.follow(["order", "mask_set", "strict", "selected"], show);
  view.onStop(send);
  show();
  return view.stop;
}

export default { render };

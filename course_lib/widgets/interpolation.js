// Interpolation: drag w between two latents, along several ways at once, and see image and length.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { paintGrey } from "./parts/pixels.js";

// Of the ways in their order; interpolation.py has the same.
const ROLES = ["latent", "error", "data", "model"];
const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];

const LEFT = 46; // pixels for the numbers beside the plot
const RIGHT = 6;
const NAME = 22; // above each strip
const PLOT = 124;

const STYLE = `
.between-large { display: flex; gap: 14px; padding: 2px 2px 4px ${LEFT}px; }
.between-large.narrow { padding-left: 2px; gap: 10px; }
.between-large figure { margin: 0; min-width: 0; }
.between-large canvas { display: block; image-rendering: pixelated; border-radius: 2px; }
.between-large figcaption { margin-top: 5px; line-height: 17px; overflow-wrap: anywhere; }
.between-name { display: block; font-weight: 600; }
.between-fine { display: block; color: var(--cw-muted); font-size: 12px; font-variant-numeric: tabular-nums; }
.between-widget .cw-stage canvas { cursor: ew-resize; }
.between-handle {
  position: absolute; width: 24px; height: 24px; margin: -12px 0 0 -12px; border-radius: 50%; pointer-events: none;
}
.between-handle::after {
  content: ""; position: absolute; inset: 4px; border-radius: 50%;
  background: var(--cw-ink); border: 2px solid var(--cw-plot); box-shadow: 0 0 0 1px var(--cw-ink);
}
.between-handle:focus { outline: none; }
.between-handle:focus-visible { outline: 2px solid var(--cw-accent); outline-offset: 3px; }
.course-widget .between-pairs { flex-wrap: wrap; gap: 8px; padding-left: 2px; }
.between-pairs button { height: auto; padding: 3px; gap: 5px; border-radius: 4px; color: var(--cw-muted); box-shadow: 0 0 0 1px var(--cw-line); }
.between-pairs button[aria-pressed="true"] { box-shadow: 0 0 0 2px var(--cw-accent); }
.between-pairs canvas { display: block; image-rendering: pixelated; }
.between-hint { margin: 8px 2px 0; color: var(--cw-muted); font-size: 12px; }
`;

// In whole screen pixels for each of its own, and at least one.
const wholePixels = (most, pixels) => `${Math.max(1, Math.floor(most / pixels)) * pixels}px`;

function render({ model, el }) {
  const { images, norms } = unpack(model);
  const [ways, pairs, count, height, width] = images.shape;
  const names = model.get("names");
  const typical = model.get("typical");
  const size = height * width;
  const imageAt = (way, pair, k) => images.values.subarray(((way * pairs + pair) * count + k) * size).subarray(0, size);
  const normAt = (way, pair, k) => norms.values[(way * pairs + pair) * count + k];
  const position = () => Math.round(model.get("w") * (count - 1));

  // The plot has room for all pairs, so that its numbers stay where they are.
  const all = [...norms.values, ...typical];
  const [lowest, highest] = [Math.min(...all), Math.max(...all)];
  const margin = 0.1 * (highest - lowest || 1);
  const half = 0.5 / (count - 1); // of what one image covers on the axis of w
  const extent = [-half, 1 + half, lowest - margin, highest + margin];

  // --------------------------------------------------------------------------- strips and lengths

  let cell = { width: 0, height: 0 };
  let box = { x: LEFT, y: 0, width: 0, height: PLOT };
  const layout = (whole) => {
    const inner = whole - LEFT - RIGHT;
    cell = { width: inner / count, height: Math.min((inner / count) * (height / width), 90) };
    box = { x: LEFT, y: Math.round(ways * (NAME + cell.height) + 14), width: inner, height: PLOT };
    return box.y + PLOT + 38;
  };

  // All images of the pair side by side, a sheet for each way.
  const sheets = names.map(() => element("canvas", { width: count * width, height }));
  let painted = -1;
  const paintSheets = (pair) => {
    if (painted === pair) return;
    painted = pair;
    const one = element("canvas", { width, height });
    sheets.forEach((sheet, way) => {
      for (let k = 0; k < count; k++) {
        paintGrey(one, imageAt(way, pair, k));
        sheet.getContext("2d").drawImage(one, k * width, 0);
      }
    });
  };

  // In the colour and with the dashes of a way.
  const drawLine = (ctx, way, places) => {
    ctx.strokeStyle = PALETTE[ROLES[way]];
    ctx.lineWidth = 2;
    ctx.setLineDash(DASHES[way]);
    ctx.beginPath();
    for (const place of places) ctx.lineTo(...place);
    ctx.stroke();
    ctx.setLineDash([]);
  };

  const drawStrip = (ctx, way, k, ratio, theme) => {
    const y = Math.round(way * (NAME + cell.height) + NAME);
    ctx.font = `600 12px ${theme.font}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.fillStyle = theme.ink;
    ctx.fillText(names[way], LEFT + 34, y - 7);
    drawLine(ctx, way, [[LEFT, y - 11], [LEFT + 28, y - 11]]);
    ctx.imageSmoothingEnabled = cell.width * ratio < width; // made smaller, pixels are mixed
    ctx.imageSmoothingQuality = "high";
    const edge = (j) => Math.round(box.x + j * cell.width);
    const high = Math.round(cell.height);
    for (let j = 0; j < count; j++) {
      ctx.drawImage(sheets[way], j * width, 0, width, height, edge(j), y, edge(j + 1) - edge(j) - 2, high);
    }
    for (const [colour, line] of [[theme.plot, 5], [PALETTE[ROLES[way]], 3]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = line;
      ctx.strokeRect(edge(k) - 0.5, y - 0.5, edge(k + 1) - edge(k) - 1, high + 1);
    }
  };

  const drawLengths = (ctx, pair, k, theme) => {
    const map = plane(extent, box);
    drawPlane(ctx, box, theme);
    if (typical.length) {
      const [low, high] = typical;
      ctx.fillStyle = PALETTE.noise;
      ctx.globalAlpha = 0.28;
      ctx.fillRect(box.x, map.y(high), box.width, map.y(low) - map.y(high));
      ctx.globalAlpha = 1;
    }
    const x = Math.round(map.x(k / (count - 1))) + 0.5;
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(x, box.y);
    ctx.lineTo(x, box.y + box.height);
    ctx.stroke();
    ctx.lineJoin = "round";
    for (let way = 0; way < ways; way++) {
      const places = Array.from({ length: count }, (_, j) => [map.x(j / (count - 1)), map.y(normAt(way, pair, j))]);
      drawLine(ctx, way, places);
      ctx.fillStyle = PALETTE[ROLES[way]];
      places.forEach(([px, py], j) => {
        ctx.beginPath();
        ctx.arc(px, py, j === k ? 5 : 2.2, 0, 2 * Math.PI);
        ctx.fill();
      });
    }
    drawAxes(ctx, extent, box, theme);
    ctx.fillStyle = theme.muted;
    ctx.font = `12px ${theme.font}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "alphabetic";
    ctx.fillText("w", box.x + box.width / 2, box.y + box.height + 33);
    ctx.save();
    ctx.translate(11, box.y + box.height / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(model.get("norm_label"), 0, 0, box.height + 20);
    ctx.restore();
    handle.style.left = `${x}px`;
    handle.style.top = `${box.y}px`;
  };

  const draw = (ctx, { ratio }, theme) => {
    const [pair, k] = [model.get("pair"), position()];
    paintSheets(pair);
    for (let way = 0; way < ways; way++) drawStrip(ctx, way, k, ratio, theme);
    drawLengths(ctx, pair, k, theme);
  };

  const view = outline({ model, el, layout, draw });
  view.root.classList.add("between-widget");
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------------ pointer and keys

  const handle = element("div", {
    class: "between-handle", role: "slider", tabindex: "0", "aria-label": "w", "aria-valuemin": "0", "aria-valuemax": "1"
  });
  view.stage.append(handle);
  const { change, send } = throttledChanges(model);
  view.onStop(send);
  const goTo = (k) => change({ w: Math.max(0, Math.min(k, count - 1)) / (count - 1) });
  const choose = (pair) => change({ pair: (pair + pairs) % pairs });

  const point = ([x]) => goTo(Math.floor((x - box.x) / cell.width));
  drag(view.canvas, {
    focus: handle, end: send,
    start: (place) => {
      point(place);
      return point;
    }
  });
  onKeys(view, {
    ArrowLeft: () => goTo(position() - 1),
    ArrowRight: () => goTo(position() + 1),
    ArrowUp: () => choose(model.get("pair") - 1),
    ArrowDown: () => choose(model.get("pair") + 1),
    Home: () => goTo(0),
    End: () => goTo(count - 1)
  });

  // ------------------------------------------------------------------------------ around the picture

  const picture = (more = {}) => element("canvas", { width, height, ...more });
  const large = names.map((name, way) => {
    const canvas = picture({ role: "img" });
    canvas.style.boxShadow = `0 0 0 2px ${PALETTE[ROLES[way]]}`;
    const words = [element("span", { class: "between-fine" }), element("span", { class: "between-fine" })];
    const caption = element("figcaption", {}, element("span", { class: "between-name" }, name), ...words);
    return { canvas, words, node: element("figure", {}, canvas, caption) };
  });
  const row = element("div", { class: "between-large" }, ...large.map(({ node }) => node));
  view.stage.before(row);
  const arrange = new ResizeObserver(() => {
    const narrow = row.clientWidth < 440;
    row.classList.toggle("narrow", narrow);
    const most = Math.min((row.clientWidth - (narrow ? 4 : LEFT + 2) - 14 * (ways - 1)) / ways, 200);
    for (const { canvas, node } of large) {
      canvas.style.width = wholePixels(most, width);
      node.style.width = `${most}px`;
    }
  });
  arrange.observe(row);
  view.onStop(() => arrange.disconnect());

  const buttons = Array.from({ length: pairs }, (_, pair) => {
    const ends = [0, count - 1].map((k) => {
      const end = picture({ "aria-hidden": "true" });
      end.style.width = wholePixels(30, width);
      paintGrey(end, imageAt(0, pair, k));
      return end;
    });
    const name = `Pair ${pair + 1}`;
    const node = element("button", { type: "button", "aria-label": name, title: name }, ends[0], "\u2192", ends[1]);
    node.addEventListener("click", () => {
      choose(pair);
      send();
    });
    return node;
  });
  view.controls.classList.add("between-pairs");
  if (pairs > 1) view.controls.append(...buttons);
  view.root.append(element("p", { class: "between-hint" },
    `${typical.length ? "The grey band holds the lengths that noise has. " : ""}Drag across the strips or the plot.` +
    ` Keys: \u2190 \u2192 move w${pairs > 1 ? ", \u2191 \u2193 change the pair" : ""}.`));

  const written = (value) => value.toFixed(2).replace("-", "\u2212");
  const judged = (norm) => {
    if (!typical.length) return "";
    return norm < typical[0] ? "too short" : norm > typical[1] ? "too long" : "typical";
  };
  const show = () => {
    const [pair, k] = [model.get("pair"), position()];
    const w = `w = ${written(k / (count - 1))}`;
    view.note.textContent = w;
    large.forEach(({ canvas, words }, way) => {
      const norm = normAt(way, pair, k);
      paintGrey(canvas, imageAt(way, pair, k));
      words[0].textContent = `length ${written(norm)}`;
      words[1].textContent = judged(norm);
      canvas.setAttribute("aria-label", `${names[way]} at ${w}, pair ${pair + 1}`);
    });
    const lengths = names.map((name, way) => `${name} ${written(normAt(way, pair, k))}`);
    handle.setAttribute("aria-valuenow", String(model.get("w")));
    handle.setAttribute("aria-valuetext", `${w}: ${lengths.join(", ")}`);
    buttons.forEach((node, i) => node.setAttribute("aria-pressed", String(i === pair)));
    view.redraw();
  };
  view.follow(["w", "pair"], show);
  show();
  return view.stop;
}

export default { render };

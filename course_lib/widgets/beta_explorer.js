// BetaExplorer: one slider over models that differ in β; their plane, their images and their costs.

import { drawAxes, drawDigits, drawPlane, plane } from "./parts/axes.js";
import { CLASS_COLOURS, PALETTE } from "./parts/colours.js";
import { tidy, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { element, outline } from "./parts/outline.js";
import { words } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./beta_explorer.css" with { type: "css" };

// What each row of the costs says, from β, rate and distortion.
const COSTS = [
  ["rate R, what z costs", (beta, rate) => rate],
  ["distortion D", (beta, rate, distortion) => distortion],
  ["R + D = \u2212ELBO", (beta, rate, distortion) => rate + distortion],
  ["D + \u03b2R, the loss", (beta, rate, distortion) => distortion + beta * rate]
];

const nats = (value) => `${value.toFixed(1).replace("-", "\u2212")} nats`;

// Where everything stands. `k` test images stand side by side, the samples below them.
function stands(width, [rows, columns], k, samples) {
  const beside = width >= 560;
  const gap = 22;
  const half = beside ? (width - gap) / 2 : width;
  const [head, left, foot, table] = [40, 34, 26, 84];
  const side = Math.floor(Math.min(half - left - 8, 380));
  const plot = { x: left, y: head, width: side, height: side };
  const below = head + side + foot;
  const curve = {
    x: (beside ? half + gap : 0) + 52, y: beside ? head : below + head, width: half - 54,
    height: beside ? side - table - 14 : 190
  };
  const costs = { x: curve.x, y: curve.y + curve.height + 46, width: curve.width };
  const room = (width + 4) / k - 4;
  const whole = Math.floor(Math.min(room, 60) / columns);
  const cell = whole >= 1 ? whole : room / columns; // all pixels equally large, where they can be
  const tile = { width: cell * columns, height: cell * rows, smooth: whole < 1 };
  const top = (beside ? below : costs.y + table) + 12;
  const images = { x: 0, y: top + 20 };
  const drawn = { x: 0, y: images.y + 2 * (tile.height + 4) + 28 };
  const total = drawn.y + Math.ceil(samples / k) * (tile.height + 4);
  return { plot, curve, costs, tile, images, drawn, total };
}

function render({ model, el }) {
  const arrays = unpack(model);
  const [, n] = arrays.means.shape;
  const [k, rows, columns] = arrays.originals.shape;
  const samples = arrays.samples.shape[1];
  const size = rows * columns;
  const [betas, rates, distortions, extents] =
    ["betas", "rates", "distortions", "extents"].map((name) => model.get(name));
  const clock = clockOf(model);
  // The coordinates of two models have nothing to do with each other: nothing lies between them.
  clock.shown = () => Math.floor(clock.step + 1e-6);
  clock.back = () => clock.seek(clock.shown() - 1);
  const shown = () => Math.max(0, Math.min(betas.length - 1, clock.shown()));
  let at = null; // where everything stands, as last laid out

  // ------------------------------------------------------------------------------------- the plane

  const drawPosteriors = (ctx, index, theme) => {
    const box = at.plot;
    const extent = model.get("fit") ? extents[index] : Math.max(...extents);
    const range = [-extent, extent, -extent, extent];
    const to = plane(range, box);
    const unit = box.width / (2 * extent);
    const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    const places = [];
    const labels = [...arrays.classes.values];
    ctx.lineWidth = 1;
    for (let i = 0; i < n; i++) {
      const from = 2 * (index * n + i);
      const [x, y] = [to.x(arrays.means.values[from]), to.y(arrays.means.values[from + 1])];
      const [across, up] = arrays.stds.values.subarray(from, from + 2);
      ctx.beginPath();
      ctx.ellipse(x, y, across * unit, up * unit, 0, 0, 2 * Math.PI);
      ctx.fillStyle = ctx.strokeStyle = colours[labels[i]];
      ctx.globalAlpha = 0.05;
      ctx.fill();
      ctx.globalAlpha = 0.3;
      ctx.stroke();
      places.push([x, y]);
    }
    ctx.globalAlpha = 1;
    drawDigits(ctx, places, labels, theme);
    ctx.setLineDash([6, 4]);
    for (const [colour, width] of [[theme.plot, 4], [theme.ink, 1.75]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = width;
      ctx.beginPath();
      ctx.arc(to.x(0), to.y(0), unit, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.restore();
    drawAxes(ctx, range, box, theme);
    words(ctx, "q(z | x): mean and one \u03c3", box.x, 8, theme.ink, `600 13px ${theme.font}`);
    words(ctx, "dashed: one \u03c3 of the prior", box.x, 26, theme.muted, `12px ${theme.font}`);
  };

  // ------------------------------------------------------------------------------------- the curve

  const margin = (values, share) => share * (Math.max(...values) - Math.min(...values)) || 1;
  const [wide, high] = [margin(rates, 0.12), margin(distortions, 0.15)];
  const limits = [
    Math.min(...rates) - 0.6 * wide, Math.max(...rates) + wide,
    Math.min(...distortions) - high, Math.max(...distortions) + high
  ];
  const spots = () => {
    const to = plane(limits, at.curve);
    return rates.map((rate, i) => [to.x(rate), to.y(distortions[i])]);
  };
  const drawCurve = (ctx, index, theme) => {
    const box = at.curve;
    const to = plane(limits, box);
    const places = spots();
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    // All pairs with the same D + β R: a line of slope −β.
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1.25;
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    for (const rate of limits.slice(0, 2)) {
      ctx.lineTo(to.x(rate), to.y(distortions[index] - betas[index] * (rate - rates[index])));
    }
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.strokeStyle = PALETTE.model;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const place of places) ctx.lineTo(...place);
    ctx.stroke();
    places.forEach(([x, y], i) => {
      ctx.beginPath();
      ctx.arc(x, y, i === index ? 8 : 4, 0, 2 * Math.PI);
      ctx.fillStyle = PALETTE.model;
      ctx.fill();
      ctx.strokeStyle = theme.plot;
      ctx.lineWidth = 1.5;
      ctx.stroke();
    });
    ctx.restore();
    // Names of the points, the one that is shown first, as far as there is room.
    const taken = [];
    const order = [index, ...places.keys()].filter((i, j, all) => all.indexOf(i) === j);
    for (const i of order) {
      const font = i === index ? `600 13px ${theme.font}` : `11px ${theme.font}`;
      const label = i === index ? `\u03b2 = ${tidy(betas[i])}` : tidy(betas[i]);
      ctx.font = font;
      const width = ctx.measureText(label).width;
      const [px, py] = places[i];
      const x = Math.min(px + 10, box.x + box.width - width - 4);
      const y = Math.max(py - 12, box.y + 9);
      const free = taken.every(([l, t, w]) => x > l + w + 4 || l > x + width + 4 || Math.abs(y - t) > 15);
      const clear = i === index || places.every(([qx, qy], j) =>
        j === i || qx < x - 6 || qx > x + width + 6 || Math.abs(qy - y) > 12);
      if (!free || !clear) continue;
      taken.push([x, y, width]);
      words(ctx, label, x, y, i === index ? theme.ink : theme.muted, font);
    }
    drawAxes(ctx, limits, box, theme);
    const fine = `12px ${theme.font}`;
    words(ctx, "rate (nats)", box.x + box.width / 2, box.y + box.height + 30, theme.muted, fine, "center");
    ctx.save();
    ctx.translate(box.x - 44, box.y + box.height / 2);
    ctx.rotate(-Math.PI / 2);
    words(ctx, "distortion (nats)", 0, 0, theme.muted, fine, "center");
    ctx.restore();
    const top = box.y - 40;
    words(ctx, "rate and distortion", box.x, top + 8, theme.ink, `600 13px ${theme.font}`);
    words(ctx, "click a model; dashed: equal D + \u03b2R", box.x, top + 26, theme.muted, fine);
  };

  // ------------------------------------------------------------------------------------ the images

  const sheet = element("canvas", { width: columns, height: rows });
  const brush = sheet.getContext("2d");
  const pixels = brush.createImageData(columns, rows);
  const drawImages = (ctx, values, from, count, { x, y }) => {
    const { width, height, smooth } = at.tile;
    ctx.imageSmoothingEnabled = smooth;
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < size; j++) {
        const level = values[(from + i) * size + j];
        pixels.data.set([level, level, level, 255], 4 * j);
      }
      brush.putImageData(pixels, 0, 0);
      const place = [x + (i % k) * (width + 4), y + Math.floor(i / k) * (height + 4)];
      ctx.drawImage(sheet, ...place, width, height);
    }
  };

  const draw = (ctx, _, theme) => {
    const index = shown();
    drawPosteriors(ctx, index, theme);
    drawCurve(ctx, index, theme);
    const { images, drawn, tile } = at;
    const head = (label, y) => words(ctx, label, 0, y - 12, theme.ink, `600 13px ${theme.font}`);
    head(`${k} test images, and what comes back`, images.y);
    drawImages(ctx, arrays.originals.values, 0, k, images);
    drawImages(ctx, arrays.reconstructions.values, index * k, k, { x: 0, y: images.y + tile.height + 4 });
    head("new images: z drawn from the prior", drawn.y);
    drawImages(ctx, arrays.samples.values, index * samples, samples, drawn);
    COSTS.forEach(([, value], i) => {
      const words = nats(value(betas[index], rates[index], distortions[index]));
      if (values[i].textContent !== words) values[i].textContent = words;
    });
  };

  // Not a <dl>: JupyterLab has a style of its own for lists of definitions in outputs.
  const values = COSTS.map((_, i) => element("span", { class: i === 2 ? "value strong" : "value" }));
  const costs = element("div", { class: "beta-costs" });
  COSTS.forEach(([name], i) => {
    costs.append(element("span", i === 2 ? { class: "strong" } : {}, name), values[i]);
  });
  const layout = (width) => {
    at = stands(width, [rows, columns], k, samples);
    const { x, y } = at.costs;
    Object.assign(costs.style, { left: `${x}px`, top: `${y}px` });
    return at.total;
  };

  const view = outline({ model, el, style: STYLE, layout, draw, maxWidth: 780 });
  view.root.classList.add("beta-widget");
  view.stage.append(costs);

  // --------------------------------------------------------------------------- pointer and controls

  // The curve is a slider, too: the model nearest to the pointer.
  const { canvas } = view;
  const onCurve = ([x, y]) => {
    const box = at.curve;
    return x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height;
  };
  const choose = ([x, y]) => {
    const away = spots().map(([px, py]) => Math.hypot(px - x, py - y));
    clock.seek(away.indexOf(Math.min(...away)));
  };
  drag(canvas, {
    focus: view.root,
    start: (place) => {
      if (!onCurve(place)) return null;
      choose(place);
      return choose;
    },
    hover: (place) => (canvas.style.cursor = onCurve(place) ? "pointer" : "")
  });

  const follow = element("button", { type: "button" }, "Axes follow the model");
  follow.addEventListener("click", () => {
    model.set("fit", !model.get("fit"));
    model.save_changes();
  });
  view.controls.after(element("div", { class: "cw-controls beta-tools" }, follow,
    element("span", { class: "beta-hint" }, "Else they are the same for all models.")));
  const show = () => {
    follow.setAttribute("aria-pressed", String(model.get("fit")));
    view.redraw();
  };
  playerBar(view, model);
  const slider = view.controls.querySelector("input");
  slider.step = "1";
  slider.setAttribute("aria-label", "\u03b2");
  view.follow(["fit"], show);
  show();
  return view.stop;
}

export default { render };

// OperatingPoint: series of points on a chart; one is picked, and its samples are shown beside it.

import { throttledChanges } from "./parts/changes.js";
import { axisAround, chart, dashOf, signOf, traceMark } from "./parts/chart.js";
import { CLASS_COLOURS } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, keepRoom, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, segment, trace, words } from "./parts/panel.js";
import { drawTile, imageStack } from "./parts/pixels.js";
import STYLE from "./operating_point.css" with { type: "css" };

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const [names, points, said, sheetOf] = ["names", "points", "said", "sheet_of"].map((name) => model.get(name));
  const { sheets } = unpack(model);
  const { change, send } = throttledChanges(model);
  const isShown = (s) => model.get("shown").includes(names[s]);
  const chosen = () => {
    const [name, k] = model.get("chosen");
    return [names.indexOf(name), k];
  };
  const choose = (s, k) => {
    const to = [names[s], clamp(k, 0, points[s].length - 1)];
    if (to.join() !== model.get("chosen").join()) change({ chosen: to });
  };
  // What is drawn: the series that are switched on, and the one whose point is chosen.
  const drawn = () => names.map((_, s) => s).filter((s) => isShown(s) || s === chosen()[0]);
  // Of some series, the point nearest to a place on the canvas.
  const nearest = (map, series, [x, y]) => {
    let best = { away: Infinity };
    for (const s of series) points[s].forEach((point, k) => {
      const away = Math.hypot(map.x(point[0]) - x, map.y(point[1]) - y);
      if (away < best.away) best = { s, k, away };
    });
    return best;
  };
  const axes = [0, 1].map((d) => axisAround(points.flat().map((point) => point[d]), model.get("log")[d]));
  return { names, points, said, sheetOf, sheets, axes, isShown, chosen, choose, drawn, nearest, change, send };
}

// ------------------------------------------------------------------------------------ the picture

const GAP = 4;

// How many images of a sheet stand side by side in a room, and how large: as large as they can be.
function tilesIn({ width, height }, count, [rows, columns]) {
  let best = { cell: 0, across: 1 };
  for (let across = 1; across <= count; across++) {
    const down = Math.ceil(count / across);
    const cell = Math.min((width - GAP * (across - 1)) / across, ((height - GAP * (down - 1)) / down) * (columns / rows));
    if (cell > best.cell) best = { cell, across };
  }
  // Whole pixels, where they are large enough to be seen as such.
  const unit = best.cell >= 3 * columns ? columns : 1;
  const cell = Math.min(Math.floor(best.cell / unit) * unit, 12 * columns);
  return { across: best.across, cell, high: Math.round((cell * rows) / columns) };
}

// The chart, and the sheet beside it or, where there is no room, below it.
function stands(width, sheets) {
  const beside = sheets && width >= 560;
  const half = beside ? Math.round(0.58 * width) : width;
  const plot = { x: 56, y: 12, width: half - 66, height: Math.round(clamp(0.7 * (half - 66), 190, 320)) };
  const floor = plot.y + plot.height + 40;
  if (!sheets) return { plot, total: floor };
  if (beside) {
    const room = { x: half + 14, y: 30, width: width - half - 14, height: plot.height + 10 };
    return { plot, room, total: floor };
  }
  const room = { x: 0, y: floor + 30, width, height: Math.round(Math.min(0.55 * width, 260)) };
  const { across, high } = tilesIn(room, sheets.shape[1], sheets.shape.slice(-2));
  room.height = Math.ceil(sheets.shape[1] / across) * (high + GAP);
  return { plot, room, total: room.y + room.height };
}

function drawSeries(ctx, { points, sheetOf, sheets, chosen, drawn }, map, theme) {
  const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
  const [own] = chosen();
  // The one that is held comes last, over the others.
  const order = drawn().filter((s) => s !== own).concat(own);
  ctx.lineJoin = "round";
  for (const s of order) {
    const colour = colours[s % colours.length];
    const places = points[s].map(([x, y]) => [map.x(x), map.y(y)]);
    ctx.strokeStyle = colour;
    ctx.lineWidth = s === own ? 2.6 : 1.5;
    ctx.setLineDash(dashOf(s));
    trace(ctx, places);
    ctx.stroke();
    ctx.setLineDash([]);
    places.forEach(([x, y], k) => {
      ctx.beginPath();
      traceMark(ctx, s, x, y, s === own ? 4.6 : 3.6);
      // Hollow where there are no samples to see.
      ctx.fillStyle = sheets && sheetOf[s][k] < 0 ? theme.plot : colour;
      ctx.fill();
      ctx.lineWidth = 1.4;
      ctx.strokeStyle = colour;
      ctx.stroke();
    });
  }
}

// Lines from the chosen point to both axes.
function drawGuides(ctx, [x, y], box, theme) {
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 3]);
  ctx.beginPath();
  segment(ctx, x, y, x, box.y + box.height);
  segment(ctx, box.x, y, x, y);
  ctx.stroke();
  ctx.setLineDash([]);
}

// The sheet of samples of the chosen point, under its name.
function sheetPainter({ sheets, sheetOf, chosen }, titles) {
  const each = sheets.values.length / sheets.shape[0];
  const sheet = imageStack(sheets.shape.slice(1));
  const { count, size } = sheet;
  return (ctx, room, theme) => {
    const [s, k] = chosen();
    words(ctx, titles[s][k], room.x, room.y - 12, theme.ink, `600 12px ${theme.font}`, "left", "middle", room.width);
    const which = sheetOf[s][k];
    if (which < 0) {
      ctx.strokeStyle = theme.line;
      ctx.setLineDash([4, 4]);
      ctx.strokeRect(room.x + 0.5, room.y + 0.5, room.width - 1, room.height - 1);
      ctx.setLineDash([]);
      words(ctx, "no samples of this point", room.x + room.width / 2, room.y + room.height / 2, theme.muted,
        `12px ${theme.font}`, "center", "middle", room.width - 12);
      return;
    }
    sheet.paint(sheets.values.subarray(which * each, (which + 1) * each));
    const { across, cell, high } = tilesIn(room, count, size);
    for (let i = 0; i < count; i++) {
      const [x, y] = [room.x + (i % across) * (cell + GAP), room.y + Math.floor(i / across) * (high + GAP)];
      drawTile(ctx, sheet.canvas, i, size, { x, y, width: cell, height: high }, theme.line);
    }
  };
}

// ------------------------------------------------------------------------------------- the legend

// A button for each series, which switches it on and off. Returns {node, paint(theme)}.
function legendOf(view, state, map) {
  const { names, points, isShown, chosen, choose, nearest, change, send } = state;
  const ways = names.map((_, s) => s);
  // Some series is left, and where the chosen point goes, the nearest one takes its place.
  const keep = (series) => {
    if (!series.length) return;
    const [own, k] = chosen();
    change({ shown: series.map((s) => names[s]) });
    if (!series.includes(own)) {
      const [x, y] = points[own][k];
      const other = nearest(map(), series, [map().x(x), map().y(y)]);
      choose(other.s, other.k);
    }
    send();
  };
  const shown = () => ways.filter(isShown);
  const buttons = ways.map((s) => {
    const turn = () => keep(isShown(s) ? shown().filter((other) => other !== s) : ways.filter((other) => other === s || isShown(other)));
    const node = button(names[s], turn, { class: "point-series", title: `Show or hide ${names[s]}` });
    node.insertAdjacentHTML("afterbegin", `<svg viewBox="0 0 22 14" aria-hidden="true">${signOf(s)}<\/svg>`);
    return node;
  });
  const alone = button("Only this", () => keep([chosen()[0]]), { class: "cw-quiet", title: "Hide all series but that of the chosen point" });
  const all = button("All", () => keep(ways), { class: "cw-quiet", title: "Show all series" });
  const node = row(...buttons, ...(names.length > 2 ? [alone, all] : []));
  node.classList.add("point-legend");
  const mark = () => {
    buttons.forEach((one, s) => {
      one.setAttribute("aria-pressed", String(isShown(s)));
      one.classList.toggle("own", s === chosen()[0]);
    });
    all.disabled = shown().length === names.length;
  };
  view.follow(["shown", "chosen"], mark, { now: true });
  const paint = (theme) => buttons.forEach((one, s) => {
    const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
    one.querySelector("svg").style.color = colours[s % colours.length];
  });
  return { node, paint };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { points, said, sheets, axes, isShown, chosen, choose, drawn, nearest, send } = state;
  const drawSheet = sheets && sheetPainter(state, model.get("titles"));
  const status = element("p", { class: "cw-status point-status", role: "status" });
  let [at, map] = [null, null]; // as last laid out, as last drawn

  const draw = (ctx, _, theme) => {
    const [s, k] = chosen();
    const [x, y] = points[s][k];
    map = chart(ctx, axes, at.plot, theme, (own) => {
      drawGuides(ctx, [own.x(x), own.y(y)], at.plot, theme);
      drawSeries(ctx, state, own, theme);
    });
    axisNames(ctx, at.plot, model.get("x_label"), model.get("y_label"), 9, theme);
    drawSheet?.(ctx, at.room, theme);
    grip.range([0, points[s].length - 1]);
    grip.stand(map.x(x), map.y(y), k, said[s][k]);
    legend.paint(theme);
    say(status, said[s][k]);
  };
  const longest = said.flat().reduce((one, other) => (other.length > one.length ? other : one));
  const layout = (width) => {
    at = stands(width, sheets);
    keepRoom(status, longest);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: sheets ? 780 : 560, style: STYLE, name: "operating-point" });

  // A drag keeps to the curve on which it began.
  const along = (s) => (place) => choose(s, nearest(map, [s], place).k);
  const grip = handle(view, "Operating point", { shape: "round point-grip", end: send, start: () => along(chosen()[0]) });
  const over = ([x, y], { plot }) => x >= plot.x - 8 && x <= plot.x + plot.width + 8 && y >= plot.y - 8 && y <= plot.y + plot.height + 8;
  drag(view.canvas, {
    focus: () => grip.node, end: send,
    start: (place) => {
      if (!over(place, at)) return null;
      const { s, k } = nearest(map, drawn(), place);
      choose(s, k);
      return along(s);
    },
    hover: (place) => (view.canvas.style.cursor = over(place, at) ? "pointer" : "")
  });
  const step = (by) => () => choose(chosen()[0], chosen()[1] + by);
  // To the next series that is switched on, to its point nearest to ours.
  const across = (by) => () => {
    const [s, k] = chosen();
    const ways = drawn();
    const other = ways[(ways.indexOf(s) + by + ways.length) % ways.length];
    const [x, y] = points[s][k];
    choose(other, nearest(map, [other], [map.x(x), map.y(y)]).k);
  };
  onKeys(view, {
    ArrowLeft: step(-1), ArrowRight: step(1), ArrowUp: across(-1), ArrowDown: across(1),
    Home: () => choose(chosen()[0], 0), End: () => choose(chosen()[0], Infinity)
  });

  const legend = legendOf(view, state, () => map);
  view.controls.before(status);
  if (points.length > 1) view.controls.after(legend.node);
  view.controls.remove();
  const others = points.length > 1 ? ", \u2191 \u2193 to another curve" : "";
  const hollow = sheets && state.sheetOf.flat().some((which) => which < 0) ? " Hollow points have no samples." : "";
  view.root.append(hint(`Click a point, or drag along a curve.${hollow} Keys: \u2190 \u2192 along the curve${others}.`));
  view.follow(["chosen", "shown"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };

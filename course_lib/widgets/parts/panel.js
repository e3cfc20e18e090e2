// What is drawn on canvases: a plot with its content, words, lines.

import { drawAxes, drawPlane, plane } from "./axes.js";

export const clamp = (value, low, high) => Math.max(low, Math.min(value, high));

// Paint what does not leave the box.
export function inside(ctx, box, paint) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.x, box.y, box.width, box.height);
  ctx.clip();
  paint();
  ctx.restore();
}

// A plot: its ground, then `paint(map)` inside of it, then frame and numbers. Returns the map.
export function panel(ctx, extent, box, theme, paint) {
  const map = plane(extent, box);
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => paint(map));
  drawAxes(ctx, extent, box, theme);
  return map;
}

// What lies under the things that move: `paint(own)` draws it once, until one of `facts` or the size of
// the canvas is another.
export function backdrop() {
  const canvas = document.createElement("canvas");
  let drawn = "";
  return (ctx, ratio, facts, paint) => {
    const { width, height } = ctx.canvas;
    const wanted = [width, height, ratio, ...facts].join();
    if (drawn !== wanted) {
      drawn = wanted;
      Object.assign(canvas, { width, height }); // which also clears it
      const own = canvas.getContext("2d");
      own.scale(ratio, ratio);
      paint(own);
    }
    ctx.drawImage(canvas, 0, 0, width / ratio, height / ratio);
  };
}

// Words, no wider than `most`.
export function words(ctx, text, x, y, colour, font, align = "left", baseline = "middle", most = undefined) {
  ctx.font = font;
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = baseline;
  ctx.fillText(text, x, y, most);
}

// The names of both axes: below the plot, and upright at `left` beside it.
export function axisNames(ctx, box, across, up, left, theme) {
  const font = `12px ${theme.font}`;
  words(ctx, across, box.x + box.width / 2, box.y + box.height + 30, theme.muted, font, "center");
  ctx.save();
  ctx.translate(left, box.y + box.height / 2);
  ctx.rotate(-Math.PI / 2);
  words(ctx, up, 0, 0, theme.muted, font, "center", "middle", box.height + 20);
  ctx.restore();
}

// Words on a ground of their own, inside the box, so that nothing behind crosses them out.
export function groundedWords(ctx, text, x, y, colour, font, theme, { align = "left", box = null } = {}) {
  ctx.font = font;
  const width = ctx.measureText(text).width + 8;
  let left = align === "right" ? x - width + 4 : x - 4;
  let middle = y;
  if (box) {
    left = clamp(left, box.x + 2, box.x + box.width - width - 2);
    middle = clamp(y, box.y + 10, box.y + box.height - 10);
  }
  ctx.globalAlpha = 0.82;
  ctx.fillStyle = theme.plot;
  ctx.fillRect(left, middle - 8, width, 16);
  ctx.globalAlpha = 1;
  words(ctx, text, left + 4, middle, colour, font);
}

// Slanted lines through a box, so many pixels apart.
export function hatch(ctx, { x, y, width, height }, pitch) {
  ctx.beginPath();
  for (let at = x - height; at < x + width; at += pitch) segment(ctx, at, y + height, at + height, y);
  ctx.stroke();
}

// A round mark with a rim.
export function dot(ctx, x, y, radius, colour, rim, line = 1) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.strokeStyle = rim;
  ctx.lineWidth = line;
  ctx.stroke();
}

// A path through places: begun anew, or as one more line of the path.
export function trace(ctx, places, more = false) {
  if (!more) ctx.beginPath();
  places.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
}

export function segment(ctx, x0, y0, x1, y1) {
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
}

// An arrow with a rim, so that it stands out from what lies under it.
export function arrow(ctx, [x0, y0], [x1, y1], colour, theme, { line = 2.5, most = 11 } = {}) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 2) return;
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  const head = Math.min(most, length);
  const [nx, ny] = [x1 - head * ux, y1 - head * uy];
  ctx.lineJoin = "round";
  for (const [ink, wider] of [[theme.plot, 3], [colour, 0]]) {
    ctx.strokeStyle = ink;
    ctx.fillStyle = ink;
    ctx.lineWidth = line + wider;
    trace(ctx, [[x0, y0], [nx, ny]]);
    ctx.stroke();
    ctx.lineWidth = wider;
    const [across, along] = [0.5 * head * uy, 0.5 * head * ux];
    trace(ctx, [[x1, y1], [nx - across, ny + along], [nx + across, ny - along]]);
    ctx.closePath();
    ctx.fill();
    if (wider) ctx.stroke();
  }
}

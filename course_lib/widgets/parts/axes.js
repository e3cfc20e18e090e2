// A plot: its plane, ticks, frame, colour bar, and points drawn as digits.

import { CLASS_COLOURS, MAPS } from "./colours.js";
import { tidy } from "./data.js";

// Round tick positions inside [low, high], about `wanted` of them.
export function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const unit = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let k = Math.ceil(low / unit - 1e-9); k * unit <= high + 1e-9 * unit; k++) found.push(k * unit);
  return found;
}

// Maps between the plane and canvas pixels: extent [x0, x1, y0, y1] into box {x, y, width, height}.
export function plane(extent, box) {
  const [x0, x1, y0, y1] = extent;
  const sx = box.width / (x1 - x0);
  const sy = box.height / (y1 - y0);
  return {
    x: (value) => box.x + (value - x0) * sx,
    y: (value) => box.y + (y1 - value) * sy,
    toPlane: (px, py) => [x0 + (px - box.x) / sx, y1 - (py - box.y) / sy]
  };
}

export function drawPlane(ctx, box, theme) {
  ctx.fillStyle = theme.plot;
  ctx.fillRect(box.x, box.y, box.width, box.height);
}

// Frame, ticks and numbers around a plot; drawn last, so that nothing hides the frame.
export function drawAxes(ctx, extent, box, theme) {
  const map = plane(extent, box);
  ctx.strokeStyle = theme.line;
  ctx.fillStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.font = `11px ${theme.font}`;
  ctx.beginPath();
  // Half pixels make a line of width 1 crisp.
  ctx.rect(Math.round(box.x) + 0.5, Math.round(box.y) + 0.5, box.width - 1, box.height - 1);
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  for (const value of ticks(extent[0], extent[1])) {
    const x = Math.round(map.x(value)) + 0.5;
    ctx.moveTo(x, box.y + box.height);
    ctx.lineTo(x, box.y + box.height + 4);
    ctx.fillText(tidy(value), x, box.y + box.height + 7);
  }
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const value of ticks(extent[2], extent[3])) {
    const y = Math.round(map.y(value)) + 0.5;
    ctx.moveTo(box.x - 4, y);
    ctx.lineTo(box.x, y);
    ctx.fillText(tidy(value), box.x - 7, y);
  }
  ctx.stroke();
}

// Points of ten classes as the digits 0 ... 9: the character tells the class, the colour helps.
export function drawDigits(ctx, places, labels, theme, size = 11) {
  const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
  ctx.font = `600 ${size}px ${theme.font}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.lineJoin = "round";
  ctx.lineWidth = 2.5;
  ctx.strokeStyle = theme.plot; // a rim, so that a digit is read on others and on pictures
  places.forEach(([x, y], i) => {
    ctx.strokeText(labels[i], x, y);
    ctx.fillStyle = colours[labels[i]];
    ctx.fillText(labels[i], x, y);
  });
}

// A bar of the colour map `name` with its numbers to the right and its label along it. `anchors` are
// those of the map where it starts higher: see `anchorsOf` in colours.js.
export function drawColourBar(ctx, name, low, high, label, box, theme, anchors = MAPS[name]) {
  const gradient = ctx.createLinearGradient(0, box.y + box.height, 0, box.y);
  anchors.forEach((hex, i, all) => gradient.addColorStop(i / (all.length - 1), hex));
  ctx.fillStyle = gradient;
  ctx.fillRect(box.x, box.y, box.width, box.height);
  ctx.strokeStyle = theme.line;
  ctx.fillStyle = theme.muted;
  ctx.font = `11px ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.beginPath();
  let widest = 0;
  for (const value of ticks(low, high)) {
    const y = Math.round(box.y + box.height * (1 - (value - low) / (high - low))) + 0.5;
    ctx.moveTo(box.x + box.width, y);
    ctx.lineTo(box.x + box.width + 4, y);
    ctx.fillText(tidy(value), box.x + box.width + 7, y);
    widest = Math.max(widest, ctx.measureText(tidy(value)).width);
  }
  ctx.stroke();
  ctx.save();
  ctx.translate(box.x + box.width + 17 + widest, box.y + box.height / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.fillText(label, 0, 0);
  ctx.restore();
}

// A chart of numbers: axes that may be logarithmic, a ground with a grid, a frame with numbers, and
// marks that tell its series apart without their colours.

import { drawPlane, ticks } from "./axes.js";
import { tidy } from "./data.js";
import { inside, segment, trace, words } from "./panel.js";

// An axis from `low` to `high`: `share` says how far along it a value stands, from 0 to 1, and `value`
// what stands there.
export function axisOf(low, high, log = false) {
  const [there, back] = log ? [Math.log10, (y) => 10 ** y] : [(x) => x, (x) => x];
  const [start, end] = [there(low), there(high)];
  const share = (value) => (there(value) - start) / (end - start);
  return { low, high, log, share, value: (along) => back(start + along * (end - start)) };
}

// The axis with all of these values on it, and a little room at both ends.
export function axisAround(values, log = false, room = 0.06) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const whole = axisOf(low, high, log);
  return axisOf(whole.value(-room), whole.value(1 + room), log);
}

// Round numbers on an axis, at most about `most` of them: on a logarithmic one powers of ten, and what
// lies between as far as there is room.
function axisTicks({ low, high, log }, most) {
  if (!log) return ticks(low, high, most);
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const among = (factors, by = 1) => {
    const found = [];
    for (let k = Math.ceil(first / by) * by; k <= last; k += by) found.push(...factors.map((factor) => factor * 10 ** k));
    return found.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  };
  const [dense, ...others] = [[1, 2, 5], [1, 3], [1]].map((factors) => among(factors));
  if (dense.length < 3) return ticks(low, high, Math.min(most, 4));
  return [dense, ...others].find((found) => found.length <= most) || among([1], Math.ceil((last - first) / most));
}

// The chart: its ground with a grid, then `paint(map)` inside of it, then frame and numbers; without
// those at its `foot` where another one stands below on the same axis. Returns the map: `x` and `y` of
// values.
export function chart(ctx, [across, up], box, theme, paint, { foot = true } = {}) {
  const map = {
    x: (value) => box.x + across.share(value) * box.width,
    y: (value) => box.y + (1 - up.share(value)) * box.height
  };
  const crisp = (place) => Math.round(place) + 0.5; // a line of width 1
  const columns = axisTicks(across, Math.max(3, Math.floor(box.width / 46)));
  const rows = axisTicks(up, Math.max(3, Math.floor(box.height / 34)));
  drawPlane(ctx, box, theme);
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  inside(ctx, box, () => {
    ctx.globalAlpha = 0.5;
    ctx.beginPath();
    for (const value of columns) segment(ctx, crisp(map.x(value)), box.y, crisp(map.x(value)), box.y + box.height);
    for (const value of rows) segment(ctx, box.x, crisp(map.y(value)), box.x + box.width, crisp(map.y(value)));
    ctx.stroke();
    ctx.globalAlpha = 1;
    paint(map);
  });
  const font = `11px ${theme.font}`;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.rect(crisp(box.x), crisp(box.y), box.width - 1, box.height - 1);
  const floor = box.y + box.height;
  for (const value of foot ? columns : []) {
    segment(ctx, crisp(map.x(value)), floor, crisp(map.x(value)), floor + 4);
    words(ctx, tidy(value), map.x(value), floor + 7, theme.muted, font, "center", "top");
  }
  for (const value of rows) {
    segment(ctx, box.x - 4, crisp(map.y(value)), box.x, crisp(map.y(value)));
    words(ctx, tidy(value), box.x - 7, map.y(value), theme.muted, font, "right");
  }
  ctx.stroke();
  return map;
}

// A dot, a square, a triangle, ... of about the same area: the corners of the k-th mark.
const ringOf = (count, turn, size) => Array.from({ length: count }, (_, i) => {
  const angle = turn + (2 * Math.PI * i) / count;
  return [size * Math.sin(angle), -size * Math.cos(angle)];
});
const CROSS = [[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]];
const MARKS = [
  ringOf(24, 0, 1), ringOf(4, Math.PI / 4, 1.25), ringOf(3, 0, 1.4), ringOf(4, 0, 1.3), ringOf(3, Math.PI, 1.4),
  CROSS.map(([x, y]) => [0.42 * x, 0.42 * y])
];
const cornersOf = (k, x, y, size) => MARKS[k % MARKS.length].map(([right, down]) => [x + size * right, y + size * down]);

// The k-th mark at a place, as part of a path.
export function traceMark(ctx, k, x, y, size) {
  trace(ctx, cornersOf(k, x, y, size), true);
  ctx.closePath();
}

// The dashes of the k-th line: another row of them begins where the marks begin anew.
export const dashOf = (k) => [[], [6, 3], [2, 2.5]][Math.floor(k / MARKS.length) % 3];

// The same as a sign for a legend: the inside of an SVG of 22 by 14.
export function signOf(k) {
  const corners = cornersOf(k, 11, 7, 4).map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
  return `<path d="M0 7h22" stroke="currentColor" stroke-width="2" stroke-dasharray="${dashOf(k).join(" ")}"/>` +
    `<path d="M${corners.join("L")}z" fill="currentColor"/>`;
}

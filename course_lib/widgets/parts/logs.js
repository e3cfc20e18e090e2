// Axes of powers of ten, and numbers of any size in writing.

import { clamp, segment, words } from "./panel.js";

// 10 to the whole power k.
export function powerOf(k) {
  if (k === 0 || k === 1) return String(10 ** k);
  return `10${String(k).replace("-", "\u207b").replace(/\d/g, (digit) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit])}`;
}

// Two digits of a number that is not negative.
export function shortly(value) {
  if (value >= 99.5) return String(Math.round(value));
  if (value >= 0.001 || value === 0) return String(Number(value.toPrecision(2)));
  const k = Math.floor(Math.log10(value));
  return `${(value / 10 ** k).toFixed(1)} \u00b7 ${powerOf(k)}`;
}

// The whole powers in [low, high], of which each `every`-th is written.
export function powersIn(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  return Array.from({ length: Math.floor(Math.log10(high) + 1e-9) - first + 1 }, (_, i) => first + i);
}

// Maps the numbers low ... high, by their logarithms, to the pixels from ... to. What lies outside
// stands a little beyond the end.
export function logScale(low, high, from, to) {
  const unit = (to - from) / Math.log(high / low);
  const at = (value) => from + unit * clamp(Math.log(Math.max(value, 1e-300) / low), -0.02 * Math.log(high / low), 1.02 * Math.log(high / low));
  return { at, back: (pixel) => low * Math.exp((pixel - from) / unit), low, high };
}

// Lines across a plot at the powers of ten, and their names at its left: all of them, or where they
// are too many every other one.
export function powerLines(ctx, box, scale, theme) {
  const powers = powersIn(scale.low, scale.high);
  const every = (powers.length * 13) > box.height ? 2 : 1;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const k of powers) {
    const y = Math.round(scale.at(10 ** k)) + 0.5;
    segment(ctx, box.x, y, box.x + box.width, y);
    if (k % every === 0) words(ctx, powerOf(k), box.x - 6, y, theme.muted, `11px ${theme.font}`, "right");
  }
  ctx.stroke();
}

// The names of the powers of ten below a plot.
export function powerNames(ctx, box, scale, theme) {
  const bottom = box.y + box.height;
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const k of powersIn(scale.low, scale.high)) {
    const x = Math.round(scale.at(10 ** k)) + 0.5;
    segment(ctx, x, bottom, x, bottom + 4);
    words(ctx, powerOf(k), x, bottom + 7, theme.muted, `11px ${theme.font}`, "center", "top");
  }
  ctx.stroke();
}

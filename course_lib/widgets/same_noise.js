// SameNoise: one picture at two sizes, noised until both look equally destroyed.

import { outline } from "./parts/outline.js";

function render({ model, el }) {
  const draw = (ctx, { width, height }, theme) => {
    ctx.fillStyle = theme.plot;
    ctx.fillRect(0, 0, width, height);
  };
  return outline({ model, el, draw, layout: (width) => width / 2, name: "same-noise" }).stop;
}

export default { render };

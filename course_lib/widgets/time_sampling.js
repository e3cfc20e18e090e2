// TimeSampling: a density of training times to drag, and what it makes of the loss.

import { outline } from "./parts/outline.js";

function render({ model, el }) {
  const draw = (ctx, { width, height }, theme) => {
    ctx.fillStyle = theme.plot;
    ctx.fillRect(0, 0, width, height);
  };
  return outline({ model, el, draw, layout: (width) => width / 2, name: "time-sampling" }).stop;
}

export default { render };

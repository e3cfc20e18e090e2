// JointAttentionMap: point at a patch or a word, and see what it takes of all others.

import { outline } from "./parts/outline.js";

function render({ model, el }) {
  const draw = (ctx, { width, height }, theme) => {
    ctx.fillStyle = theme.plot;
    ctx.fillRect(0, 0, width, height);
  };
  return outline({ model, el, draw, layout: (width) => width / 2, name: "joint-map" }).stop;
}

export default { render };

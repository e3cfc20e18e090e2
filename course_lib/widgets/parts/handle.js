// A thing to drag that stands on the stage: it takes the focus, follows the pointer, and is a slider
// for those who do not see it.

import { drag } from "./drag.js";
import { element } from "./outline.js";

// `label` is its name, `shape` a class of its own ("round" and "diamond" are drawn by handle.css, in
// the colour `--handle`). `start` and `end` are those of `drag`, with places on the stage; `range` is
// that of its value. `stand(x, y, value, text)` puts it at a place; `held` says whether it is dragged.
export function handle(view, label, { shape = "round", colour = "", start, end, range = [] }) {
  const node = element("div", { class: `cw-handle ${shape}`, role: "slider", tabindex: "0", "aria-label": label });
  if (colour) node.style.setProperty("--handle", colour);
  const set = (name, value) => {
    if (value !== undefined && node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  };
  const own = { node, held: false };
  own.range = ([low, high]) => {
    set("aria-valuemin", low);
    set("aria-valuemax", high);
  };
  own.stand = (x, y, value, text) => {
    node.style.left = `${x}px`;
    node.style.top = `${y}px`;
    set("aria-valuenow", value.toFixed(2));
    set("aria-valuetext", text);
  };
  drag(node, {
    within: view.stage,
    start: (place, event) => {
      const move = start(place, event);
      own.held = Boolean(move);
      return move;
    },
    end: () => {
      own.held = false;
      end?.();
    }
  });
  own.range(range);
  view.stage.append(node);
  return own;
}

// A sentence whose words are pointed at, or gone to by keys; one of them, or none, is chosen.

import { onKeys } from "./keys.js";
import { element } from "./outline.js";

// `chosen()` is the index of the word, −1 where none is; `go(k)` hears of another, which may lie
// beyond the ends. Returns {node, nodes, show}: `show()` marks the one that is chosen.
export function wordRow(view, { names, label, chosen, go }) {
  const nodes = names.map((name, k) => {
    const node = element("button", { type: "button", role: "radio", class: "cw-word" }, name);
    for (const event of ["pointerenter", "click", "focus"]) node.addEventListener(event, () => go(k));
    return node;
  });
  const node = element("div", { class: "cw-words", role: "radiogroup", "aria-label": label }, ...nodes);
  const show = () => nodes.forEach((one, k) => {
    one.setAttribute("aria-checked", String(k === chosen()));
    one.tabIndex = k === Math.max(0, chosen()) ? 0 : -1;
  });
  const walk = (to) => ({ target }) => {
    go(to(chosen()));
    if (node.contains(target)) nodes[chosen()].focus();
  };
  const [back, on] = [walk((k) => k - 1), walk((k) => k + 1)];
  onKeys(view, { ArrowUp: back, ArrowDown: on });
  onKeys(view, {
    ArrowLeft: back, ArrowUp: back, ArrowRight: on, ArrowDown: on, Home: walk(() => 0), End: walk(() => names.length - 1)
  }, node);
  return { node, nodes, show };
}

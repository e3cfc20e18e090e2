// The keyboard of a widget.
//
// JupyterLab listens for its shortcuts on the document, before an event reaches what has the focus:
// `x` would cut the cell, `d d` delete it. The window comes before the document, so we listen there,
// and no key without Ctrl, Alt or Meta goes on to it, whether it means something here or not. What
// leaves the widget passes: Tab, Escape, Shift+Enter and the function keys.

const PASSES = /^(Tab|Escape|F\d+)$/;
const OF_AN_INPUT = /^(Arrow.*|Home|End|Page.*)$/; // keys that step a slider

// All keys of one view: [{on, actions}], with one listener for them.
export function keyBook(root) {
  const book = [];
  const actionFor = ({ key, target, shiftKey }) => {
    const lookUp = ({ actions }) =>
      (shiftKey && actions[`Shift+${key}`]) || actions[key] || (key.length === 1 && actions[key.toLowerCase()]);
    const own = book.find((entry) => entry.on?.some((node) => node.contains(target)) && lookUp(entry));
    if (own) return lookUp(own);
    const pressed = target.tagName === "BUTTON" && (key === " " || key === "Enter");
    const stepped = target.tagName === "INPUT" && OF_AN_INPUT.test(key);
    const written = target.tagName === "SELECT" || target.tagName === "TEXTAREA";
    if (pressed || stepped || written) return null; // as the browser has it
    const all = book.find((entry) => !entry.on && lookUp(entry));
    return all && lookUp(all);
  };
  const listen = (event) => {
    const { key, ctrlKey, altKey, metaKey, shiftKey } = event;
    if (!root.contains(event.target) || ctrlKey || altKey || metaKey) return;
    const passes = PASSES.test(key) || (key === "Enter" && shiftKey);
    if (!passes) event.stopPropagation();
    const action = actionFor(event);
    if (!action || (passes && key !== "Escape")) return; // Escape may let go of something first
    event.preventDefault();
    action(event);
  };
  window.addEventListener("keydown", listen, true);
  return { book, stop: () => window.removeEventListener("keydown", listen, true) };
}

// Keys that work while the focus is inside the widget: {key: action}, called with the event. A key
// may be "Shift+ArrowUp", else it works with and without Shift. With `on`, an element or a list of
// them, they work there alone, and come before the others.
export function onKeys(view, actions, on = null) {
  view.keys.push({ on: on && [on].flat(), actions });
}

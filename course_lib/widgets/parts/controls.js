// Buttons, toggles, choices and sliders with their labels; those of a trait follow it.

import { element } from "./outline.js";

// A button with words on it; `attributes` may hold a title and a class.
export function button(words, onClick, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, words);
  node.addEventListener("click", onClick);
  return node;
}

// What a control does with a trait where nothing else is said: Python hears of it at once.
const setAtOnce = (view) => (values) => {
  for (const [name, value] of Object.entries(values)) view.model.set(name, value);
  view.model.save_changes();
};

// A button that turns the trait `name` on and off.
export function toggle(view, name, words, { title = "", change = setAtOnce(view) } = {}) {
  const node = button(words, () => change({ [name]: !view.model.get(name) }), title ? { title } : {});
  view.follow([name], () => node.setAttribute("aria-pressed", String(view.model.get(name))), { now: true });
  return node;
}

// Buttons of which one is pressed: the value of the trait `name`. `options` are [value, words, title].
export function choice(view, name, label, options, { change = setAtOnce(view) } = {}) {
  const nodes = options.map(([value, words, title]) =>
    button(words, () => change({ [name]: value }), title ? { title } : {}));
  const show = () => nodes.forEach((node, i) =>
    node.setAttribute("aria-pressed", String(options[i][0] === view.model.get(name))));
  view.follow([name], show, { now: true });
  return group(label, ...nodes);
}

// Controls under a name.
export function group(label, ...nodes) {
  return element("div", { class: "cw-group", role: "group", "aria-label": label },
    element("span", {}, label), ...nodes);
}

// A slider of the trait `name`, with its label before it and its value after it. It is as long as the
// larger of `max` and the value. A `log` one goes by the value's decades; `round` makes what it says a
// number to be set, and `step` is in decades, too.
export function slider(view, name, label, options) {
  const { min = 0, max = 1, step = "any", title = "", text, change = setAtOnce(view), log = false } = options;
  const { round = log ? (value) => Number(value.toPrecision(3)) : (value) => value } = options;
  const [there, back] = log ? [Math.log10, (place) => 10 ** place] : [(value) => value, (place) => place];
  const low = there(min);
  const input = element("input", { type: "range", min: low, max: there(max), step, "aria-label": title || label });
  const value = element("output");
  input.addEventListener("input", () => change({ [name]: round(back(Number(input.value))) }));
  const show = () => {
    const now = view.model.get(name);
    const place = there(now);
    input.max = String(Math.max(there(max), place));
    input.value = String(place);
    input.style.setProperty("--cw-done", `${(100 * (place - low)) / (Number(input.max) - low)}%`);
    value.textContent = text ? text(now) : String(now);
    input.setAttribute("aria-valuetext", value.textContent);
  };
  view.follow([name], show, { now: true });
  return element("label", { class: "cw-slider", ...(title ? { title } : {}) }, element("span", {}, label), input, value);
}

// A row of controls.
export function row(...nodes) {
  return element("div", { class: "cw-controls cw-row" }, ...nodes);
}

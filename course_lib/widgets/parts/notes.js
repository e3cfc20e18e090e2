// What is written around a picture: hints, the state of things, and words for a screen reader.

import { element } from "./outline.js";

// Words in a node, changed only where they differ: a screen reader reads what changes.
export function say(node, ...words) {
  const text = words.map((word) => word.textContent ?? word).join("");
  if (node.textContent !== text) node.replaceChildren(...words);
}

// How the figure is used, in small letters.
export function hint(words) {
  return element("p", { class: "cw-hint" }, words);
}

// A colour map, from low to high, between the numbers at its ends.
export function mapStrip(anchors, low, high) {
  const strip = element("span", { class: "cw-map", "aria-hidden": "true" });
  strip.style.background = `linear-gradient(to right, ${anchors.join()})`;
  return element("span", { class: "cw-scale" }, low, strip, high);
}

// A line that tells what has happened; `node.tell(words, failed)`.
export function status() {
  const node = element("p", { class: "cw-status", role: "status" });
  node.tell = (words, failed = false) => {
    node.classList.toggle("failed", failed);
    say(node, ...[words].flat());
  };
  return node;
}

// Room in a node for the longest of its words, so that nothing below it moves while one reads.
export function keepRoom(node, longest) {
  const now = node.textContent;
  node.style.minHeight = "";
  node.textContent = longest;
  node.style.minHeight = `${node.offsetHeight}px`;
  node.textContent = now;
}

// Returns `speak(words)`, for a screen reader alone.
export function spoken(view) {
  const node = element("div", { class: "cw-spoken", "aria-live": "polite" });
  view.stage.append(node);
  return (words) => (node.textContent = words);
}

// A canvas that is used with keys: it takes the focus and says what the keys do.
export function takesKeys(canvas, alt, keys) {
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${alt} ${keys}`);
}

// The meaning of marks and colours: [picture, meaning], a picture being an element or the inside of
// an SVG of 22 by 14.
export function legend(entries) {
  const node = element("div", { class: "cw-key" });
  for (const [picture, meaning] of entries) {
    const entry = element("span", {}, meaning);
    if (picture instanceof Node) entry.prepend(picture);
    else entry.insertAdjacentHTML("afterbegin", `<svg viewBox="0 0 22 14" aria-hidden="true">${picture}<\/svg>`);
    node.append(entry);
  }
  return node;
}

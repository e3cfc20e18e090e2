// The outline of a widget: a header, a stage with a canvas, and a place for controls.

import { keyBook } from "./keys.js";
import { followTheme, readersPage } from "./theme.js";

// A small way to write HTML: element("div", {class: "x"}, child, "text").
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SMALLEST = 300; // pixels: no figure is made narrower than this for the sake of its height

// How high the reader's view is: that of the part of the page that scrolls.
function viewHeight(root) {
  const page = readersPage();
  let node = page === document ? root : window.frameElement;
  while ((node = node?.parentElement)) {
    const scrolls = /auto|scroll/.test(getComputedStyle(node).overflowY);
    if (scrolls && node.clientHeight > 200 && node.scrollHeight > node.clientHeight) return node.clientHeight;
  }
  return page.defaultView.innerHeight;
}

// A cell that is run again loses its outputs until the new ones come: so that the page does not jump,
// their place is held for two seconds. An animation, since that outlives an iframe that is taken away.
function holdPlace(outputs, height) {
  const minHeight = `${height}px`;
  if (height) outputs?.animate([{ minHeight }, { minHeight }], 2000);
}

// JupyterLab's outputs of the cell in which `node` stands, if it stands there. static.js uses both.
const outputsAround = (node) => node.closest(".jp-Cell-outputArea");

// The outline of a widget: a focusable group with a header, a stage and a place for controls.
//
// `layout(width)` says how high the canvas is in CSS pixels, `draw(ctx, size, theme)` draws it. A
// figure too high for the reader's window is made narrower, so that its controls stay in sight.
// `style` is the widget's own CSS, `name` a class of its root.
// Returns {model, root, header, stage, canvas, controls, theme, keys, redraw, follow, onStop, stop}:
// `redraw()` may be called as often as you like and draws at most once a frame; `follow(names, fn)`
// calls fn when one of these traits changes, until the view is gone.
export function outline({ model, el, layout, draw, maxWidth = 560, style = "", name = "" }) {
  const title = element("span", { class: "cw-title" });
  const note = element("span", { class: "cw-note" });
  const header = element("div", { class: "cw-header" }, title, note);
  const canvas = element("canvas", { role: "img", "aria-label": model.get("alt") || "" });
  const stage = element("div", { class: "cw-stage" }, canvas);
  const controls = element("div", { class: "cw-controls" });
  const root = element(
    "div",
    {
      class: `course-widget ${name}`.trim(), role: "group", tabindex: "0",
      "aria-label": model.get("title") || "interactive figure"
    },
    header, stage, controls
  );
  if (style) root.prepend(element("style", {}, style));
  root.style.maxWidth = `${maxWidth}px`;
  el.replaceChildren(root);

  const ctx = canvas.getContext("2d");
  const stops = [];
  const onStop = (stop) => stops.push(stop);
  let frame = 0;
  let size = { width: 0, height: 0 };

  const paint = () => {
    frame = 0;
    if (!size.width) return;
    // A canvas has as many pixels as the screen shows, else its lines are blurred.
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, size.width, size.height);
    draw(ctx, { ...size, ratio }, theme.current);
  };
  const redraw = () => {
    if (!frame) frame = requestAnimationFrame(paint);
  };
  const theme = followTheme(root, redraw);

  // The widest figure that leaves room for what stands above it and for its controls.
  const fit = (most) => {
    const beside = (controls.isConnected ? controls : root).getBoundingClientRect().bottom
      - root.getBoundingClientRect().top - canvas.offsetHeight;
    const room = viewHeight(root) - Math.max(beside, 0) - 8;
    let best = { width: most, height: Infinity };
    for (let width = most; width >= SMALLEST; width = Math.floor(0.96 * width)) {
      const height = layout(width);
      if (height <= room) return width;
      // Where none fits: the lowest of those that can still be read.
      if (width >= 0.6 * most && height < best.height) best = { width, height };
    }
    return best.width;
  };
  const facts = () => [root.clientWidth, stage.clientWidth, viewHeight(root), window.devicePixelRatio].join();
  let before = "";
  const fitAnew = () => {
    if (!root.clientWidth) return;
    stage.style.maxWidth = "";
    const most = Math.min(stage.clientWidth, maxWidth);
    if (!most) return;
    canvas.style.height = `${layout(most)}px`; // what stands beside it may be higher than an empty one
    const width = fit(most);
    if (width < most) stage.style.maxWidth = `${width}px`;
    before = facts();
    size = { width, height: Math.round(layout(width)) };
    canvas.style.height = `${size.height}px`;
    redraw();
  };
  let outputs = null;
  let high = 0; // as they are taken away, they are no longer so high
  let again = 0;
  const measure = () => {
    if (!outputs && (outputs = outputsAround(root))) observer.observe(outputs);
    high = outputs?.offsetHeight || high;
    if (!root.clientWidth || before === facts()) return;
    fitAnew();
    // Once more when what stands beside the figure has taken its place in the new width: after the
    // next frame, since one who hears of the window comes before all who hear of a size.
    cancelAnimationFrame(again);
    again = requestAnimationFrame(() => (again = requestAnimationFrame(fitAnew)));
  };
  const observer = new ResizeObserver(measure);
  observer.observe(root);
  observer.observe(stage);
  const around = readersPage().defaultView;
  around.addEventListener("resize", measure);

  // Zooming, or another screen, changes how many pixels there are for each of ours.
  let sharpness = null;
  const resharpen = () => {
    sharpness?.removeEventListener("change", resharpen);
    sharpness = window.matchMedia(`(resolution: ${window.devicePixelRatio || 1}dppx)`);
    sharpness.addEventListener("change", resharpen);
    redraw();
  };
  resharpen();

  const follow = (names, fn, { now = false } = {}) => {
    for (const trait of names) {
      model.on(`change:${trait}`, fn);
      onStop(() => model.off(`change:${trait}`, fn));
    }
    if (now) fn();
  };
  follow(["title"], () => (title.textContent = model.get("title") || ""), { now: true });

  const keys = keyBook(root);
  onStop(theme.stop);
  onStop(keys.stop);
  onStop(() => {
    holdPlace(outputs, high);
    observer.disconnect();
    around.removeEventListener("resize", measure);
    sharpness.removeEventListener("change", resharpen);
    cancelAnimationFrame(frame);
    cancelAnimationFrame(again);
  });
  return {
    model, root, header, note, stage, canvas, controls, theme, keys: keys.book, redraw, follow, onStop,
    stop: () => stops.forEach((stop) => stop())
  };
}

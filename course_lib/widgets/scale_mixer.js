// ScaleMixer: keep an image's latents or draw them anew, scale by scale, and see what they make.

import { MAPS, colourWords } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { hint, mapStrip, say, status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { paintGrey, pixelSheet } from "./parts/pixels.js";
import STYLE from "./scale_mixer.css" with { type: "css" };

const BOX = [164, 92]; // pixels at most for the latents of a scale
const BETWEEN = 3; // pixels between two channels
const SIGNED = colourWords("signed");

const DIE = `<svg viewBox="0 0 16 16" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="1.5"
  d="M4 1.8h8A2.2 2.2 0 0 1 14.2 4v8a2.2 2.2 0 0 1-2.2 2.2H4A2.2 2.2 0 0 1 1.8 12V4A2.2 2.2 0 0 1 4 1.8z"/>
  <circle cx="5.2" cy="5.2" r="1.3"/><circle cx="10.8" cy="5.2" r="1.3"/><circle cx="8" cy="8" r="1.3"/>
  <circle cx="5.2" cy="10.8" r="1.3"/><circle cx="10.8" cy="10.8" r="1.3"/><\/svg>`;

// --------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const arrays = unpack(model);
  const [count, height, width] = arrays.images.shape;
  const [, sets, draws] = arrays.mixed.shape;
  const size = height * width;
  const change = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  // The scales that are drawn anew as the bits of a number: see `mixed` in scale_mixer.py.
  const chosen = () => model.get("resampled").reduce((k, anew, s) => k + (anew ? 2 ** s : 0), 0);
  const pick = (r) => chosen() && change("draw", r % draws);
  const original = (image) => arrays.images.values.subarray(image * size, (image + 1) * size);
  return {
    arrays, count, height, width, sets, draws, chosen, pick, original,
    names: model.get("names"), limit: model.get("limit"),
    choose: (image) => change("image", (image + count) % count),
    turn: (s) => change("resampled", model.get("resampled").map((anew, other) => (s === other ? !anew : anew))),
    again: () => pick(model.get("draw") + 1),
    result: (image, k, draw) => {
      if (!k) return original(image);
      const start = ((image * sets + k - 1) * draws + draw) * size;
      return arrays.mixed.values.subarray(start, start + size);
    }
  };
}

const list = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0]);

// What is kept and what is not, in words.
function sentence(k, sets, names, resampled) {
  if (!k) return "Nothing is drawn anew: from these latents the flow goes back to the original.";
  if (k === sets) return "Every scale is drawn anew: a sample of the model, in which nothing of the original is left.";
  const [kept, anew] = [false, true].map((side) => list(names.filter((_, s) => resampled[s] === side)));
  return `Kept: ${kept}. Drawn anew: ${anew}.`;
}

// ----------------------------------------------------------------------------------- small pictures

// How many channels stand side by side, so that their pixels become as large as they can: their
// size in whole screen pixels, where they are not smaller than one.
function tiling([channels, height, width]) {
  let best = { unit: 0 };
  for (let across = 1; across <= channels; across++) {
    const down = Math.ceil(channels / across);
    const room = Math.min(
      (BOX[0] - BETWEEN * (across - 1)) / (across * width), (BOX[1] - BETWEEN * (down - 1)) / (down * height)
    );
    const unit = room >= 1 ? Math.floor(room) : room;
    if (unit > best.unit) best = { unit, across, down };
  }
  return best;
}

// The channels of one image at one scale as tiles of a canvas.
function latentsCanvas(shape, limit) {
  const [channels, height, width] = shape;
  const { unit, across, down } = tiling(shape);
  const [w, h] = [unit * width, unit * height];
  const canvas = element("canvas", {
    role: "img", width: Math.round(across * (w + BETWEEN) - BETWEEN), height: Math.round(down * (h + BETWEEN) - BETWEEN)
  });
  const tile = pixelSheet(width, height);
  const paint = (values) => {
    const ctx = canvas.getContext("2d");
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    for (let c = 0; c < channels; c++) {
      const channel = values.subarray(c * width * height, (c + 1) * width * height);
      tile.paint(channel.map((value) => 127.5 * (1 + value / limit)), SIGNED);
      const place = [(c % across) * (w + BETWEEN), Math.floor(c / across) * (h + BETWEEN)];
      ctx.drawImage(tile.canvas, ...place, w, h);
    }
  };
  return { canvas, paint };
}

// ----------------------------------------------------------------------------------- the three parts

const section = (label, name, ...children) => element("div", { role: "group", "aria-label": label, class: name }, ...children);
const head = (...words) => element("div", { class: "mixer-head" }, ...words);
const fine = (...words) => element("span", { class: "mixer-fine" }, ...words);
const named = (label) => ({ "aria-label": label, title: label });
const picture = ({ width, height }, attributes = {}) => element("canvas", { width, height, ...attributes });

function withDie(words) {
  const node = element("span", { class: "mixer-die" });
  node.innerHTML = `${DIE}${words}`;
  return node;
}

// Each part has its `node`, and `show(now)` where `now` is {image, drawn, k, resampled, moved}; `moved`
// is true where another image or another mixture is to be painted.
function originalPart(state) {
  const source = picture(state, { class: "mixer-large", role: "img" });
  const buttons = Array.from({ length: state.count }, (_, i) => {
    const small = picture(state);
    paintGrey(small, state.original(i));
    return button(small, () => state.choose(i), named(`Image ${i + 1}`));
  });
  const node = section("The image", "mixer-original", head("original"), source,
    element("div", { class: "mixer-images" }, ...(state.count > 1 ? buttons : [])));
  const show = ({ image, moved }) => {
    if (moved) paintGrey(source, state.original(image));
    source.setAttribute("aria-label", `Image ${image + 1}`);
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(i === image)));
  };
  return { node, show };
}

function scalePart(state, s) {
  const { names, count } = state;
  const { values, shape } = state.arrays[`latents ${s}`];
  const each = values.length / count;
  const latents = latentsCanvas(shape.slice(1), state.limit);
  const turn = () => state.turn(s);
  const box = element("div", { class: "mixer-latents" }, latents.canvas,
    element("span", { class: "mixer-anew" }, withDie("drawn anew")));
  box.style.width = `${BOX[0] + 12}px`;
  box.addEventListener("click", turn);
  const toggle = button("", turn, { ...named(`Draw ${names[s]} anew`), role: "switch", class: "mixer-switch" });
  toggle.append(element("span", { class: "keep" }, "keep"), element("span", { class: "anew" }, "resample"));
  const when = names.length === 1 ? "" : s === 0 ? ", left the flow first"
    : s === names.length - 1 ? ", through all layers" : "";
  const words = fine(`${each} ${each === 1 ? "number" : "numbers"}${when}`);
  const node = section(names[s], "mixer-scale", element("div", { class: "mixer-name" }, `${names[s]} `, words), box, toggle);
  const show = ({ image, resampled, moved }) => {
    if (moved) latents.paint(values.subarray(image * each, (image + 1) * each));
    box.classList.toggle("anew", resampled[s]);
    toggle.setAttribute("aria-checked", String(resampled[s]));
    latents.canvas.setAttribute("aria-label", `Latents of image ${image + 1}`);
  };
  return { node, show };
}

function scalesPart(state) {
  const { names, limit, sets } = state;
  const scales = names.map((_, s) => scalePart(state, s));
  const said = status();
  const node = section("Its latents", "mixer-scales",
    head("latents ", fine(mapStrip(MAPS.signed, tidy(-limit), tidy(limit)))), ...scales.map((scale) => scale.node), said);
  const show = (now) => {
    for (const scale of scales) scale.show(now);
    said.tell(sentence(now.k, sets, names, now.resampled));
  };
  return { node, show };
}

function resultPart(state, view) {
  const { draws, sets } = state;
  const title = head();
  const which = fine();
  const next = button(withDie("Draw again"), state.again);
  const small = Array.from({ length: draws }, () => picture(state));
  const strip = small.map((canvas, r) => button(canvas, () => state.pick(r), named(`Draw ${r + 1}`)));
  const rows = Math.ceil(draws / 6); // as few as can be, and all of them full
  const columns = `grid-template-columns: repeat(${Math.ceil(draws / rows)}, minmax(0, 44px))`;
  const node = section("The result", "mixer-result", title, view.stage, row(next, which),
    element("div", { class: "mixer-draws", style: columns }, ...strip));
  // A button that has nothing to do keeps the focus, unlike one that is disabled: keys still work.
  const rest = (one, resting) => one.setAttribute("aria-disabled", String(resting));
  const show = ({ image, drawn, k, moved }) => {
    if (moved) small.forEach((canvas, r) => paintGrey(canvas, state.result(image, k, r)));
    strip.forEach((one, r) => {
      rest(one, !k);
      one.setAttribute("aria-pressed", String(k > 0 && r === drawn));
    });
    rest(next, !k || draws === 1);
    say(which, k ? `${drawn + 1} of ${draws}` : "");
    say(title, !k ? "the original itself" : k === sets ? "a sample" : "a mixture");
    view.canvas.classList.toggle("mixed", k > 0);
    const alt = view.model.get("alt");
    view.canvas.setAttribute("aria-label", k ? `${alt} Draw ${drawn + 1}.` : alt);
    view.redraw();
  };
  return { node, show };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { names, width, height, again } = state;
  const sheet = pixelSheet(width, height);
  const draw = (ctx, space) => {
    sheet.paint(state.result(model.get("image"), state.chosen(), model.get("draw")));
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(sheet.canvas, 0, 0, space.width, space.height);
  };
  const layout = (space) => (space * height) / width;
  const view = outline({ model, el, layout, draw, maxWidth: 732, style: STYLE, name: "mixer-widget" });
  view.root.classList.toggle("mixer-smooth", width > 16); // on a small button half a pixel shows
  view.canvas.classList.add("mixer-large");
  const parts = [originalPart(state), scalesPart(state), resultPart(state, view)];
  const digits = names.length > 2 ? `1 to ${names.length}` : list(names.map((_, s) => s + 1));
  view.header.after(
    element("div", { class: "mixer-frame" }, element("div", { class: "mixer-body" }, ...parts.map(({ node }) => node))),
    hint(`Keys: ${digits} ${names.length > 1 ? "switch the scales" : "switches the scale"}, ` +
      "\u2190 \u2192 change the image, D or space draws again."));
  view.controls.remove();

  const walk = (by) => () => state.choose(model.get("image") + by);
  const keys = { ArrowLeft: walk(-1), ArrowRight: walk(1), d: again, " ": again };
  names.forEach((_, s) => (keys[s + 1] = () => state.turn(s)));
  onKeys(view, keys);

  let painted = "";
  const show = () => {
    const [image, drawn, k, resampled] = [model.get("image"), model.get("draw"), state.chosen(), model.get("resampled")];
    const moved = painted !== `${image} ${k}`;
    painted = `${image} ${k}`;
    for (const part of parts) part.show({ image, drawn, k, resampled, moved });
  };
  view.follow(["image", "resampled", "draw"], show, { now: true });
  return view.stop;
}

export default { render };

// ScaleMixer: keep an image's latents or draw them anew, scale by scale, and see what they make.

import { MAPS, PALETTE, colourTable } from "./parts/colours.js";
import { tidy, unpack } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";

const BOX = [164, 92]; // pixels at most for the latents of a scale
const BETWEEN = 3; // pixels between two channels

const DIE = `<svg viewBox="0 0 16 16" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="1.5"
  d="M4 1.8h8A2.2 2.2 0 0 1 14.2 4v8a2.2 2.2 0 0 1-2.2 2.2H4A2.2 2.2 0 0 1 1.8 12V4A2.2 2.2 0 0 1 4 1.8z"/>
  <circle cx="5.2" cy="5.2" r="1.3"/><circle cx="10.8" cy="5.2" r="1.3"/><circle cx="8" cy="8" r="1.3"/>
  <circle cx="5.2" cy="10.8" r="1.3"/><circle cx="10.8" cy="10.8" r="1.3"/><\/svg>`;

const STYLE = `
.mixer-frame { container-type: inline-size; }
.mixer-body { display: grid; grid-template: "original scales result" / 116px minmax(278px, 308px) minmax(170px, 228px); gap: 12px 20px; justify-content: space-between; padding-top: 2px; }
.mixer-original { grid-area: original; }
.mixer-scales { grid-area: scales; }
.mixer-result { grid-area: result; }
.mixer-body canvas { display: block; image-rendering: pixelated; border-radius: 2px; }
.mixer-head { min-height: 20px; margin-bottom: 8px; font-weight: 600; line-height: 20px; }
.mixer-fine { color: var(--cw-muted); font-size: 12px; font-weight: 400; font-variant-numeric: tabular-nums; }
.mixer-map {
  display: inline-block; width: 46px; height: 9px; margin: 0 5px; border-radius: 2px;
  background: linear-gradient(to right, ${MAPS.signed.join(", ")});
}
.mixer-body .mixer-large { box-shadow: 0 0 0 2px ${PALETTE.data}; }
.mixer-body .mixer-large.mixed { box-shadow: 0 0 0 2px ${PALETTE.model}; }
.mixer-original .mixer-large { width: 112px; margin: 0 2px; }
.mixer-result .cw-stage { padding: 0 2px; }
.mixer-images, .mixer-draws { display: grid; gap: 6px; padding: 2px; }
.mixer-images { grid-template-columns: repeat(3, 32px); gap: 8px; margin-top: 12px; }
.mixer-smooth button canvas { image-rendering: auto; }
.mixer-body button canvas { width: 100%; }
.mixer-widget .mixer-images button, .mixer-widget .mixer-draws button {
  padding: 0; border: 0; border-radius: 3px; background: none; line-height: 0; cursor: pointer; box-shadow: 0 0 0 1px var(--cw-line);
}
.mixer-widget .mixer-images button[aria-pressed="true"] { box-shadow: 0 0 0 1px var(--cw-plot), 0 0 0 3px ${PALETTE.data}; }
.mixer-widget .mixer-draws button[aria-pressed="true"] { box-shadow: 0 0 0 1px var(--cw-plot), 0 0 0 3px ${PALETTE.model}; }
.mixer-widget button[aria-disabled="true"] { opacity: 0.4; cursor: default; }
.mixer-scale { display: flex; flex-wrap: wrap; gap: 4px 12px; margin-bottom: 12px; }
.mixer-name { flex: 1 0 100%; line-height: 17px; overflow-wrap: anywhere; }
.mixer-latents {
  position: relative; display: flex; align-items: center; justify-content: center;
  width: ${BOX[0] + 12}px; padding: 6px; border-radius: 6px; background: var(--cw-fill); box-shadow: inset 0 0 0 2px ${PALETTE.latent}; cursor: pointer;
}
.mixer-latents.anew {
  background: repeating-linear-gradient(45deg, ${PALETTE.noise}80 0 2px, transparent 2px 8px), var(--cw-fill);
  box-shadow: inset 0 0 0 2px ${PALETTE.noise};
}
.mixer-anew {
  position: absolute; display: none; padding: 2px 8px; border-radius: 5px; background: var(--cw-plot);
  font-size: 12px; line-height: 18px; white-space: nowrap;
}
.mixer-anew svg, .mixer-again svg { width: 14px; height: 14px; margin-right: 6px; vertical-align: -2px; fill: currentColor; }
.mixer-latents.anew canvas { visibility: hidden; }
.mixer-latents.anew .mixer-anew { display: block; }
.mixer-widget .mixer-switch {
  flex: 1 1 80px; display: flex; flex-direction: column; gap: 3px; min-height: 72px; margin: 0; padding: 4px;
  border: 1px solid var(--cw-line); border-radius: 8px; background: var(--cw-fill); color: var(--cw-muted); font: inherit; cursor: pointer;
}
.mixer-switch span {
  flex: 1; display: flex; align-items: center; justify-content: center; min-height: 28px; border: 2px solid transparent; border-radius: 5px;
}
.mixer-switch[aria-checked="false"] .keep { border-color: ${PALETTE.latent}; }
.mixer-switch[aria-checked="true"] .anew { border-color: ${PALETTE.noise}; }
.mixer-switch[aria-checked="false"] .keep, .mixer-switch[aria-checked="true"] .anew {
  background: var(--cw-plot); color: var(--cw-ink); font-weight: 600;
}
.course-widget .mixer-tools { flex-wrap: wrap; gap: 4px 9px; white-space: nowrap; padding: 10px 0 8px; }
.mixer-tools .mixer-again { border: 1px solid var(--cw-line); padding: 0 10px; }
.mixer-status { min-height: 38px; margin: 0; line-height: 19px; overflow-wrap: anywhere; }
.mixer-hint { margin: 8px 0 0; color: var(--cw-muted); font-size: 12px; }
@container (max-width: 605px) {
  .mixer-body { grid-template: "original result" "scales scales" / 116px minmax(0, 228px); justify-content: start; gap: 12px 20px; }
  .mixer-scales { max-width: 400px; }
}
`;

// ---------------------------------------------------------------------------------------- pictures

// Values on a canvas, one a pixel, in the colours of a map that covers [low, high].
function paintPixels(canvas, values, map, low, high) {
  const ctx = canvas.getContext("2d");
  const pixels = ctx.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const share = (Math.max(low, Math.min(high, value)) - low) / (high - low);
    const k = 3 * Math.round(255 * share);
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = map[k + c];
    pixels.data[4 * i + 3] = 255;
  });
  ctx.putImageData(pixels, 0, 0);
}

const GREY = colourTable("grey");
const SIGNED = colourTable("signed");
const paintGrey = (canvas, levels) => paintPixels(canvas, levels, GREY, 0, 255);

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
function latentsCanvas(shape) {
  const [channels, height, width] = shape;
  const { unit, across, down } = tiling(shape);
  const [w, h] = [unit * width, unit * height];
  const canvas = element("canvas", {
    role: "img", width: Math.round(across * (w + BETWEEN) - BETWEEN), height: Math.round(down * (h + BETWEEN) - BETWEEN)
  });
  const tile = element("canvas", { width, height });
  const paint = (values, limit) => {
    const ctx = canvas.getContext("2d");
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    for (let c = 0; c < channels; c++) {
      paintPixels(tile, values.subarray(c * width * height, (c + 1) * width * height), SIGNED, -limit, limit);
      const place = [(c % across) * (w + BETWEEN), Math.floor(c / across) * (h + BETWEEN)];
      ctx.drawImage(tile, ...place, w, h);
    }
  };
  return { canvas, paint };
}

const list = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0]);

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const arrays = unpack(model);
  const [count, height, width] = arrays.images.shape;
  const [, sets, draws] = arrays.mixed.shape;
  const names = model.get("names");
  const limit = model.get("limit");
  const size = height * width;

  const change = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  // A button that has nothing to do keeps the focus, unlike one that is disabled: keys still work.
  const rest = (node, resting) => node.setAttribute("aria-disabled", String(resting));
  const turn = (s) => change("resampled", model.get("resampled").map((anew, other) => (s === other ? !anew : anew)));
  const walk = (by) => change("image", (model.get("image") + by + count) % count);
  const pick = (r) => chosen() && change("draw", r % draws);
  const again = () => pick(model.get("draw") + 1);
  // The scales that are drawn anew as the bits of a number: see `mixed` in scale_mixer.py.
  const chosen = () => model.get("resampled").reduce((k, anew, s) => k + (anew ? 2 ** s : 0), 0);
  const original = (image) => arrays.images.values.subarray(image * size, (image + 1) * size);
  const result = (image, k, draw) => {
    if (!k) return original(image);
    const start = ((image * sets + k - 1) * draws + draw) * size;
    return arrays.mixed.values.subarray(start, start + size);
  };

  // ----------------------------------------------------------------------------------------- parts

  const sheet = element("canvas", { width, height });
  const draw = (ctx, space) => {
    paintGrey(sheet, result(model.get("image"), chosen(), model.get("draw")));
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(sheet, 0, 0, space.width, space.height);
  };
  const layout = (space) => (space * height) / width;
  const view = outline({ model, el, layout, draw, maxWidth: 732 });
  view.root.prepend(element("style", {}, STYLE));
  view.root.classList.add("mixer-widget");
  view.root.classList.toggle("mixer-smooth", width > 16); // on a small button half a pixel shows
  view.canvas.classList.add("mixer-large");

  const picture = (attributes = {}) => element("canvas", { width, height, ...attributes });
  const button = (label, onClick, ...children) => {
    const node = element("button", { type: "button", "aria-label": label, title: label }, ...children);
    node.addEventListener("click", onClick);
    return node;
  };
  const group = (label, name, ...children) => element("div", { role: "group", "aria-label": label, class: name }, ...children);
  const head = (...words) => element("div", { class: "mixer-head" }, ...words);
  const fine = (...words) => element("span", { class: "mixer-fine" }, ...words);

  const source = picture({ class: "mixer-large", role: "img" });
  const sources = Array.from({ length: count }, (_, i) => {
    const small = picture();
    paintGrey(small, original(i));
    return button(`Image ${i + 1}`, () => change("image", i), small);
  });

  const scales = names.map((name, s) => {
    const { values, shape } = arrays[`latents ${s}`];
    const each = values.length / count;
    const latents = latentsCanvas(shape.slice(1));
    const anew = element("span", { class: "mixer-anew" });
    anew.innerHTML = `${DIE}drawn anew`;
    const box = element("div", { class: "mixer-latents" }, latents.canvas, anew);
    box.addEventListener("click", () => turn(s));
    const toggle = button(`Draw ${name} anew`, () => turn(s),
      element("span", { class: "keep" }, "keep"), element("span", { class: "anew" }, "resample"));
    toggle.setAttribute("role", "switch");
    toggle.classList.add("mixer-switch");
    const when = names.length === 1 ? "" : s === 0 ? ", left the flow first"
      : s === names.length - 1 ? ", through all layers" : "";
    const words = element("div", { class: "mixer-name" }, `${name} `, fine(`${each} ${each === 1 ? "number" : "numbers"}${when}`));
    const node = group(name, "mixer-scale", words, box, toggle);
    return { node, box, toggle, latents, values: (image) => values.subarray(image * each, (image + 1) * each) };
  });

  const resultHead = head();
  const next = element("button", { type: "button", class: "mixer-again" });
  next.innerHTML = `${DIE}Draw again`;
  next.addEventListener("click", again);
  const which = fine();
  const small = Array.from({ length: draws }, () => picture());
  const rows = Math.ceil(draws / 6); // as few as can be, and all of them full
  const columns = `grid-template-columns: repeat(${Math.ceil(draws / rows)}, minmax(0, 44px))`;
  const strip = small.map((canvas, r) => button(`Draw ${r + 1}`, () => pick(r), canvas));
  const status = element("p", { class: "mixer-status", role: "status" });
  const digits = names.length > 2 ? `1 to ${names.length}` : list(names.map((_, s) => s + 1));
  const map = element("span", { class: "mixer-map", "aria-hidden": "true" });
  view.header.after(
    element("div", { class: "mixer-frame" }, element("div", { class: "mixer-body" },
      group("The image", "mixer-original", head("original"), source,
        element("div", { class: "mixer-images" }, ...(count > 1 ? sources : []))),
      group("Its latents", "mixer-scales", head("latents ", fine(tidy(-limit), map, tidy(limit))), ...scales.map(({ node }) => node), status),
      group("The result", "mixer-result", resultHead, view.stage,
        element("div", { class: "cw-controls mixer-tools" }, next, which),
        element("div", { class: "mixer-draws", style: columns }, ...strip)))),
    element("p", { class: "mixer-hint" },
      `Keys: ${digits} ${names.length > 1 ? "switch the scales" : "switches the scale"}, \u2190 \u2192 change the image, D or space draws again.`));
  view.controls.remove();

  const keys = { ArrowLeft: () => walk(-1), ArrowRight: () => walk(1), d: again, D: again, " ": again };
  // JupyterLab would make a heading of the cell: no digit is left to it.
  for (let s = 0; s < 9; s++) keys[s + 1] = () => s < names.length && turn(s);
  onKeys(view, keys);

  // ----------------------------------------------------------------------------------------- words

  const sentence = (k) => {
    if (!k) return "Nothing is drawn anew: from these latents the flow goes back to the original.";
    if (k === sets) return "Every scale is drawn anew: a sample of the model, in which nothing of the original is left.";
    const [kept, anew] = [false, true].map((side) => list(names.filter((_, s) => model.get("resampled")[s] === side)));
    return `Kept: ${kept}. Drawn anew: ${anew}.`;
  };
  let painted = "";

  function show() {
    const [image, drawn, k] = [model.get("image"), model.get("draw"), chosen()];
    if (painted !== `${image} ${k}`) {
      painted = `${image} ${k}`;
      paintGrey(source, original(image));
      for (const { latents, values } of scales) latents.paint(values(image), limit);
      small.forEach((canvas, r) => paintGrey(canvas, result(image, k, r)));
    }
    source.setAttribute("aria-label", `Image ${image + 1}`);
    sources.forEach((node, i) => node.setAttribute("aria-pressed", String(i === image)));
    model.get("resampled").forEach((anew, s) => {
      const { box, toggle, latents } = scales[s];
      box.classList.toggle("anew", anew);
      toggle.setAttribute("aria-checked", String(anew));
      latents.canvas.setAttribute("aria-label", `Latents of image ${image + 1}`);
    });
    strip.forEach((node, r) => {
      rest(node, !k);
      node.setAttribute("aria-pressed", String(k > 0 && r === drawn));
    });
    rest(next, !k || draws === 1);
    which.textContent = k ? `${drawn + 1} of ${draws}` : "";
    resultHead.textContent = !k ? "the original itself" : k === sets ? "a sample" : "a mixture";
    view.canvas.classList.toggle("mixed", k > 0);
    view.canvas.setAttribute("aria-label", k ? `${model.get("alt")} Draw ${drawn + 1}.` : model.get("alt"));
    const said = sentence(k);
    if (status.textContent !== said) status.textContent = said;
    view.redraw();
  }

  view.follow(["image", "resampled", "draw"], show);
  show();
  return view.stop;
}

export default { render };

// PromptBox: put a sentence together, and see what a model draws for it.

import { choice, row } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { deskOf } from "./parts/desk.js";
import { waitSign } from "./parts/kernel.js";
import { hint, status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { drawTile, imageStack } from "./parts/pixels.js";
import STYLE from "./prompt_box.css" with { type: "css" };

const GAP = 6;
const MOST = 224; // pixels: how wide an image is at most
const NO_KERNEL = "Grey words lead to sentences that were not drawn before: run this cell to have them drawn.";

// -------------------------------------------------------------------------------------- the state

// The words up to the first that ends the sentence. `_sentence` of prompt_box.py is the same.
function sentenceOf(words, ends) {
  const last = words.findIndex((word) => ends.includes(word));
  return words.slice(0, last < 0 ? words.length : last + 1).filter(Boolean).join(" ");
}

// Sentences that were drawn before, and what is asked of the model.
const boxOf = deskOf((model) => {
  const { values, shape } = unpack(model).images;
  const size = values.length / (shape[0] * shape[1]); // of the images of a sentence
  const ends = model.get("ends");
  const prompt = (words = model.get("words")) => sentenceOf(words, ends);
  const place = new Map(model.get("prompts").map((sentence, k) => [sentence, k]));
  const isStored = (sentence) => place.has(sentence);
  const question = () => ({ prompt: prompt(), scale: model.get("scale") });
  const stored = () => {
    if (!isStored(prompt())) return [];
    const at = (model.get("scales").indexOf(model.get("scale")) * shape[1] + place.get(prompt())) * size;
    return [values.subarray(at, at + size)];
  };
  return { shape: shape.slice(2), prompt, isStored, question, stored, watch: ["words", "scale"], size };
});

// ----------------------------------------------------------------------------------- the sentence

// A drop-down for each slot. Without a kernel, words that lead to sentences that were not drawn are
// grey, under a line that says so.
function sentenceBar(view, desk) {
  const { model } = view;
  const ends = model.get("ends");
  const slots = model.get("slots").map((name, k) => {
    const select = element("select", { "aria-label": name });
    const node = element("label", { class: "prompt-slot" }, element("span", {}, name), select);
    const choices = model.get("choices")[k].map((word) => [word, element("option", { value: word }, word || "\u2013")]);
    const far = element("optgroup", { label: "needs the kernel: run this cell" });
    select.addEventListener("change", () => {
      model.set("words", model.get("words").with(k, select.value));
      model.save_changes();
    });
    const write = () => {
      const words = model.get("words");
      const over = words.slice(0, k).some((word) => ends.includes(word));
      const near = ([word]) => !model.standIn || word === words[k] || desk.isStored(desk.prompt(words.with(k, word)));
      const grey = over ? [] : choices.filter((one) => !near(one));
      for (const one of choices) one[1].disabled = grey.includes(one);
      far.replaceChildren(...grey.map(([, option]) => option));
      const rest = choices.filter((one) => !grey.includes(one)).map(([, option]) => option);
      select.replaceChildren(...rest, ...(grey.length ? [far] : []));
      select.value = words[k];
      select.disabled = over;
      node.classList.toggle("over", over);
    };
    return { node, write };
  });
  const node = element("div", { class: "prompt-sentence", role: "group", "aria-label": "Sentence" },
    ...slots.map((one) => one.node));
  return { node, write: () => slots.forEach((one) => one.write()) };
}

function messageOf(model, desk) {
  const { prompt, scale } = desk.question();
  const named = `\u201c${prompt}\u201d, scale ${tidy(scale)}`;
  const { line } = desk;
  if (line.waiting) {
    const most = model.get("answered").steps;
    const { count } = desk.coming();
    const step = count ? `step ${count}${most > 1 && count <= most ? ` of ${most}` : ""} \u2026` : "waiting for the kernel \u2026";
    return [waitSign(), line.late || `${named}: ${step}`];
  }
  if (desk.failed()) return `draw failed: ${model.get("answered").error}`;
  if (!desk.states.length) return `${named}: not drawn before. Run this cell to have it drawn.`;
  const { steps } = model.get("answered");
  if (!desk.fits()) return `${named}: drawn before.`;
  return steps > 1 ? `${named}: drawn in ${steps} steps.` : `${named}: drawn now.`;
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const desk = boxOf(model);
  const stack = imageStack(desk.shape);
  const { count, size: [rows, columns] } = stack;
  let painted = null;
  const cellIn = (width) => {
    const room = Math.min((width - GAP * (count - 1)) / count, MOST);
    return Math.max(1, Math.floor(room / columns)) * columns; // all pixels equally large
  };
  const layout = (width) => Math.round((cellIn(width) * rows) / columns);
  const draw = (ctx, { width, height }, theme) => {
    const coming = desk.coming().states.at(-1);
    const pixels = desk.states.at(-1) ?? coming ?? desk.shown.at(-1);
    if (!pixels) return;
    if (pixels !== painted) stack.paint((painted = pixels));
    const cell = cellIn(width);
    const stale = !desk.states.length && !coming;
    if (stale) ctx.globalAlpha = 0.4;
    for (let i = 0; i < count; i++) {
      drawTile(ctx, stack.canvas, i, [rows, columns], { x: i * (cell + GAP), y: 0, width: cell, height }, theme.line);
    }
    ctx.globalAlpha = 1;
  };
  const view = outline({ model, el, style: STYLE, layout, draw, maxWidth: 720, name: "prompt-box" });
  const sentence = sentenceBar(view, desk);
  const scales = model.get("scales").map((scale) => [scale, tidy(scale)]);
  const told = status();
  view.header.after(sentence.node);
  view.controls.replaceWith(...(scales.length > 1 ? [row(choice(view, "scale", "Guidance scale", scales))] : []));
  view.root.append(told, hint(model.standIn ? NO_KERNEL : "Choose the words; each sentence is drawn as soon as it is there."));

  const show = () => {
    sentence.write();
    const message = messageOf(model, desk);
    told.tell(message, Boolean(!desk.line.waiting && desk.failed()));
    const pictures = count === 1 ? "The image" : `${count} images`;
    const which = desk.states.length ? `of \u201c${desk.prompt()}\u201d` : "from before the last change";
    view.canvas.setAttribute("aria-label", `${model.get("alt")} ${pictures} ${which}.`);
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    view.redraw();
  };
  view.onStop(desk.listen(show));
  view.follow(["status"], show);
  show();
  return view.stop;
}

export default { render };

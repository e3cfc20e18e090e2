// WordAttention: point at a word, and see which places of the picture attend to it, step by step.

import { throttledChanges } from "./parts/changes.js";
import { MAPS, colourWords } from "./parts/colours.js";
import { row, toggle } from "./parts/controls.js";
import { atStep, unpack } from "./parts/data.js";
import { hint, mapStrip, say, spoken } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, segment, words } from "./parts/panel.js";
import { drawTile, imageStack, pixelSheet } from "./parts/pixels.js";
import { playerBar } from "./parts/player.js";
import { wordRow } from "./parts/word_row.js";
import STYLE from "./word_attention.css" with { type: "css" };

const GAP = 12;
const NAME = 20; // pixels above each of the two pictures
const VIRIDIS = colourWords("viridis");

// -------------------------------------------------------------------------------------- the state

const written = (value) => (value > 0 && value < 0.001 ? "under 0.001" : value.toFixed(3));

// The largest of each word's weights [T, L, h, w], at any step and place.
function largestOf({ values, shape: [steps, count, high, wide] }) {
  const size = high * wide;
  return Array.from({ length: count }, (_, k) => {
    let most = 0;
    for (let t = 0; t < steps; t++) {
      for (let i = 0; i < size; i++) most = Math.max(most, values[(t * count + k) * size + i]);
    }
    return most;
  });
}

// Of an image's pixels, which are bright: brighter than a share of the brightest, in any colour.
function brightOf(pixels, size, share) {
  const level = pixels.subarray(0, size).map((_, i) => {
    let most = 0;
    for (let at = i; at < pixels.length; at += size) most = Math.max(most, pixels[at]);
    return most;
  });
  const most = level.reduce((a, b) => Math.max(a, b), 0);
  return Array.from(level, (value) => most > 0 && value > share * most);
}

function stateOf(model) {
  const { images, weights } = unpack(model);
  const [, count, high, wide] = weights.shape;
  const names = model.get("words");
  const each = high * wide;
  const pixels = new Float32Array(images.values.length / images.shape[0]);
  const maps = new Float32Array(count * each);
  const largest = largestOf(weights);
  const top = largest.reduce((a, b) => Math.max(a, b), 0);
  const { change, send } = throttledChanges(model);
  const state = { model, count, high, wide, names, pixels, shape: images.shape.slice(1), send };
  const [rows, columns] = images.shape.slice(-2);
  state.bright = brightOf(images.values.subarray(-pixels.length), rows * columns, model.get("ink"));
  state.go = (k) => {
    const to = clamp(k, 0, count - 1);
    if (to !== model.get("word")) change({ word: to });
  };
  state.most = () => (model.get("alike") ? top : largest[model.get("word")]) || 1;
  // The picture and the word's map at a step.
  state.at = (step) => {
    atStep(images, step, pixels);
    atStep(weights, step, maps);
    const map = maps.subarray(model.get("word") * each, (model.get("word") + 1) * each);
    let [most, sum] = [0, 0];
    for (const value of map) [most, sum] = [Math.max(most, value), sum + value];
    return { map, most, mean: sum / each };
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

// The lines between bright pixels and those beside them, as a path.
function outlineOf(bright, [rows, columns], { x, y, width, height }) {
  const path = new Path2D();
  const [w, h] = [width / columns, height / rows];
  const isBright = (i, j) => i >= 0 && i < rows && j >= 0 && j < columns && bright[i * columns + j];
  for (let i = 0; i <= rows; i++) {
    for (let j = 0; j <= columns; j++) {
      const [left, top] = [x + j * w, y + i * h];
      if (isBright(i, j) !== isBright(i - 1, j) && j < columns) segment(path, left, top, left + w, top);
      if (isBright(i, j) !== isBright(i, j - 1) && i < rows) segment(path, left, top, left, top + h);
    }
  }
  return path;
}

function pictureOf(state) {
  const { bright, wide, high } = state;
  const stack = imageStack([1, ...state.shape]);
  const sheet = pixelSheet(wide, high);
  const [rows, columns] = stack.size;
  const scaled = new Float32Array(wide * high);
  const cellIn = (width) => Math.max(1, Math.floor(Math.min((width - GAP) / 2, 300)));
  const layout = (width) => NAME + Math.round((cellIn(width) * rows) / columns);
  const draw = (ctx, { width, height }, theme, { map }) => {
    const cell = cellIn(width);
    const box = { x: 0, y: NAME, width: cell, height: height - NAME };
    const right = { ...box, x: cell + GAP };
    stack.paint(state.pixels);
    drawTile(ctx, stack.canvas, 0, stack.size, box, theme.line);
    const unit = 255 / state.most();
    for (let i = 0; i < map.length; i++) scaled[i] = unit * map[i];
    sheet.paint(scaled, VIRIDIS);
    drawTile(ctx, sheet.canvas, 0, [high, wide], right, theme.line);
    const path = outlineOf(bright, stack.size, right);
    for (const [colour, line] of [["rgba(0, 0, 0, 0.55)", 3], ["#ffffff", 1.2]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = line;
      ctx.stroke(path);
    }
    const font = `600 12px ${theme.font}`;
    words(ctx, "the picture", box.x, 8, theme.ink, font, "left", "middle", cell);
    const name = `attention to \u201c${state.names[state.model.get("word")]}\u201d`;
    words(ctx, name, right.x, 8, theme.ink, font, "left", "middle", cell);
  };
  return { layout, draw };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const picture = pictureOf(state);
  const told = element("p", { class: "attention-told" });
  const draw = (ctx, size, theme) => {
    const now = state.at(clock.shown());
    picture.draw(ctx, size, theme, now);
    say(told, `${nameOf()}: at most ${written(now.most)} of a place\u2019s attention, ${written(now.mean)} on average.`);
  };
  const nameOf = () => `\u201c${state.names[model.get("word")]}\u201d`;
  const view = outline({ model, el, layout: picture.layout, draw, maxWidth: 640, style: STYLE, name: "word-attention" });
  const sentence = wordRow(view, { names: state.names, label: "Word", chosen: () => model.get("word"), go: state.go });
  view.header.after(sentence.node);
  view.follow(["word"], sentence.show, { now: true });
  const clock = playerBar(view, model);
  const scale = element("span", { class: "attention-scale" });
  view.root.append(
    row(scale, toggle(view, "alike", "One scale for all words")), told,
    hint("Point at a word, or go through them with the arrow keys up and down; left and right are steps. White lines: "
      + "what is bright in the last picture."));
  const speak = spoken(view);
  const show = () => {
    const whose = model.get("alike") ? "any word" : nameOf();
    scale.replaceChildren("attention ", mapStrip(MAPS.viridis, "0", state.most().toPrecision(2)), `, the largest of ${whose}`);
    const { most, mean } = state.at(clock.shown());
    speak(`${nameOf()}, ${model.get("labels")[Math.round(clock.step)] || `step ${Math.round(clock.step)}`}: `
      + `at most ${written(most)}, on average ${written(mean)}`);
    view.redraw();
  };
  view.follow(["word", "alike"], show, { now: true });
  view.onStop(state.send);
  return view.stop;
}

export default { render };

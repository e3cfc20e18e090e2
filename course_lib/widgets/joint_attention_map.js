// JointAttentionMap: point at a patch or a word, and see what it takes of all patches and words.

import { throttledChanges } from "./parts/changes.js";
import { MAPS, PALETTE, colourWords } from "./parts/colours.js";
import { row } from "./parts/controls.js";
import { atStep, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { gridOf } from "./parts/grid.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, mapStrip, say, spoken, takesKeys } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, segment, words } from "./parts/panel.js";
import { drawCursor, drawTile, imageStack, pixelSheet } from "./parts/pixels.js";
import { playerBar } from "./parts/player.js";
import { wordRow } from "./parts/word_row.js";
import STYLE from "./joint_attention_map.css" with { type: "css" };

const GAP = 12;
const NAME = 20; // pixels above each of the two pictures
const BAR = 34; // of a bar and its words
const VIRIDIS = colourWords("viridis");

// -------------------------------------------------------------------------------------- the state

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const sumOf = (values) => values.reduce((a, b) => a + b, 0);

// What rows of a matrix [n, n] take of the first `count` columns, on average.
function shareOf(matrix, n, count, first, last) {
  let sum = 0;
  for (let i = first; i < last; i++) sum += sumOf(matrix.subarray(i * n, i * n + count));
  return sum / (last - first);
}

function stateOf(model) {
  const { images, weights } = unpack(model);
  const names = model.get("words");
  const grid = gridOf(...model.get("grid"));
  const n = grid.size + names.length;
  const pixels = new Float32Array(images.values.length / images.shape[0]);
  const matrix = new Float32Array(n * n);
  const { change, send } = throttledChanges(model);
  const token = () => model.get("token");
  const state = { model, names, grid, n, pixels, matrix, shape: images.shape.slice(1), send, token };
  let patch = token() < grid.size ? token() : grid.middle; // the last that was chosen
  state.patch = () => (patch = token() < grid.size ? token() : patch);
  state.word = () => (token() < grid.size ? -1 : token() - grid.size);
  state.go = (k) => {
    if (k !== token()) change({ token: k });
  };
  state.goWord = (k) => state.go(grid.size + clamp(k, 0, names.length - 1));
  state.name = () => (token() < grid.size ? `the patch in ${grid.name(token())}` : `\u201c${names[state.word()]}\u201d`);
  // All that is shown at a step.
  state.at = (step) => {
    atStep(images, Math.min(step, images.shape[0] - 1), pixels);
    atStep(weights, step, matrix);
    const of = matrix.subarray(token() * n, (token() + 1) * n);
    const [ofPatches, ofWords] = [of.subarray(0, grid.size), of.subarray(grid.size)];
    return {
      ofPatches, ofWords, own: sumOf(ofPatches), most: ofPatches.reduce((a, b) => Math.max(a, b), 0),
      patches: shareOf(matrix, n, grid.size, 0, grid.size), words: shareOf(matrix, n, grid.size, grid.size, n)
    };
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function pictureOf(state) {
  const { grid } = state;
  const stack = imageStack([1, ...state.shape]);
  const sheet = pixelSheet(grid.columns, grid.rows);
  const [rows, columns] = stack.size;
  const scaled = new Float32Array(grid.size);
  const cellIn = (width) => Math.max(1, Math.floor(Math.min((width - GAP) / 2, 260)));
  const highIn = (width) => Math.round((cellIn(width) * rows) / columns);
  const layout = (width) => NAME + highIn(width) + 10 + 3 * BAR;
  const boxes = (width) => [0, 1].map((k) => ({ x: k * (cellIn(width) + GAP), y: NAME, width: cellIn(width), height: highIn(width) }));
  // The patch at a place of either picture, null outside.
  const patchAt = ([x, y], width) => {
    const box = boxes(width).find((one) => x >= one.x && x < one.x + one.width && y >= one.y && y < one.y + one.height);
    return box ? grid.at([((x - box.x) / box.width) * grid.columns, ((y - box.y) / box.height) * grid.rows]) : null;
  };
  const drawBar = (ctx, box, theme, name, share) => {
    words(ctx, `${name} takes ${percent(share)} of patches, ${percent(1 - share)} of words`, box.x, box.y + 7, theme.ink, `12px ${theme.font}`, "left", "middle", box.width);
    const middle = box.width * share;
    ctx.fillStyle = PALETTE.data;
    ctx.fillRect(box.x, box.y + 16, middle, 12);
    ctx.fillStyle = PALETTE.model;
    ctx.fillRect(box.x + middle, box.y + 16, box.width - middle, 12);
    ctx.fillStyle = theme.plot;
    ctx.fillRect(box.x + middle - 1, box.y + 16, 2, 12);
  };
  const draw = (ctx, { width }, theme, now) => {
    const [left, right] = boxes(width);
    stack.paint(state.pixels);
    drawTile(ctx, stack.canvas, 0, stack.size, left, theme.line);
    const unit = 255 / (now.most || 1);
    now.ofPatches.forEach((value, i) => (scaled[i] = unit * value));
    sheet.paint(scaled, VIRIDIS);
    drawTile(ctx, sheet.canvas, 0, [grid.rows, grid.columns], right, theme.line);
    const [wide, high] = [left.width / grid.columns, left.height / grid.rows];
    ctx.strokeStyle = "rgba(128, 128, 128, 0.7)";
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (let k = 1; k < grid.columns; k++) segment(ctx, left.x + k * wide, left.y, left.x + k * wide, left.y + left.height);
    for (let k = 1; k < grid.rows; k++) segment(ctx, left.x, left.y + k * high, left.x + left.width, left.y + k * high);
    ctx.stroke();
    if (state.word() < 0) {
      const at = state.token();
      for (const box of [left, right]) drawCursor(ctx, box.x + grid.columnOf(at) * wide, box.y + grid.rowOf(at) * high, wide, high);
    }
    const font = `600 12px ${theme.font}`;
    words(ctx, "the picture", left.x, 8, theme.ink, font, "left", "middle", left.width);
    words(ctx, "what is taken of patches", right.x, 8, theme.ink, font, "left", "middle", right.width);
    const whole = right.x + right.width;
    [[capital(state.name()), now.own], ["A patch", now.patches], ["A word", now.words]].forEach(([name, share], i) =>
      drawBar(ctx, { x: 0, y: NAME + left.height + 10 + i * BAR, width: whole }, theme, name, share));
  };
  return { layout, draw, patchAt };
}

// -------------------------------------------------------------------------------------- the widget

// What is taken of each word, under it: a number, and a bar beside that of the largest.
function sharesUnder(nodes) {
  const marks = nodes.map((node) => {
    const [number, bar] = [element("small", { "aria-hidden": "true" }), element("i", { "aria-hidden": "true" })];
    node.append(number, bar);
    return { number, bar };
  });
  return (shares) => marks.forEach(({ number, bar }, k) => {
    say(number, percent(shares[k]));
    const part = shares[k] / (Math.max(...shares) || 1);
    bar.style.width = `calc(${(100 * part).toFixed(2)}% - ${(6 * part).toFixed(1)}px)`;
  });
}

const KEY = [["data", "of patches"], ["model", "of words"]].map(([role, name]) =>
  [`<rect x="1" y="2" width="20" height="10" fill="${PALETTE[role]}"/>`, name]);

function render({ model, el }) {
  const state = stateOf(model);
  const { grid, names } = state;
  const picture = pictureOf(state);
  const told = element("p", { class: "joint-told" });
  const scale = element("span", { class: "joint-scale" });
  let underWords = null;
  const sentence = ({ own, ofWords }) => {
    const most = ofWords.indexOf(Math.max(...ofWords));
    return `${capital(state.name())} takes ${percent(own)} of patches and ${percent(1 - own)} of words, most of them of `
      + `\u201c${names[most]}\u201d: ${percent(ofWords[most])}.`;
  };
  const draw = (ctx, size, theme) => {
    const now = state.at(clock.shown());
    picture.draw(ctx, size, theme, now);
    underWords(now.ofWords);
    say(told, sentence(now));
    const top = percent(now.most);
    if (scale.dataset.top !== top) {
      scale.dataset.top = top;
      scale.replaceChildren("of a patch ", mapStrip(MAPS.viridis, "0", top));
    }
  };
  const view = outline({ model, el, layout: picture.layout, draw, maxWidth: 560, style: STYLE, name: "joint-map" });
  view.root.style.setProperty("--joint-bar", PALETTE.model);
  const sentenceRow = wordRow(view, { names, label: "Word", chosen: state.word, go: state.goWord });
  underWords = sharesUnder(sentenceRow.nodes);
  view.header.after(sentenceRow.node);
  const clock = playerBar(view, model);
  view.root.append(row(scale, legend(KEY)), told, hint(
    "Point at a patch or a word; the bar under a word is what is taken of it, as part of the largest. Keys: in the picture the arrows go from patch to patch, "
    + "in the sentence from word to word; elsewhere left and right are steps."));

  takesKeys(view.canvas, model.get("alt"), "The arrow keys go from patch to patch.");
  const pointed = (place) => {
    const patch = picture.patchAt(place, view.canvas.clientWidth);
    if (patch !== null) state.go(patch);
    view.canvas.style.cursor = patch === null ? "" : "pointer";
    return patch;
  };
  drag(view.canvas, { start: (place) => (pointed(place) === null ? null : pointed), hover: pointed, end: state.send });
  const walk = (down, right) => () => state.go(state.word() < 0 ? grid.step(state.token(), down, right) : state.patch());
  onKeys(view, {
    ArrowLeft: walk(0, -1), ArrowRight: walk(0, 1), ArrowUp: walk(-1, 0), ArrowDown: walk(1, 0)
  }, view.canvas);

  const speak = spoken(view);
  const show = () => {
    sentenceRow.show();
    state.patch();
    speak(sentence(state.at(clock.shown())));
    view.redraw();
  };
  view.follow(["token"], show, { now: true });
  view.onStop(state.send);
  return view.stop;
}

export default { render };

// What every widget shares: colours, data, theme, canvas, axes, and the player bar.
//
// Python pastes this file in place of a widget's line `import {...} from "./base.js"`, so that each
// widget is one self-contained module: nothing is fetched, neither live nor from a stored notebook.

// ---------------------------------------------------------------------------------------- colours

// The same colours mean the same things throughout the course; palette.py holds the same values.
export const PALETTE = {
  "data": "#2b7bba",
  "noise": "#858b94",
  "model": "#d9730d",
  "latent": "#1f9a6e",
  "error": "#cc4b9b"
};

// Colour maps as evenly spaced anchors, interpolated linearly.
export const MAPS = {
  "viridis": [
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e",
    "#21918c", "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219",
    "#fde725"
  ],
  "signed": ["#1c62b0", "#5f9bd8", "#c8c8c8", "#dd8033", "#a84300"],
  "grey": ["#000000", "#ffffff"]
};

// One colour for each of ten classes, such as the digits: a darker set for light pages.
export const CLASS_COLOURS = {
  "light": [
    "#1f6fb4", "#b05600", "#1b7f3b", "#c8242f", "#7a4fb5", "#7b5147", "#b8308a", "#5c636b",
    "#726a00", "#007a88"
  ],
  "dark": [
    "#6fb1ea", "#f19a4a", "#63c97f", "#f77f7f", "#b79bed", "#c9a193", "#ee86c5", "#b3bac2",
    "#cfc44a", "#4fcbd8"
  ]
};

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// A colour map as a table of `size` colours: Uint8ClampedArray [size * 3].
export function colourTable(name, size = 256) {
  const anchors = MAPS[name].map(rgb);
  const table = new Uint8ClampedArray(size * 3);
  for (let i = 0; i < size; i++) {
    const place = (i / (size - 1)) * (anchors.length - 1);
    const a = Math.min(Math.floor(place), anchors.length - 2);
    for (let c = 0; c < 3; c++) {
      table[3 * i + c] = anchors[a][c] + (anchors[a + 1][c] - anchors[a][c]) * (place - a);
    }
  }
  return table;
}

// ------------------------------------------------------------------------------------------- data

// The arrays Python packed: {name: {values: Float32Array, shape}}. See `pack` in base.py.
export function unpack(model) {
  const bytes = model.get("data");
  const arrays = {};
  for (const [name, { offset, shape, low, high, bits = 16 }] of Object.entries(model.get("arrays"))) {
    const size = shape.reduce((a, b) => a * b, 1);
    const start = bytes.byteOffset + offset;
    const Whole = bits === 8 ? Uint8Array : Uint16Array;
    const whole = new Whole(bytes.buffer.slice(start, start + (bits / 8) * size));
    const values = new Float32Array(size);
    const unit = (high - low) / (2 ** bits - 1);
    for (let i = 0; i < size; i++) values[i] = low + unit * whole[i];
    arrays[name] = { values, shape };
  }
  return arrays;
}

// The state at a fractional step: neighbours along the first axis, mixed linearly, into `out`.
export function atStep({ values, shape }, step, out) {
  const size = values.length / shape[0];
  const a = Math.max(0, Math.min(Math.floor(step), shape[0] - 1));
  const share = a + 1 < shape[0] ? step - a : 0;
  const from = a * size;
  if (share === 0) {
    out.set(values.subarray(from, from + size));
  } else {
    for (let i = 0; i < size; i++) {
      out[i] = values[from + i] + (values[from + size + i] - values[from + i]) * share;
    }
  }
  return out;
}

// A number as short as a tick label should be, with a true minus sign.
export function tidy(value) {
  const text = Math.abs(value) < 1e-9 ? "0" : String(Number(value.toPrecision(4)));
  return text.replace("-", "\u2212");
}

// ------------------------------------------------------------------------------------------ theme

const THEMES = {
  light: {
    dark: false, ink: "#1f2328", muted: "#5b626b", line: "#d3d7dc", fill: "#eceef1",
    plot: "#fbfcfd", accent: PALETTE.data, rim: "rgba(20, 24, 30, 0.35)"
  },
  dark: {
    dark: true, ink: "#e8eaed", muted: "#a7adb5", line: "#43484f", fill: "#2c3036",
    plot: "#191b1e", accent: "#5aa2dc", rim: "rgba(0, 0, 0, 0.45)"
  }
};

// The page the reader looks at: inside an iframe this is the page around it.
function readersPage() {
  try {
    return window.parent.document;
  } catch {
    return document; // another origin's page around ours: we may not look at it
  }
}

function isDark(page) {
  const jupyter = page.body.dataset.jpThemeLight;
  if (jupyter !== undefined) return jupyter === "false";
  // Elsewhere the page's own background decides.
  for (const element of [page.body, page.documentElement]) {
    const [r, g, b, alpha = 1] = (getComputedStyle(element).backgroundColor.match(/[\d.]+/g) || [])
      .map(Number);
    if (r !== undefined && alpha > 0.5) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 110;
  }
  return false;
}

// Keep `root` in the reader's theme and call `onChange` when it turns.
// Returns {current, stop}; `current` holds the colours to draw with.
export function followTheme(root, onChange) {
  const page = readersPage();
  const state = { current: THEMES.light, stop: () => observer.disconnect() };
  const apply = () => {
    state.current = THEMES[isDark(page) ? "dark" : "light"];
    const style = getComputedStyle(page.body);
    const font = style.getPropertyValue("--jp-ui-font-family") || "system-ui, sans-serif";
    state.current.font = font;
    root.style.setProperty("--cw-font", font);
    root.style.colorScheme = state.current.dark ? "dark" : "light";
    for (const name of ["ink", "muted", "line", "fill", "plot", "accent"]) {
      root.style.setProperty(`--cw-${name}`, state.current[name]);
    }
  };
  const observer = new MutationObserver(() => {
    apply();
    onChange();
  });
  const attributes = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] };
  observer.observe(page.body, attributes);
  observer.observe(page.documentElement, attributes);
  apply();
  return state;
}

// ------------------------------------------------------------------------------------- the outline

// A small way to write HTML: element("div", {class: "x"}, child, "text").
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// The outline of a widget: a focusable group with a header, a stage and a place for controls.
//
// `layout(width)` says how high the canvas is in CSS pixels, `draw(ctx, size, theme)` draws it.
// Returns {root, header, stage, canvas, controls, theme, redraw, onStop}; `redraw()` may be called
// as often as you like and draws at most once a frame.
export function outline({ model, el, layout, draw, maxWidth = 560 }) {
  const title = element("span", { class: "cw-title" }, model.get("title") || "");
  const note = element("span", { class: "cw-note" });
  const header = element("div", { class: "cw-header" }, title, note);
  const canvas = element("canvas", { role: "img", "aria-label": model.get("alt") || "" });
  const stage = element("div", { class: "cw-stage" }, canvas);
  const controls = element("div", { class: "cw-controls" });
  const name = model.get("title") || "interactive figure";
  const root = element(
    "div",
    { class: "course-widget", role: "group", tabindex: "0", "aria-label": name },
    header, stage, controls
  );
  root.style.maxWidth = `${maxWidth}px`;
  el.replaceChildren(root);

  const ctx = canvas.getContext("2d");
  const stops = [];
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

  const measure = () => {
    const width = Math.min(stage.clientWidth, maxWidth);
    if (!width || width === size.width) return;
    size = { width, height: Math.round(layout(width)) };
    canvas.style.height = `${size.height}px`;
    redraw();
  };
  const observer = new ResizeObserver(measure);
  observer.observe(stage);

  const retitle = () => (title.textContent = model.get("title") || "");
  model.on("change:title", retitle);
  stops.push(theme.stop, () => observer.disconnect(), () => cancelAnimationFrame(frame));
  stops.push(() => model.off("change:title", retitle));
  return {
    root, header, note, stage, canvas, controls, theme, redraw,
    onStop: (stop) => stops.push(stop),
    stop: () => stops.forEach((stop) => stop())
  };
}

// ------------------------------------------------------------------------------------------- axes

// Round tick positions inside [low, high], about `wanted` of them.
export function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const unit = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let k = Math.ceil(low / unit - 1e-9); k * unit <= high + 1e-9 * unit; k++) found.push(k * unit);
  return found;
}

// Maps between the plane and canvas pixels: extent [x0, x1, y0, y1] into box {x, y, width, height}.
export function plane(extent, box) {
  const [x0, x1, y0, y1] = extent;
  const sx = box.width / (x1 - x0);
  const sy = box.height / (y1 - y0);
  return {
    x: (value) => box.x + (value - x0) * sx,
    y: (value) => box.y + (y1 - value) * sy,
    toPlane: (px, py) => [x0 + (px - box.x) / sx, y1 - (py - box.y) / sy]
  };
}

export function drawPlane(ctx, box, theme) {
  ctx.fillStyle = theme.plot;
  ctx.fillRect(box.x, box.y, box.width, box.height);
}

// Frame, ticks and numbers around a plot; drawn last, so that nothing hides the frame.
export function drawAxes(ctx, extent, box, theme) {
  const map = plane(extent, box);
  ctx.strokeStyle = theme.line;
  ctx.fillStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.font = `11px ${theme.font}`;
  ctx.beginPath();
  // Half pixels make a line of width 1 crisp.
  ctx.rect(Math.round(box.x) + 0.5, Math.round(box.y) + 0.5, box.width - 1, box.height - 1);
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  for (const value of ticks(extent[0], extent[1])) {
    const x = Math.round(map.x(value)) + 0.5;
    ctx.moveTo(x, box.y + box.height);
    ctx.lineTo(x, box.y + box.height + 4);
    ctx.fillText(tidy(value), x, box.y + box.height + 7);
  }
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const value of ticks(extent[2], extent[3])) {
    const y = Math.round(map.y(value)) + 0.5;
    ctx.moveTo(box.x - 4, y);
    ctx.lineTo(box.x, y);
    ctx.fillText(tidy(value), box.x - 7, y);
  }
  ctx.stroke();
}

// Points of ten classes as the digits 0 ... 9: the character tells the class, the colour helps.
export function drawDigits(ctx, places, labels, theme, size = 11) {
  const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
  ctx.font = `600 ${size}px ${theme.font}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.lineJoin = "round";
  ctx.lineWidth = 2.5;
  ctx.strokeStyle = theme.plot; // a rim, so that a digit is read on others and on pictures
  places.forEach(([x, y], i) => {
    ctx.strokeText(labels[i], x, y);
    ctx.fillStyle = colours[labels[i]];
    ctx.fillText(labels[i], x, y);
  });
}

// A bar of the colour map `name` with its numbers to the right and its label along it.
export function drawColourBar(ctx, name, low, high, label, box, theme) {
  const gradient = ctx.createLinearGradient(0, box.y + box.height, 0, box.y);
  MAPS[name].forEach((hex, i, all) => gradient.addColorStop(i / (all.length - 1), hex));
  ctx.fillStyle = gradient;
  ctx.fillRect(box.x, box.y, box.width, box.height);
  ctx.strokeStyle = theme.line;
  ctx.fillStyle = theme.muted;
  ctx.font = `11px ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.beginPath();
  let widest = 0;
  for (const value of ticks(low, high)) {
    const y = Math.round(box.y + box.height * (1 - (value - low) / (high - low))) + 0.5;
    ctx.moveTo(box.x + box.width, y);
    ctx.lineTo(box.x + box.width + 4, y);
    ctx.fillText(tidy(value), box.x + box.width + 7, y);
    widest = Math.max(widest, ctx.measureText(tidy(value)).width);
  }
  ctx.stroke();
  ctx.save();
  ctx.translate(box.x + box.width + 17 + widest, box.y + box.height / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.fillText(label, 0, 0);
  ctx.restore();
}

// ------------------------------------------------------------------------------------------ dots

const FINE = 4; // a dot may stand at each quarter of a pixel

// Stamps thousands of dots onto a layer, pixel by pixel: for two panels of 2,000 particles the
// canvas's own way, one call a dot, takes longer than a frame.
//
// There is a column of dots for each colour; `radius` may be a list, whose first is the first
// column's and so on, over and over. For each picture `clear(width, height)` comes first, then
// `stamp(x, y, column)` for each dot, from the corner of the layer, and in the end `draw(ctx, corner)`.
export function dotStamp(colours, radius, ratio, rim, alpha = 1) {
  const radii = [radius].flat();
  const cell = Math.ceil((2 * Math.max(...radii) + 2) * ratio) + 1;
  const sheet = document.createElement("canvas");
  sheet.width = cell * colours.length;
  sheet.height = cell * FINE * FINE;
  const ctx = sheet.getContext("2d", { willReadFrequently: true });
  colours.forEach((colour, column) => {
    for (let row = 0; row < FINE * FINE; row++) {
      const [right, down] = [(row % FINE) / FINE, Math.floor(row / FINE) / FINE];
      const middle = (cell - 1) / 2;
      ctx.beginPath();
      const across = radii[column % radii.length] * ratio;
      ctx.arc(column * cell + middle + right, row * cell + middle + down, across, 0, 2 * Math.PI);
      ctx.fillStyle = colour;
      ctx.globalAlpha = 0.9 * alpha;
      ctx.fill();
      ctx.globalAlpha = alpha;
      ctx.strokeStyle = rim;
      ctx.lineWidth = 0.6 * ratio;
      ctx.stroke();
    }
  });
  // One 32-bit word a pixel: alpha, blue, green, red from high to low (little-endian).
  const dots = new Uint32Array(ctx.getImageData(0, 0, sheet.width, sheet.height).data.buffer);

  // The layer has a margin in which dots at the edge end.
  const layer = document.createElement("canvas");
  const onLayer = layer.getContext("2d");
  let image = null;
  let words = null;
  const clear = (width, height) => {
    const [w, h] = [Math.ceil(width * ratio) + 2 * cell, Math.ceil(height * ratio) + 2 * cell];
    if (!image || image.width !== w || image.height !== h) {
      [layer.width, layer.height] = [w, h];
      image = onLayer.createImageData(w, h);
      words = new Uint32Array(image.data.buffer);
    }
    words.fill(0);
  };
  // A dot at (x, y) of the layer, in CSS pixels.
  const stamp = (x, y, column) => {
    const [left, top] = [x * ratio - (cell - 1) / 2 + cell, y * ratio - (cell - 1) / 2 + cell].map(
      (value) => Math.round(value * FINE) / FINE
    );
    const [l, t] = [Math.floor(left), Math.floor(top)];
    if (!(l >= 0 && t >= 0 && l + cell <= image.width && t + cell <= image.height)) return;
    const row = (left - l) * FINE + (top - t) * FINE * FINE;
    for (let down = 0; down < cell; down++) {
      let from = (row * cell + down) * sheet.width + column * cell;
      let to = (t + down) * image.width + l;
      for (const end = to + cell; to < end; to++, from++) {
        const dot = dots[from];
        const ours = dot >>> 24;
        const below = words[to];
        if (!ours) continue;
        if (!below) {
          words[to] = dot;
          continue;
        }
        const theirs = ((below >>> 24) * (255 - ours)) / 255;
        const both = ours + theirs;
        const mixed = (bits) => (((dot >>> bits) & 255) * ours + ((below >>> bits) & 255) * theirs) / both;
        words[to] = (both << 24) | (mixed(16) << 16) | (mixed(8) << 8) | mixed(0);
      }
    }
  };
  const draw = (target, { x, y }) => {
    onLayer.putImageData(image, 0, 0);
    const [w, h] = [image.width / ratio, image.height / ratio];
    target.drawImage(layer, x - cell / ratio, y - cell / ratio, w, h);
  };
  return { clear, stamp, draw };
}

// ---------------------------------------------------------------------------------------- curves

// The slope at each knot: a weighted harmonic mean of the slopes of its chords (as in PCHIP), at
// both ends that of the one chord. density_warp.py has the same formulas and their sources.
function knotSlopes(xs, ys) {
  const last = xs.length - 1;
  const width = (i) => xs[i + 1] - xs[i];
  const chord = (i) => (ys[i + 1] - ys[i]) / width(i);
  return xs.map((_, i) => {
    if (i === 0) return chord(0);
    if (i === last) return chord(last - 1);
    const before = 2 * width(i) + width(i - 1);
    const after = width(i) + 2 * width(i - 1);
    return (before + after) / (before / chord(i - 1) + after / chord(i));
  });
}

// The curve through knots that rise, or that fall, as a function of x that returns [f(x), f'(x)].
export function monotoneCurve(xs, ys) {
  const slopes = knotSlopes(xs, ys);
  const last = xs.length - 1;
  return (x) => {
    if (x < xs[0]) return [ys[0] + slopes[0] * (x - xs[0]), slopes[0]];
    if (x >= xs[last]) return [ys[last] + slopes[last] * (x - xs[last]), slopes[last]];
    let i = 0;
    while (x >= xs[i + 1]) i++;
    const width = xs[i + 1] - xs[i];
    const chord = (ys[i + 1] - ys[i]) / width;
    const [left, right] = [slopes[i], slopes[i + 1]];
    const t = (x - xs[i]) / width;
    const bend = 3 * chord - 2 * left - right;
    const twist = left + right - 2 * chord;
    return [
      ys[i] + width * t * (left + t * (bend + t * twist)),
      left + t * (2 * bend + 3 * t * twist)
    ];
  };
}

// --------------------------------------------------------------------------------- telling Python

// What a reader changes by dragging: `change({trait: value})` moves the screen at once, and Python
// hears of it at most 100 ms later; `send()` sends what waits now, such as when the pointer is let go.
// A trait that may wait is tagged with echo_update=False, else an older echo pulls the reader back.
export function throttledChanges(model) {
  const waiting = new Map();
  let timer = 0;
  const send = () => {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    for (const [name, ours] of waiting) {
      // Python has set it since, and the later value is to stay. The model would send ours all the
      // same, unless it is changed once more: silently, for all that is on the screen is right.
      const theirs = model.get(name);
      if (theirs === ours) continue;
      model.set(name, ours, { silent: true });
      model.set(name, theirs, { silent: true });
    }
    waiting.clear();
    model.save_changes();
  };
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) {
      waiting.set(name, value);
      model.set(name, value);
    }
    if (!timer) timer = setTimeout(send, 100);
  };
  return { change, send };
}

// ------------------------------------------------------------------------------ asking the kernel

const PATIENCE = 8000; // milliseconds until a wait is called a long one

// Questions to the kernel, one at a time: `ask(question)` sends {kind, sequence, ...question()}, or
// waits for the answer that is on its way. Of what is asked meanwhile only the newest goes out;
// question() is called at that moment, and may be null where there is nothing left to ask.
//
// Python answers by the trait `answered` with the same `sequence`. `onAnswer(ours)` hears of every
// answer but stale ones (another is awaited, or a newer question goes out); `tell()` of all changes.
export function kernelLine(model, kind, { onAnswer, tell }) {
  const name = Math.random().toString(36).slice(2, 8); // another browser may talk to this kernel
  const line = { waiting: "", late: false };
  let count = 0;
  let timer = 0;
  let next = null;
  const send = (content) => {
    count += 1;
    line.waiting = `${name}.${count}`;
    line.late = false;
    timer = setTimeout(() => {
      line.late = true;
      tell();
    }, PATIENCE);
    model.send({ kind, sequence: line.waiting, ...content });
  };
  line.ask = (question) => {
    if (line.waiting) {
      next = question;
    } else {
      const content = question();
      if (content) send(content);
    }
    tell();
  };
  model.on("change:answered", () => {
    if (line.waiting && model.get("answered").sequence !== line.waiting) return;
    const ours = Boolean(line.waiting);
    clearTimeout(timer);
    Object.assign(line, { waiting: "", late: false });
    const content = next?.();
    next = null;
    if (content) send(content);
    else onAnswer(ours);
    tell();
  });
  return line;
}

// ------------------------------------------------------------------------------------- the player

const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

// One clock per model, shared by all its views, so that two views of a widget stay together.
const CLOCKS = new WeakMap();

// The clock moves `step` along and keeps it in step with Python.
//
// The screen follows at once; Python hears of it at most five times a second and when motion ends,
// so that a busy kernel never slows the drawing.
export function clockOf(model) {
  if (CLOCKS.has(model)) return CLOCKS.get(model);
  const last = () => Math.max(0, model.get("n_steps") - 1);
  const listeners = new Set();
  let sent = model.get("step");
  let timer = 0;
  let frame = 0;
  let before = 0;

  const clock = { step: sent, speed: 1, loop: false, playing: false, last };
  const tell = () => listeners.forEach((listener) => listener());
  const send = () => {
    clearTimeout(timer);
    timer = 0;
    sent = clock.step;
    model.set("step", clock.step);
    model.set("playing", clock.playing);
    model.save_changes();
  };
  const move = (step) => {
    clock.step = Math.max(0, Math.min(step, last()));
    if (!timer) timer = setTimeout(send, 200);
    tell();
  };
  const tick = (now) => {
    if (!clock.playing) return;
    // After a pause of the page, motion goes on where it stopped instead of jumping.
    // A frame may bear a time from just before the clock was started.
    const seconds = Math.min(Math.max(now - before, 0), 100) / 1000;
    let next = clock.step + seconds * clock.speed * model.get("rate");
    before = now;
    if (next >= last()) {
      if (clock.loop) {
        next = 0;
      } else {
        clock.playing = false;
        next = last();
      }
    }
    move(next);
    if (clock.playing) frame = requestAnimationFrame(tick);
    else send();
  };

  clock.seek = (step) => {
    clock.pause();
    move(step);
  };
  // To the neighbouring whole step.
  clock.forward = () => clock.seek(Math.floor(clock.step + 1e-6) + 1);
  clock.back = () => clock.seek(Math.ceil(clock.step - 1e-6) - 1);
  clock.play = () => {
    if (clock.playing || last() === 0) return;
    if (clock.step >= last()) clock.step = 0;
    clock.playing = true;
    send();
    tell();
    before = performance.now();
    frame = requestAnimationFrame(tick);
  };
  clock.pause = () => {
    if (!clock.playing) return;
    clock.playing = false;
    cancelAnimationFrame(frame);
    send();
    tell();
  };
  // What is shown: with reduced motion whole steps only, nothing glides.
  clock.shown = () =>
    REDUCED_MOTION.matches && clock.playing ? Math.floor(clock.step) : clock.step;
  clock.listen = (listener) => {
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (!listeners.size) clock.pause();
    };
  };

  model.on("change:step", () => {
    const step = model.get("step");
    if (step === sent) return; // our own message coming back
    sent = step;
    clock.step = step;
    tell();
  });
  model.on("change:playing", () => (model.get("playing") ? clock.play() : clock.pause()));
  CLOCKS.set(model, clock);
  if (model.get("playing")) clock.play();
  return clock;
}

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9.5 2.5h3v11h-3z",
  back: "M3 3h2v10H3zM13 3v10L6 8z",
  forward: "M11 3h2v10h-2zM3 3v10l7-5z",
  loop: "M8 3V.8L4.6 3.6 8 6.4V4.4a3.6 3.6 0 1 1-3.6 3.6H3A5 5 0 1 0 8 3z"
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(name, label, onClick) {
  const node = element("button", { type: "button", "aria-label": label, title: label, class: `cw-${name}` });
  node.append(icon(name));
  node.addEventListener("click", onClick);
  return node;
}

const SPEEDS = [1, 2, 0.5];

// The bar under a player: play, step, scrub, speed, loop; and the keys that do the same.
export function playerBar(view, model) {
  const clock = clockOf(model);
  const play = button("play", "Play", () => (clock.playing ? clock.pause() : clock.play()));
  const back = button("back", "Step back", clock.back);
  const forward = button("forward", "Step forward", clock.forward);
  const slider = element("input", { type: "range", min: "0", step: "any", "aria-label": "Step" });
  const readout = element("span", { class: "cw-readout" });
  const speed = element("button", { type: "button", class: "cw-speed" }, "1\u00d7");
  const loop = button("loop", "Repeat", () => {
    clock.loop = !clock.loop;
    show();
  });
  slider.addEventListener("input", () => clock.seek(Number(slider.value)));
  speed.addEventListener("click", () => {
    clock.speed = SPEEDS[(SPEEDS.indexOf(clock.speed) + 1) % SPEEDS.length];
    show();
  });
  view.controls.append(play, back, forward, slider, readout, speed, loop);

  let wasPlaying = null;
  const show = () => {
    const last = clock.last();
    const step = clock.shown();
    const label = (model.get("labels") || [])[Math.round(step)] || "";
    const whole = Math.abs(step - Math.round(step)) < 0.005;
    const place = `${whole ? Math.round(step) : step.toFixed(1)} / ${last}`;
    slider.max = String(last);
    slider.value = String(step);
    slider.style.setProperty("--cw-done", `${last ? (100 * step) / last : 0}%`);
    slider.setAttribute("aria-valuetext", label ? `${place}, ${label}` : place);
    readout.textContent = place;
    view.note.textContent = label;
    if (wasPlaying !== clock.playing) {
      wasPlaying = clock.playing;
      const name = clock.playing ? "Pause" : "Play";
      play.replaceChildren(icon(name.toLowerCase()));
      play.setAttribute("aria-label", name);
      play.title = name;
    }
    speed.textContent = `${clock.speed === 0.5 ? "\u00bd" : clock.speed}\u00d7`;
    speed.title = "Speed";
    speed.setAttribute("aria-label", `Speed ${clock.speed}`);
    loop.setAttribute("aria-pressed", String(clock.loop));
    view.redraw();
  };
  view.onStop(clock.listen(show));
  onKeys(view, {
    " ": () => (clock.playing ? clock.pause() : clock.play()),
    ArrowLeft: clock.back,
    ArrowRight: clock.forward,
    Home: () => clock.seek(0),
    End: () => clock.seek(clock.last())
  });
  const refresh = () => show();
  for (const name of ["n_steps", "labels"]) {
    model.on(`change:${name}`, refresh);
    view.onStop(() => model.off(`change:${name}`, refresh));
  }
  show();
  return clock;
}

// Keys that work while the focus is inside the widget: {key: action}, called with the event.
//
// JupyterLab listens for its shortcuts on the document before the event reaches us, and takes the
// arrows for itself. The window comes before the document, so we listen there.
export function onKeys(view, actions) {
  const listen = (event) => {
    if (!view.root.contains(event.target) || event.ctrlKey || event.altKey || event.metaKey) return;
    const action = actions[event.key];
    const pressesButton = event.key === " " && event.target.tagName === "BUTTON";
    if (!action || pressesButton) return;
    event.preventDefault();
    event.stopPropagation();
    action(event);
  };
  window.addEventListener("keydown", listen, true);
  view.onStop(() => window.removeEventListener("keydown", listen, true));
}

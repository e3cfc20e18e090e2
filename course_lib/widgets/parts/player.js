// The clock of a trajectory, and the bar that plays it.

import { onKeys } from "./keys.js";
import { element } from "./outline.js";
import { listenersOf, perModel } from "./shared.js";

const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

// The clock moves `step` along and keeps it in step with Python.
//
// The screen follows at once; Python hears of it at most five times a second and when motion ends,
// so that a busy kernel never slows the drawing.
//
// There is one clock per model, shared by all its views, so that two views of a widget stay together.
export const clockOf = perModel((model) => {
  const last = () => Math.max(0, model.get("n_steps") - 1);
  const { tell, listen } = listenersOf();
  let listening = 0; // views
  let sent = model.get("step");
  let timer = 0;
  let frame = 0;
  let before = 0;

  const clock = { step: sent, speed: 1, loop: false, playing: false, last };
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
  clock.back = () => clock.seek(Math.ceil(clock.shown() - 1e-6) - 1);
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
    clock.step = clock.shown(); // not a step that nobody has seen
    clock.playing = false;
    cancelAnimationFrame(frame);
    send();
    tell();
  };
  // What is shown: where nothing lies between two steps, and with reduced motion, nothing glides.
  clock.shown = () =>
    model.get("whole_steps") || (REDUCED_MOTION.matches && clock.playing) ? Math.floor(clock.step + 1e-6) : clock.step;
  clock.listen = (listener) => {
    const stop = listen(listener);
    listening += 1;
    return () => {
      stop();
      listening -= 1;
      if (!listening) clock.pause();
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
  if (model.get("playing")) clock.play();
  return clock;
});

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

function iconButton(name, label, onClick) {
  const node = element("button", { type: "button", "aria-label": label, title: label, class: `cw-${name}` });
  node.append(icon(name));
  node.addEventListener("click", onClick);
  return node;
}

const SPEEDS = [1, 2, 0.5];

// The bar under a player: play, step, scrub, speed, loop; and the keys that do the same.
export function playerBar(view, model) {
  const clock = clockOf(model);
  const play = iconButton("play", "Play", () => (clock.playing ? clock.pause() : clock.play()));
  const back = iconButton("back", "Step back", clock.back);
  const forward = iconButton("forward", "Step forward", clock.forward);
  const between = model.get("whole_steps") ? "1" : "any";
  const slider = element("input", { type: "range", min: "0", step: between, "aria-label": "Step" });
  const readout = element("span", { class: "cw-readout" });
  const speed = element("button", { type: "button", class: "cw-speed" }, "1\u00d7");
  const loop = iconButton("loop", "Repeat", () => {
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
  const keys = {
    " ": () => (clock.playing ? clock.pause() : clock.play()),
    ArrowLeft: () => clock.back(),
    ArrowRight: () => clock.forward(),
    Home: () => clock.seek(0),
    End: () => clock.seek(clock.last())
  };
  onKeys(view, keys);
  onKeys(view, { ...keys, ArrowUp: keys.ArrowRight, ArrowDown: keys.ArrowLeft }, slider);
  view.follow(["n_steps", "labels"], show, { now: true });
  return clock;
}

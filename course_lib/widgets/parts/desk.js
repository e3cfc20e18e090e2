// What a model has asked the kernel to draw, and what is known: once per model, for all its views.

import { kernelLine } from "./kernel.js";
import { listenersOf, perModel } from "./shared.js";

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// `make(model)` gives {question, stored, watch, size}: the names and values of what is asked now;
// the images of it that were drawn before, a list of states, or an empty one; the traits that it
// hangs on; and how many bytes a state has. Everything else that it gives stands on the desk, too.
//
// desk.states: the states on the way to the image that is asked for, the last of them the image;
// none where it is not known. desk.shown: those that were known last. desk.coming(): those of the
// answer that is on its way, {count, states}, with holes where none was told.
export const deskOf = (make) => perModel((model) => {
  const desk = make(model);
  const { tell, listen } = listenersOf();
  desk.fits = () => {
    const answered = model.get("answered");
    return Object.entries(desk.question()).every(([name, value]) => answered[name] === value);
  };
  desk.failed = () => desk.fits() && model.get("answered").error;
  const known = () => {
    if (!desk.fits() || desk.failed()) return desk.stored();
    const all = bytesOf(model.get("answered").pixels);
    return Array.from({ length: all.length / desk.size }, (_, k) => all.subarray(k * desk.size, (k + 1) * desk.size));
  };
  desk.shown = [];
  const look = () => {
    desk.states = known();
    if (desk.states.length) desk.shown = desk.states;
  };
  const changed = () => {
    look();
    tell();
  };
  desk.listen = listen;
  desk.line = kernelLine(model, "draw", { onAnswer: () => {}, tell: changed });
  const nothing = { count: 0, states: [] };
  let coming = nothing;
  desk.coming = () => (desk.line.waiting && coming.sequence === desk.line.waiting ? coming : nothing);
  model.on("change:progress", () => {
    const { sequence, steps, pixels } = model.get("progress");
    if (sequence !== desk.line.waiting) return;
    if (sequence !== coming.sequence) coming = { sequence, states: [] };
    coming.count = steps;
    coming.states[steps - 1] = bytesOf(pixels);
    tell();
  });
  const asked = () => {
    look();
    if (!model.standIn && !desk.states.length) desk.line.ask(() => (desk.states.length ? null : desk.question()));
    tell();
  };
  for (const name of desk.watch) model.on(`change:${name}`, asked);
  look();
  return desk;
});

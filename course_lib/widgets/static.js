// Brings a stored widget to life inside its iframe, without a kernel.
//
// Pasted after the widget's own module, whose default export is called `widget` there.

// What a widget asks of anywidget's model, over a plain object. `standIn` tells it that nobody
// answers messages here.
function standInModel(state) {
  const listeners = new Map();
  const fire = (event, ...details) => {
    for (const listener of [...(listeners.get(event) || [])]) listener(...details);
  };
  const model = {
    standIn: true,
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      fire(`change:${name}`, model, value);
      fire("change", model);
    },
    on(event, listener) {
      listeners.set(event, [...(listeners.get(event) || []), listener]);
    },
    off(event, listener) {
      listeners.set(event, (listeners.get(event) || []).filter((other) => other !== listener));
    },
    save_changes() {},
    send() {}
  };
  return model;
}

const state = JSON.parse(document.getElementById("state").textContent);
const bytes = Uint8Array.from(atob(state.data), (character) => character.charCodeAt(0));
state.data = new DataView(bytes.buffer);
const place = document.getElementById("widget");
widget.render({ model: standInModel(state), el: place });

// From here on the widget is alive: the still picture and its words before the iframe step aside.
const frame = window.frameElement;
if (frame) {
  const still = frame.previousElementSibling; // the picture and its words
  const show = (alive) => {
    still.style.display = alive ? "none" : "";
    frame.style.display = alive ? "block" : "none";
  };
  still.querySelector("small")?.remove();
  show(true);
  // On paper the picture stands again: it is whole on a page of any width.
  const page = frame.ownerDocument.defaultView;
  page.addEventListener("beforeprint", () => show(false));
  page.addEventListener("afterprint", () => show(true));
  const fit = () => {
    // Zero means that the page hides us for a moment (JupyterLab does while it turns its theme).
    const { height } = place.getBoundingClientRect();
    if (height) frame.style.height = `${Math.ceil(height)}px`; // a part of a pixel is a whole one, too
    // An iframe stays transparent only while both sides agree on the colour scheme.
    frame.style.colorScheme = place.firstElementChild.style.colorScheme;
    document.documentElement.style.colorScheme = frame.style.colorScheme;
  };
  const outputs = outputsAround(frame);
  window.addEventListener("pagehide", () => holdPlace(outputs, outputs?.offsetHeight));
  new ResizeObserver(fit).observe(place);
  new MutationObserver(fit).observe(place.firstElementChild, { attributeFilter: ["style"] });
  fit();
}

// Telling Python what a reader changes by dragging.

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

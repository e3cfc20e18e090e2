// What the views of one model share: one clock, one question to the kernel, one memory.

// `make(model)` once for each model.
export function perModel(make) {
  const made = new WeakMap();
  return (model) => {
    if (!made.has(model)) made.set(model, make(model));
    return made.get(model);
  };
}

// Those who want to hear of it: `tell()` tells all, `listen(listener)` returns how to stop.
export function listenersOf() {
  const all = new Set();
  const tell = () => all.forEach((listener) => listener());
  const listen = (listener) => {
    all.add(listener);
    return () => all.delete(listener);
  };
  return { tell, listen };
}

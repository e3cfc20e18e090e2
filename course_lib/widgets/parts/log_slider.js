// A slider of a trait that is changed by factors: it runs over the logarithm.

import { slider } from "./controls.js";

// As `slider`, with `min`, `max` and `text` in the trait's own numbers. Where the trait is a `whole`
// number it is rounded; `step` is in powers of two.
export function logSlider(view, name, label, { min, max, step = "any", text = String, whole = false, change, title = "" }) {
  const back = (power) => (whole ? Math.round(2 ** power) : 2 ** power);
  const inPowers = { follow: view.follow, model: { get: (trait) => Math.log2(view.model.get(trait)) } };
  return slider(inPowers, name, label, {
    min: Math.log2(min), max: Math.log2(max), step, title, text: (power) => text(back(power)),
    change: (values) => change({ [name]: back(values[name]) })
  });
}

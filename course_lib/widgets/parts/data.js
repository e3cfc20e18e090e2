// The arrays that Python packed, and numbers in writing.

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

// Standard normal numbers from a seed: the same as `standard_noise` of reparameterization.py.

// Uniform numbers between 0 and 1 from a seed (Mulberry32).
function uniformsFrom(seed) {
  let word = seed >>> 0;
  return () => {
    word = (word + 0x6d2b79f5) >>> 0;
    let t = Math.imul(word ^ (word >>> 15), word | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

// One after another, by Box and Muller's rule.
export function normalsFrom(seed) {
  const uniform = uniformsFrom(seed);
  let second = null; // of a pair
  return () => {
    if (second !== null) {
      const value = second;
      second = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    second = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

// The noise ε of a seed: its first n numbers.
export function standardNoise(seed, n) {
  const next = normalsFrom(seed);
  return Array.from({ length: n }, next);
}

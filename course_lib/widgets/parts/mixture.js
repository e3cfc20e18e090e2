// A mixture of Gaussians in the plane, each of a class: {means, stds, weights, classes}.

// The scores at a noise level: `at(x, y, target)` is [u, v] of the marginal and [u, v] of the class, in
// one list that is written anew at each call.
export function scoresOf({ means, stds, weights, classes }, sigma) {
  const count = means.length;
  const [left, up] = [0, 1].map((d) => Float64Array.from(means, (mean) => mean[d]));
  const rates = Float64Array.from(stds, (std) => 1 / (std * std + sigma * sigma));
  const starts = Float64Array.from(weights, (weight, k) => Math.log((weight * rates[k]) / (2 * Math.PI)));
  const kinds = Int32Array.from(classes);
  const logits = new Float64Array(count);
  const found = new Float64Array(4);
  // The average pull of those of a class, or of all, at [from] and [from + 1].
  const average = (x, y, target, most, from) => {
    let total = 0;
    let u = 0;
    let v = 0;
    for (let k = 0; k < count; k++) {
      if (target >= 0 && kinds[k] !== target) continue;
      const below = logits[k] - most;
      if (below < -40) continue; // less than rounding
      const share = Math.exp(below);
      total += share;
      u += share * rates[k] * (left[k] - x);
      v += share * rates[k] * (up[k] - y);
    }
    found[from] = u / total;
    found[from + 1] = v / total;
  };
  return (x, y, target) => {
    let most = -Infinity;
    let own = -Infinity;
    for (let k = 0; k < count; k++) {
      const dx = x - left[k];
      const dy = y - up[k];
      const logit = starts[k] - 0.5 * rates[k] * (dx * dx + dy * dy);
      logits[k] = logit;
      if (logit > most) most = logit;
      if (logit > own && kinds[k] === target) own = logit;
    }
    average(x, y, -1, most, 0);
    average(x, y, target, own, 2);
    return found;
  };
}

// The logs of p(x) and of p(y | x) at a place, as [marginal, classifier].
export function logsAt({ means, stds, weights, classes }, x, y, target) {
  let [all, own] = [-Infinity, -Infinity];
  const add = (a, b) => (b === -Infinity ? a : Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b))));
  means.forEach(([left, up], k) => {
    const variance = stds[k] * stds[k];
    const log = Math.log(weights[k]) - Math.log(2 * Math.PI * variance) - ((x - left) ** 2 + (y - up) ** 2) / (2 * variance);
    all = add(log, all);
    if (classes[k] === target) own = add(log, own);
  });
  return [all, own - all];
}

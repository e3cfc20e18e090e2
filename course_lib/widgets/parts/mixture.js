// A mixture of Gaussians in the plane, each of a class: {means, stds, weights, classes}.

// e^x for x from -40 to 0, to the last digit or two: a table and a short series. The browser's own takes
// twice as long, and this is most of what a frame computes.
const EXP_STEPS = 64; // of the table, in a unit of x
const EXP_TABLE = Float64Array.from({ length: 40 * EXP_STEPS + 2 }, (_, k) => Math.exp(-k / EXP_STEPS));
function quickExp(x) {
  const k = Math.floor(0.5 - EXP_STEPS * x);
  const r = x + k / EXP_STEPS;
  return EXP_TABLE[k] * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r / 120)))));
}

// The scores at a noise level: `at(x, y)` is [u, v] of the marginal and [u, v] of the class `target`, in
// one list that is written anew at each call.
export function scoresOf({ means, stds, weights, classes }, sigma, target) {
  // The place of each, its rate, the log of its share, and room for its logit; those of the class first.
  // One row of numbers and plain loops: this is asked for ten thousands of places a frame.
  const wide = 5;
  const numbers = [...classes.keys()].sort((i, j) => (classes[j] === target) - (classes[i] === target));
  const row = Float64Array.from(numbers.flatMap((k) => {
    const rate = 1 / (stds[k] * stds[k] + sigma * sigma);
    return [...means[k], rate, Math.log((weights[k] * rate) / (2 * Math.PI)), 0];
  }));
  const others = wide * classes.filter((own) => own === target).length; // where they begin
  const found = new Float64Array(4);
  return (x, y) => {
    let most = -Infinity;
    let own = -Infinity;
    for (let k = 0; k < row.length; k += wide) {
      const dx = x - row[k];
      const dy = y - row[k + 1];
      const logit = row[k + 3] - 0.5 * row[k + 2] * (dx * dx + dy * dy);
      row[k + 4] = logit;
      if (logit > most) most = logit;
      if (k < others) own = most;
    }
    // The average pull, first of the class: what it weighs is known when the others come.
    let total = 0;
    let u = 0;
    let v = 0;
    let nearest = own;
    for (let k = 0; ; k += wide) {
      if (k === others) {
        found[2] = u / total;
        found[3] = v / total;
        const weight = Math.exp(own - most);
        total *= weight;
        u *= weight;
        v *= weight;
        nearest = most;
      }
      if (k === row.length) break;
      const below = row[k + 4] - nearest;
      if (below < -40) continue; // less than rounding
      const share = quickExp(below);
      const pull = share * row[k + 2];
      total += share;
      u += pull * (row[k] - x);
      v += pull * (row[k + 1] - y);
    }
    found[0] = u / total;
    found[1] = v / total;
    return found;
  };
}

// The logs of p(x) and of p(y | x) at a place, as [marginal, classifier].
export function logsAt({ means, stds, weights, classes }, x, y, target) {
  let [all, own] = [-Infinity, -Infinity];
  const add = (a, b) => (b === -Infinity ? a : Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b))));
  means.forEach(([left, up], k) => {
    const variance = stds[k] * stds[k];
    const log = Math.log(weights[k] / (2 * Math.PI * variance)) - ((x - left) ** 2 + (y - up) ** 2) / (2 * variance);
    all = add(log, all);
    if (classes[k] === target) own = add(log, own);
  });
  return [all, own - all];
}

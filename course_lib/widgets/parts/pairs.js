// Pairs of places on straight lines, their mean velocity, and the ways of its flow.
//
// pairs.py has the same, and the formula. A place is a list of one number or of two.

// `data[i]`, and `by[i]`, the way from there to the other end; the same in one row of numbers each,
// which is read faster.
export function pairsBetween(data, ends) {
  const by = ends.map((end, i) => end.map((value, d) => value - data[i][d]));
  return { data, by, starts: Float64Array.from(data.flat()), moves: Float64Array.from(by.flat()) };
}

// The probability of each pair at a place and a time, where a Gaussian lies around each line. They are
// written into `shares` where that is given.
export function sharesAt({ data, starts, moves }, x, t, width, shares = new Float64Array(data.length)) {
  const [count, dims] = [shares.length, x.length];
  const unit = -1 / (2 * width * width);
  let most = -Infinity;
  for (let i = 0, at = 0; i < count; i++) {
    let away = 0;
    for (let d = 0; d < dims; d++, at++) {
      const apart = x[d] - starts[at] - t * moves[at];
      away += apart * apart;
    }
    shares[i] = unit * away;
    if (shares[i] > most) most = shares[i];
  }
  let total = 0;
  for (let i = 0; i < count; i++) total += shares[i] = Math.exp(shares[i] - most);
  for (let i = 0; i < count; i++) shares[i] /= total;
  return shares;
}

// The velocity of the flow: the average over the pairs.
export function averageOf({ data, moves }, shares) {
  const dims = data[0].length;
  const mean = new Array(dims).fill(0);
  for (let i = 0, at = 0; i < shares.length; i++) {
    for (let d = 0; d < dims; d++, at++) mean[d] += shares[i] * moves[at];
  }
  return mean;
}

// The way of the flow through a place at the time t, from t = 0 to t = 1: [t, ...x] each. The classical
// Runge-Kutta method.
export function wayThrough(pairs, x, t, width, steps = 24) {
  const shares = new Float64Array(pairs.data.length);
  const velocity = (place, time) => averageOf(pairs, sharesAt(pairs, place, time, width, shares));
  const plus = (place, by, h) => place.map((value, d) => value + h * by[d]);
  const ahead = (end) => {
    const h = (end - t) / steps;
    const way = [[t, ...x]];
    let place = x;
    for (let k = 0; k < steps && h; k++) {
      const now = t + k * h;
      const k1 = velocity(place, now);
      const k2 = velocity(plus(place, k1, h / 2), now + h / 2);
      const k3 = velocity(plus(place, k2, h / 2), now + h / 2);
      const k4 = velocity(plus(place, k3, h), now + h);
      place = place.map((value, d) => value + (h / 6) * (k1[d] + 2 * k2[d] + 2 * k3[d] + k4[d]));
      way.push([now + h, ...place]);
    }
    return way;
  };
  return [...ahead(0).reverse(), ...ahead(1).slice(1)];
}

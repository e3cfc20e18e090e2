// Pairs of places on straight lines, their mean velocity, and the ways of its flow.
//
// pairs.py has the same, and the formula. A place is a list of one number or of two.

// `data[i]`, and `by[i]`, the way from there to the other end.
export const pairsBetween = (data, ends) => ({ data, by: ends.map((end, i) => end.map((value, d) => value - data[i][d])) });

// The probability of each pair at a place and a time, where a Gaussian lies around each line.
export function sharesAt({ data, by }, x, t, width) {
  const shares = new Float64Array(data.length);
  let most = -Infinity;
  for (let i = 0; i < shares.length; i++) {
    let away = 0;
    for (let d = 0; d < x.length; d++) away += (x[d] - data[i][d] - t * by[i][d]) ** 2;
    shares[i] = -away / (2 * width * width);
    most = Math.max(most, shares[i]);
  }
  let total = 0;
  for (let i = 0; i < shares.length; i++) total += shares[i] = Math.exp(shares[i] - most);
  for (let i = 0; i < shares.length; i++) shares[i] /= total;
  return shares;
}

// The velocity of the flow: the average over the pairs.
export function averageOf({ by }, shares) {
  const mean = by[0].map(() => 0);
  for (let i = 0; i < by.length; i++) {
    for (let d = 0; d < mean.length; d++) mean[d] += shares[i] * by[i][d];
  }
  return mean;
}

// The way of the flow through a place at the time t, from t = 0 to t = 1: [t, ...x] each. The classical
// Runge-Kutta method.
export function wayThrough(pairs, x, t, width, steps = 24) {
  const velocity = (place, time) => averageOf(pairs, sharesAt(pairs, place, time, width));
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

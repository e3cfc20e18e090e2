// A smooth curve through knots.

// The slope at each knot: a weighted harmonic mean of the slopes of its chords (as in PCHIP), zero at
// a peak or a valley, at both ends that of the one chord. density_warp.py has the same formulas and
// their sources.
function knotSlopes(xs, ys) {
  const last = xs.length - 1;
  const width = (i) => xs[i + 1] - xs[i];
  const chord = (i) => (ys[i + 1] - ys[i]) / width(i);
  return xs.map((_, i) => {
    if (i === 0) return chord(0);
    if (i === last) return chord(last - 1);
    const before = 2 * width(i) + width(i - 1);
    const after = width(i) + 2 * width(i - 1);
    if (chord(i - 1) * chord(i) <= 0) return 0;
    return (before + after) / (before / chord(i - 1) + after / chord(i));
  });
}

// The curve through knots as a function of x that returns [f(x), f'(x)]. Between two knots it rises, or
// falls, as they do.
export function monotoneCurve(xs, ys) {
  const slopes = knotSlopes(xs, ys);
  const last = xs.length - 1;
  const pieces = slopes.slice(0, last).map((left, i) => {
    const width = xs[i + 1] - xs[i];
    const chord = (ys[i + 1] - ys[i]) / width;
    return { width, left, bend: 3 * chord - 2 * left - slopes[i + 1], twist: left + slopes[i + 1] - 2 * chord };
  });
  return (x) => {
    if (x < xs[0]) return [ys[0] + slopes[0] * (x - xs[0]), slopes[0]];
    if (x >= xs[last]) return [ys[last] + slopes[last] * (x - xs[last]), slopes[last]];
    let i = 0;
    while (x >= xs[i + 1]) i++;
    const { width, left, bend, twist } = pieces[i];
    const t = (x - xs[i]) / width;
    return [ys[i] + width * t * (left + t * (bend + t * twist)), left + t * (2 * bend + 3 * t * twist)];
  };
}

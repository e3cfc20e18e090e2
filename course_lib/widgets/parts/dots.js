// Thousands of dots, stamped pixel by pixel.

const FINE = 4; // a dot may stand at each quarter of a pixel

// Stamps thousands of dots onto a layer, pixel by pixel: for two panels of 2,000 particles the
// canvas's own way, one call a dot, takes longer than a frame.
//
// There is a column of dots for each colour; `radius` may be a list, whose first is the first
// column's and so on, over and over. For each picture `clear(width, height)` comes first, then
// `stamp(x, y, column)` for each dot, from the corner of the layer, and in the end `draw(ctx, corner)`.
export function dotStamp(colours, radius, ratio, rim, alpha = 1) {
  const radii = [radius].flat();
  const cell = Math.ceil((2 * Math.max(...radii) + 2) * ratio) + 1;
  const sheet = document.createElement("canvas");
  sheet.width = cell * colours.length;
  sheet.height = cell * FINE * FINE;
  const ctx = sheet.getContext("2d", { willReadFrequently: true });
  colours.forEach((colour, column) => {
    for (let row = 0; row < FINE * FINE; row++) {
      const [right, down] = [(row % FINE) / FINE, Math.floor(row / FINE) / FINE];
      const middle = (cell - 1) / 2;
      ctx.beginPath();
      const across = radii[column % radii.length] * ratio;
      ctx.arc(column * cell + middle + right, row * cell + middle + down, across, 0, 2 * Math.PI);
      ctx.fillStyle = colour;
      ctx.globalAlpha = 0.9 * alpha;
      ctx.fill();
      ctx.globalAlpha = alpha;
      ctx.strokeStyle = rim;
      ctx.lineWidth = 0.6 * ratio;
      ctx.stroke();
    }
  });
  // One 32-bit word a pixel: alpha, blue, green, red from high to low (little-endian).
  const dots = new Uint32Array(ctx.getImageData(0, 0, sheet.width, sheet.height).data.buffer);
  // Of each line of each dot, where its pixels begin and end: most of a cell is empty.
  const [begins, ends] = [new Uint8Array(dots.length / cell), new Uint8Array(dots.length / cell)];
  for (let line = 0; line < begins.length; line++) {
    const seen = (pixel) => pixel > 0;
    const pixels = dots.subarray(line * cell, (line + 1) * cell);
    begins[line] = Math.max(pixels.findIndex(seen), 0);
    ends[line] = pixels.findLastIndex(seen) + 1;
  }

  // The layer has a margin in which dots at the edge end.
  const layer = document.createElement("canvas");
  const onLayer = layer.getContext("2d");
  let image = null;
  let words = null;
  const clear = (width, height) => {
    const [w, h] = [Math.ceil(width * ratio) + 2 * cell, Math.ceil(height * ratio) + 2 * cell];
    if (!image || image.width !== w || image.height !== h) {
      [layer.width, layer.height] = [w, h];
      image = onLayer.createImageData(w, h);
      words = new Uint32Array(image.data.buffer);
    }
    words.fill(0);
  };
  // A dot at (x, y) of the layer, in CSS pixels.
  const stamp = (x, y, column) => {
    const left = Math.round((x * ratio - (cell - 1) / 2 + cell) * FINE) / FINE;
    const top = Math.round((y * ratio - (cell - 1) / 2 + cell) * FINE) / FINE;
    const l = Math.floor(left);
    const t = Math.floor(top);
    if (!(l >= 0 && t >= 0 && l + cell <= image.width && t + cell <= image.height)) return;
    const row = (left - l) * FINE + (top - t) * FINE * FINE;
    for (let down = 0; down < cell; down++) {
      const line = (row * cell + down) * colours.length + column;
      const end = line * cell + ends[line];
      let from = line * cell + begins[line];
      for (let to = (t + down) * image.width + l + begins[line]; from < end; to++, from++) {
        const dot = dots[from];
        const ours = dot >>> 24;
        const below = words[to];
        if (!ours) continue;
        if (!below) {
          words[to] = dot;
          continue;
        }
        const theirs = ((below >>> 24) * (255 - ours)) / 255;
        const both = ours + theirs;
        const mixed = (bits) => (((dot >>> bits) & 255) * ours + ((below >>> bits) & 255) * theirs) / both;
        words[to] = (both << 24) | (mixed(16) << 16) | (mixed(8) << 8) | mixed(0);
      }
    }
  };
  const draw = (target, { x, y }) => {
    onLayer.putImageData(image, 0, 0);
    const [w, h] = [image.width / ratio, image.height / ratio];
    target.drawImage(layer, x - cell / ratio, y - cell / ratio, w, h);
  };
  return { clear, stamp, draw };
}

// The course's colours. Python reads the same file, palette.json.

import ALL_COLOURS from "./palette.json" with { type: "json" };

// The same colours mean the same things throughout the course.
export const PALETTE = ALL_COLOURS.roles;

// Colour maps as evenly spaced anchors, interpolated linearly.
export const MAPS = ALL_COLOURS.maps;

// One colour for each of ten classes, such as the digits: a darker set for light pages.
export const CLASS_COLOURS = ALL_COLOURS.classes;

// What a page of each theme is drawn with; `words` are the roles, dark or light enough to be read.
export const THEMES = {
  light: { dark: false, ...ALL_COLOURS.themes.light },
  dark: { dark: true, ...ALL_COLOURS.themes.dark }
};

export function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// The anchors of a map for things that stand on a plot: on a dark one viridis starts higher, where
// it is seen (3 : 1).
export function anchorsOf(name, theme) {
  return theme?.dark && name === "viridis" ? MAPS[name].slice(6) : MAPS[name];
}

// A colour map as a table of `size` colours: Uint8ClampedArray [size * 3].
export function colourTable(name, size = 256, theme = null) {
  const anchors = anchorsOf(name, theme).map(rgb);
  const table = new Uint8ClampedArray(size * 3);
  for (let i = 0; i < size; i++) {
    const place = (i / (size - 1)) * (anchors.length - 1);
    const a = Math.min(Math.floor(place), anchors.length - 2);
    for (let c = 0; c < 3; c++) {
      table[3 * i + c] = anchors[a][c] + (anchors[a + 1][c] - anchors[a][c]) * (place - a);
    }
  }
  return table;
}

// The same as a list of CSS colours.
export function colourList(name, size, theme = null) {
  const table = colourTable(name, size, theme);
  return Array.from({ length: size }, (_, i) => `rgb(${table.slice(3 * i, 3 * i + 3).join()})`);
}

// The same as words of 32 bits, one a colour, for the pixels of a picture.
export function colourWords(name, size = 256) {
  const table = colourTable(name, size);
  // Alpha, blue, green, red from high to low (little-endian).
  return Uint32Array.from({ length: size }, (_, i) =>
    (255 << 24) | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i]);
}

// Black or white: what is read better on this colour (WCAG's contrast).
export function inkOn(colour) {
  const [r, g, b] = [...colour].map((value) =>
    value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#10141a" : "#ffffff";
}

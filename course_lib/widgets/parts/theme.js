// The reader's theme: light or dark, in Jupyter, VS Code and plain pages.

import { PALETTE, THEMES } from "./colours.js";

// The page the reader looks at: inside an iframe this is the page around it.
export function readersPage() {
  try {
    return window.parent.document;
  } catch {
    return document; // another origin's page around ours: we may not look at it
  }
}

function brightness(colour) {
  const [r, g, b, alpha = 1] = (colour.match(/[\d.]+/g) || []).map(Number);
  return { bright: 0.2126 * r + 0.7152 * g + 0.0722 * b, seen: r !== undefined && alpha > 0.5 };
}

function isDark(page) {
  const { jpThemeLight: jupyter, vscodeThemeKind: code } = page.body.dataset;
  if (jupyter !== undefined) return jupyter === "false";
  if (code !== undefined) return code.includes("dark") || code === "vscode-high-contrast";
  // Elsewhere the page's own background decides, or where it has none, what it writes with.
  for (const element of [page.body, page.documentElement]) {
    const { bright, seen } = brightness(getComputedStyle(element).backgroundColor);
    if (seen) return bright < 110;
  }
  return brightness(getComputedStyle(page.body).color).bright > 140;
}

// Keep `root` in the reader's theme and call `onChange` when it turns.
// Returns {current, stop}; `current` holds the colours to draw with.
export function followTheme(root, onChange) {
  const page = readersPage();
  const state = { current: THEMES.light, stop: () => observer.disconnect() };
  const apply = () => {
    const font = getComputedStyle(page.body).getPropertyValue("--jp-ui-font-family") || "system-ui, sans-serif";
    state.current = { ...THEMES[isDark(page) ? "dark" : "light"], font };
    const { words, ...theme } = state.current;
    root.style.colorScheme = theme.dark ? "dark" : "light";
    for (const [name, value] of Object.entries({ ...theme, ...PALETTE })) {
      root.style.setProperty(`--cw-${name}`, value);
    }
    for (const [role, value] of Object.entries(words)) root.style.setProperty(`--cw-${role}-words`, value);
  };
  const observer = new MutationObserver(() => {
    apply();
    onChange();
  });
  const attributeFilter = ["data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind", "class"];
  observer.observe(page.body, { attributeFilter });
  observer.observe(page.documentElement, { attributeFilter });
  apply();
  return state;
}

// Light or dark: as the system has it, until the button says otherwise, which this browser then remembers.

const KEY = "tradeback.theme";
const system = matchMedia("(prefers-color-scheme: light)");
const listeners = new Set();

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a browser that keeps nothing
  }
}

let chosen = remembered();

export const current = () => chosen ?? (system.matches ? "light" : "dark");

export function toggle() {
  chosen = current() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // It holds until the page is left.
  }
  apply();
}

/** Calls `listener` after each change of the theme. */
export const onChange = (listener) => listeners.add(listener);

// Asking the style sheet makes the browser finish its styles at once, in the midst of what changes them.
const colors = new Map();

/** A colour of the style sheet, such as `up` for `--up`. */
export function color(name) {
  let value = colors.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    colors.set(name, value);
  }
  return value;
}

function apply() {
  document.documentElement.dataset.theme = current();
  colors.clear();
  for (const listener of listeners) listener();
}

system.addEventListener("change", apply);
apply();
